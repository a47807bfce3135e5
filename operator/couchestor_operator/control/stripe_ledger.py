"""Which zones there are, who has them, and which are left to give away in one pass."""

from __future__ import annotations

import collections
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from couchestor_domain import ids
from couchestor_domain.node_api import assignment, node_record
from couchestor_domain.stripe_placement import cluster
from couchestor_operator.control import storage_node, stripe_group, stripe_judgement

TAKES_SHARDS: Final = (node_record.NodeHealth.READY, node_record.NodeHealth.DEGRADED)
_KEEPS_SHARDS: Final = (
    node_record.DeviceHealth.HEALTHY,
    node_record.DeviceHealth.SUSPECT,
    node_record.DeviceHealth.RETIRING,
)


class Zone(NamedTuple):
    """A place for a shard."""

    device_id: ids.DeviceId
    offset_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What one pass is decided on."""

    nodes: Mapping[str, storage_node.StorageNode]
    """As Kubernetes has them."""
    seen: stripe_judgement.Witnesses
    groups: dict[str, stripe_group.StripeGroup]
    """Every ECStripe of a writer, as the pass has left it."""
    refused: Collection[Zone] = frozenset()
    """Zones that nodes would not give although they said that they were free."""
    full: Collection[ids.DeviceId] = frozenset()
    """Devices that had no room a while ago although they said so."""


@dataclass(slots=True, kw_only=True)
class _Home:
    """A device that the ledger knows."""

    node: storage_node.StorageNode
    record: node_record.DeviceRecord
    usable: bool
    zones: list[int]
    """Offsets of those that may be given away, the last first."""
    used_bytes: int


@dataclass(slots=True)
class Ledger:
    """Who has which zone, and which are left to give away in this pass."""

    scene: Scene
    _homes: dict[ids.DeviceId, _Home] = field(default_factory=dict)
    _claims: dict[Zone, list[str]] = field(default_factory=dict)
    _holders: dict[Zone, str] = field(default_factory=dict)
    _kept: set[tuple[str, ids.DeviceId]] = field(default_factory=set)
    """Nodes and the devices on which they can keep what is there."""

    def __post_init__(self) -> None:
        for group in self.scene.groups.values():
            for place in group.places:
                zone = Zone(place.device_id, place.offset_bytes)
                self._claims.setdefault(zone, []).append(group.name)
        for name in sorted(self.scene.seen.accounts):
            self._enter(name, self.scene.seen.accounts[name])

    def _enter(self, name: str, account: storage_node.Account) -> None:
        for key in account.shards:
            self._holders[Zone(key.device_id, key.offset_bytes)] = key.stripe
        node = self.scene.nodes.get(name)
        if node is None:
            return
        takes = (
            node.selected
            and name not in self.scene.seen.lost
            and account.record.health in TAKES_SHARDS
        )
        for record in account.record.devices:
            if record.health in _KEEPS_SHARDS:
                self._kept.add((name, record.device_id))
            if record.device_id in self._homes:
                # Two nodes say that they have it: nothing moves for that, and nothing goes there.
                self._homes[record.device_id].usable = False
                continue
            offered = [index * record.zone_bytes for index in record.offered_zones]
            claimed = [
                offset for offset in offered if Zone(record.device_id, offset) in self._claims
            ]
            free = [
                offset
                for offset in reversed(offered)
                if Zone(record.device_id, offset) not in self._claims
                and Zone(record.device_id, offset) not in self.scene.refused
            ]
            self._homes[record.device_id] = _Home(
                node=node,
                record=record,
                usable=takes
                and record.health is node_record.DeviceHealth.HEALTHY
                and record.device_id not in self.scene.full,
                zones=free,
                used_bytes=record.capacity_bytes
                - record.free_bytes
                + len(claimed) * record.zone_bytes,
            )

    def has_device(self, node: str, device_id: ids.DeviceId) -> bool:
        """Whether a node that answers has the device, and it has not failed."""
        return (node, device_id) in self._kept

    def is_others(self, group: stripe_group.StripeGroup, zone: Zone) -> bool:
        """Whether a zone that a group claims, and that its node does not have for it, is another
        group's: who holds it, or else whose name is first."""
        holder = self._holders.get(zone)
        if holder is not None:
            return holder != group.name
        return min(self._claims.get(zone, [group.name])) < group.name

    def devices(self, *, shard_bytes: int, exact: bool) -> list[cluster.Device]:
        """Every device as placement has it; usable are those with a zone of that size.

        Args:
            exact: Whether the zone must not be larger.
        """
        return [
            cluster.Device(
                device_id=device_id,
                host=home.node.name,
                zone=home.node.zone,
                capacity_bytes=home.record.capacity_bytes,
                used_bytes=home.used_bytes,
                usable=home.usable
                and bool(home.zones)
                and (
                    home.record.zone_bytes == shard_bytes
                    if exact
                    else home.record.zone_bytes >= shard_bytes
                ),
            )
            for device_id, home in self._homes.items()
        ]

    def zone_bytes(self, *, bytes_max: int) -> int | None:
        """The size of zones that most usable devices have; None: there are no usable devices.

        Args:
            bytes_max: Devices with larger ones are not usable.
        """
        sizes = collections.Counter(
            home.record.zone_bytes
            for home in self._homes.values()
            if home.usable and home.zones and home.record.zone_bytes <= bytes_max
        )
        return max(sizes, key=lambda size: (sizes[size], size)) if sizes else None

    def take(self, device_id: ids.DeviceId, *, shard_bytes: int) -> assignment.ShardPlace:
        """Give a zone of a device away."""
        home = self._homes[device_id]
        home.used_bytes += home.record.zone_bytes
        return assignment.ShardPlace(
            node=home.node.name,
            device_id=device_id,
            offset_bytes=home.zones.pop(),
            size_bytes=shard_bytes,
        )
