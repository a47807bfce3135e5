"""Storage nodes as Kubernetes and their own daemons show them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from couchestor_domain import ids
from couchestor_domain.node_api import assignment, node_record


class ShardKey(NamedTuple):
    """A shard at a place: one that moves within a node may be there twice for a while."""

    stripe: str
    shard_index: int
    device_id: ids.DeviceId
    offset_bytes: int


def key_of(shard: node_record.ShardRecord) -> ShardKey:
    """What a shard is filed under."""
    return ShardKey(shard.stripe, shard.shard_index, shard.device_id, shard.offset_bytes)


def key_at(stripe: str, index: int, place: assignment.ShardPlace) -> ShardKey:
    """What the shard of a group is filed under that lies where it is to lie."""
    return ShardKey(stripe, index, place.device_id, place.offset_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageNode:
    """A node as Kubernetes has it."""

    name: str
    address: str
    """Where its daemon is reached; empty: Kubernetes knows of no address."""
    zone: str
    """Of its label ``topology.kubernetes.io/zone``; empty: it has none."""
    ready: bool
    """Whether Kubernetes has heard of it lately, and that it is well."""
    declared_lost: bool
    """Whether people have said that it is dead and will do nothing more."""
    selected: bool
    """Whether stripe groups are to be made there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What a daemon said of its node and of all shards there, in one pass."""

    record: node_record.NodeRecord
    shards: Mapping[ShardKey, node_record.ShardRecord]
    """Without those that were released."""
