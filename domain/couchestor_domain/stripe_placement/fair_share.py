"""How much each device should hold: in proportion to its size, as far as limits of groups allow.

Water is poured over the tree of zones, hosts and devices: all devices rise to one level of used
share. A device that holds a shard of every group, a host and a zone with as many as they may have
rise no further, and the others take the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from couchestor_domain import geometry, ids
from couchestor_domain.stripe_placement import cluster, protection

_HALVINGS_COUNT = 60


class _Vessel(Protocol):
    def held_bytes(self, level: float) -> float:
        """What it holds when devices are full to that share."""
        ...

    def give(self, amount_bytes: float, shares: dict[ids.DeviceId, float]) -> None:
        """Divide an amount that it can hold."""
        ...


class _Leaf(NamedTuple):
    device: cluster.Device
    others_bytes: int
    bytes_max: int

    def held_bytes(self, level: float) -> float:
        rising = level * self.device.capacity_bytes - self.others_bytes
        return min(max(0.0, rising), self.bytes_max)

    def give(self, amount_bytes: float, shares: dict[ids.DeviceId, float]) -> None:
        shares[self.device.device_id] = amount_bytes


class _Branch(NamedTuple):
    inner: Sequence[_Vessel]
    bytes_max: float
    level_max: float

    def held_bytes(self, level: float) -> float:
        return min(sum(vessel.held_bytes(level) for vessel in self.inner), self.bytes_max)

    def give(self, amount_bytes: float, shares: dict[ids.DeviceId, float]) -> None:
        low, high = 0.0, self.level_max
        for _ in range(_HALVINGS_COUNT):
            middle = (low + high) / 2
            if sum(vessel.held_bytes(middle) for vessel in self.inner) < amount_bytes:
                low = middle
            else:
                high = middle
        for vessel in self.inner:
            vessel.give(vessel.held_bytes(high), shares)


def shares(
    devices: Iterable[cluster.Device],
    groups: Iterable[cluster.Group],
    coding: geometry.StripeGeometry,
) -> Mapping[ids.DeviceId, float]:
    """Bytes of shards that each usable device should hold, together what usable devices do hold.

    Args:
        devices: Each once; shards on those that are not usable are left out.
        groups: Of one coding.
    """
    usable = {each.device_id: each for each in devices if each.usable}
    every_bytes = 0
    held: dict[ids.DeviceId, int] = dict.fromkeys(usable, 0)
    for group in groups:
        every_bytes += group.shard_bytes
        for member in group.members:
            if member in held:
                held[member] += group.shard_bytes
    limits = protection.Tree(usable.values()).best_limits(coding.shards_count, coding)
    if limits is None:
        return {device_id: float(amount) for device_id, amount in held.items()}
    level_max = 1.0
    zones: dict[str, dict[str, list[_Leaf]]] = {}
    for device in usable.values():
        others_bytes = max(0, device.used_bytes - held[device.device_id])
        level_max = max(level_max, (others_bytes + every_bytes) / device.capacity_bytes)
        leaf = _Leaf(device, others_bytes, every_bytes)
        zones.setdefault(device.zone, {}).setdefault(device.host, []).append(leaf)
    root = _Branch(
        [
            _Branch(
                [
                    _Branch(leaves, limits.per_host * every_bytes, level_max)
                    for _, leaves in sorted(hosts.items())
                ],
                limits.per_zone * every_bytes,
                level_max,
            )
            for _, hosts in sorted(zones.items())
        ],
        float("inf"),
        level_max,
    )
    found: dict[ids.DeviceId, float] = {}
    root.give(float(sum(held.values())), found)
    return found
