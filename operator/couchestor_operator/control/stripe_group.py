"""A stripe group as its ECStripe has it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from couchestor_domain import geometry, ids, units
from couchestor_domain.node_api import assignment

LBA_STRIDE: Final = 1 << 28
"""Logical blocks between the beginnings of a writer's groups: 1 TiB, whatever their coding."""
STRIPE_ID_MAX: Final = (1 << 53) // LBA_STRIDE - 1


class State(enum.Enum):
    """How well a group is; see ADR 0018."""

    WRITING = "Writing"
    HEALTHY = "Healthy"
    DEGRADED = "Degraded"
    REBUILDING = "Rebuilding"
    FAILED = "Failed"


class ShardHealth(enum.Enum):
    """How well a shard is."""

    HEALTHY = "Healthy"
    MISSING = "Missing"
    CORRUPTED = "Corrupted"
    REBUILDING = "Rebuilding"


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What is known of a group, and told to people."""

    state: State
    shards: tuple[ShardHealth | None, ...]
    """By shard index; None: its node has not taken it yet."""
    errors: tuple[str, ...]
    """By shard index: why it is not Healthy; else empty."""
    holds_data: bool
    """Whether anything was ever seen to be written there, or could have been."""
    handed_generation: int
    """The last that every member was seen to go by; 0: none. Only that is ever usable."""

    @property
    def healthy_count(self) -> int:
        """Shards that are Healthy."""
        return sum(shard is ShardHealth.HEALTHY for shard in self.shards)


@dataclass(frozen=True, slots=True, kw_only=True)
class StripeGroup:
    """One group at one version of its ECStripe."""

    name: str
    version: str
    """Opaque; empty: it is not made yet."""
    writer_node: str
    writer: str
    """Name of the logical volume whose blocks it holds."""
    stripe_id: int
    policy: str
    coding: geometry.StripeGeometry
    start_lba: int
    end_lba: int
    generation: int
    places: tuple[assignment.ShardPlace, ...]
    """By shard index."""
    moved_shards: frozenset[int] = frozenset()
    """Indices that lie elsewhere than at ``handed_generation``."""
    told: Told | None = None
    """What was last written of it; None: nothing."""
    is_being_deleted: bool = False

    @property
    def handed_generation(self) -> int:
        """The last generation that every member was told to go by."""
        return 0 if self.told is None else self.told.handed_generation

    @property
    def shard_bytes(self) -> int:
        """Size of each shard."""
        return self.places[0].size_bytes

    @property
    def members(self) -> tuple[ids.DeviceId, ...]:
        """Devices by shard index."""
        return tuple(place.device_id for place in self.places)


def name_of(writer: str, stripe_id: int) -> str:
    """The only name that this group of a writer can have."""
    return f"{writer}-{stripe_id}"


def made(
    *,
    writer_node: str,
    writer: str,
    stripe_id: int,
    policy: str,
    coding: geometry.StripeGeometry,
    places: tuple[assignment.ShardPlace, ...],
) -> StripeGroup:
    """A group that is not there yet, with the logical blocks that belong to its number."""
    assert 0 <= stripe_id <= STRIPE_ID_MAX, stripe_id
    blocks_count = coding.data_shards * places[0].size_bytes // units.BLOCK_BYTES
    assert 0 < blocks_count <= LBA_STRIDE, places[0]
    start_lba = stripe_id * LBA_STRIDE
    return StripeGroup(
        name=name_of(writer, stripe_id),
        version="",
        writer_node=writer_node,
        writer=writer,
        stripe_id=stripe_id,
        policy=policy,
        coding=coding,
        start_lba=start_lba,
        end_lba=start_lba + blocks_count,
        generation=1,
        places=places,
    )


def handed(group: StripeGroup, *, usable: bool) -> assignment.Assignment:
    """What nodes are sent of it."""
    return assignment.Assignment(
        stripe=group.name,
        generation=group.generation,
        writer_node=group.writer_node,
        writer=group.writer,
        stripe_id=group.stripe_id,
        policy=group.policy,
        coding=group.coding,
        start_lba=group.start_lba,
        end_lba=group.end_lba,
        usable=usable,
        shards=group.places,
    )
