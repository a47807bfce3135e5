"""What placement knows of a cluster: devices under hosts under zones, and the groups on them."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from couchestor_domain import ids


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device of some node, and how full it is."""

    device_id: ids.DeviceId
    host: str
    """What fails together first: a machine. Unlike that of any other zone's."""
    zone: str
    """What fails together next: a rack, a room. Empty: not known, one zone for all such."""
    capacity_bytes: int
    """Above 0."""
    used_bytes: int
    """What it holds already, and what is promised to others."""
    usable: bool = True
    """Whether it takes shards: healthy, on a healthy host, and with a zone to give."""

    def __post_init__(self) -> None:
        assert self.capacity_bytes > 0, self
        assert self.used_bytes >= 0, self

    @property
    def free_bytes(self) -> int:
        """Never below 0."""
        return max(0, self.capacity_bytes - self.used_bytes)

    def can_take(self, shard_bytes: int) -> bool:
        """Whether a shard of that size has room."""
        return self.usable and self.free_bytes >= shard_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Drive:
    """A device of a node."""

    device_id: ids.DeviceId
    capacity_bytes: int
    free_bytes: int
    healthy: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node as placement is told of it."""

    node_id: str
    host: str
    zone: str
    healthy: bool
    drives: tuple[Drive, ...]


class Group(NamedTuple):
    """A group whose shards lie somewhere; what they take is part of what devices have used."""

    group_id: str
    members: tuple[ids.DeviceId, ...]
    """By shard index."""
    shard_bytes: int


def devices_of(nodes: Iterable[Node]) -> list[Device]:
    """Every device of every node. What is free counts at most as all there is."""
    return [
        Device(
            device_id=drive.device_id,
            host=node.host,
            zone=node.zone,
            capacity_bytes=drive.capacity_bytes,
            used_bytes=max(0, drive.capacity_bytes - drive.free_bytes),
            usable=node.healthy and drive.healthy,
        )
        for node in nodes
        for drive in node.drives
        if drive.capacity_bytes > 0
    ]


def with_used(device: Device, more_bytes: int) -> Device:
    """The same with so many bytes more, or less, in use."""
    used_bytes = max(0, device.used_bytes + more_bytes)
    return dataclasses.replace(device, used_bytes=used_bytes)


def by_emptiness(devices: Iterable[Device], *, group_id: str, shard_bytes: int) -> Sequence[Device]:
    """The devices that can take a shard, that which is emptiest with it first.

    Equal ones by a digest of both names: one order for each group, whatever the input's.
    """
    return sorted(
        (device for device in devices if device.can_take(shard_bytes)),
        key=lambda device: (
            (device.used_bytes + shard_bytes) / device.capacity_bytes,
            _digest(group_id, device.device_id),
        ),
    )


def _digest(group_id: str, device_id: ids.DeviceId) -> bytes:
    return hashlib.blake2b(f"{group_id}/{device_id}".encode(), digest_size=8).digest()
