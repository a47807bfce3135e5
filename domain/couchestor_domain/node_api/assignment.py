"""A stripe group as the operator hands it to each of its members and to its writer's node."""

from __future__ import annotations

from dataclasses import dataclass

from couchestor_domain import errors, geometry, ids, units
from couchestor_domain.node_api import fields, node_record

BYTES_MAX = 64 * units.KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardPlace:
    """Where one shard lies."""

    node: str
    device_id: ids.DeviceId
    offset_bytes: int
    """Of its zone, on the device."""
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One generation of a stripe group."""

    stripe: str
    """Name of its ECStripe."""
    generation: int
    """A higher one replaces a lower one, never the other way round."""
    writer_node: str
    writer: str
    stripe_id: int
    policy: str
    """Name of the ErasureCodingPolicy that it was made under."""
    coding: geometry.StripeGeometry
    start_lba: int
    """Logical blocks of the writer's volume: from here, up to and without ``end_lba``."""
    end_lba: int
    usable: bool
    """Whether all members have taken it: before, the writer must not open it."""
    shards: tuple[ShardPlace, ...]
    """By shard index, data shards first."""


def encode(assignment: Assignment) -> bytes:
    """As it is sent."""
    return fields.written(
        "Assignment",
        {
            "stripe": assignment.stripe,
            "generation": assignment.generation,
            "writer_node": assignment.writer_node,
            "writer": assignment.writer,
            "stripe_id": assignment.stripe_id,
            "policy": assignment.policy,
            "data_shards": assignment.coding.data_shards,
            "parity_shards": assignment.coding.parity_shards,
            "start_lba": assignment.start_lba,
            "end_lba": assignment.end_lba,
            "usable": assignment.usable,
            "shards": [
                {
                    "node": place.node,
                    "device_id": place.device_id,
                    "offset_bytes": place.offset_bytes,
                    "size_bytes": place.size_bytes,
                }
                for place in assignment.shards
            ],
        },
    )


def decode(body: bytes | bytearray) -> Assignment:
    """An assignment as another machine sent it.

    Raises:
        NodeRecordError: it does not fit, or contradicts itself.
    """
    read = fields.opened(body, kind="Assignment", bytes_max=BYTES_MAX)
    try:
        coding = geometry.StripeGeometry(
            read.count("data_shards", least=1), read.count("parity_shards", least=1)
        )
    except errors.InvalidEcConfigurationError as exc:
        read.refuse("data_shards", f"and parity_shards are impossible: {exc}")
    found = Assignment(
        stripe=read.name("stripe"),
        generation=read.count("generation"),
        writer_node=read.name("writer_node"),
        writer=read.name("writer", length_max=node_record.WRITER_NAME_LENGTH_MAX),
        stripe_id=read.count("stripe_id"),
        policy=read.name("policy"),
        coding=coding,
        start_lba=read.count("start_lba"),
        end_lba=read.count("end_lba"),
        usable=read.flag("usable"),
        shards=read.each("shards", _place, least=coding.shards_count, most=coding.shards_count),
    )
    read.end()
    if found.start_lba >= found.end_lba:
        read.refuse("end_lba", "must be above start_lba")
    if len({place.device_id for place in found.shards}) != coding.shards_count:
        read.refuse("shards", "names a device twice")
    return found


def _place(value: object, path: str) -> ShardPlace:
    read = fields.Fields(value, path=path)
    place = ShardPlace(
        node=read.name("node"),
        device_id=read.device_id("device_id"),
        offset_bytes=read.count("offset_bytes"),
        size_bytes=read.count("size_bytes", least=units.BLOCK_BYTES),
    )
    read.end()
    return place
