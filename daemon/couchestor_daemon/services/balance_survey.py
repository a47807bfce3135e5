"""How full devices are, and which groups have members that may move between them.

Looked up in slices, so that an index of many groups holds the event loop up only briefly.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

from couchestor_daemon.formats import media_records, zone_header
from couchestor_daemon.ports import device as device_port
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.ports import media as media_port
from couchestor_daemon.services import commit_log, departures, repair_queue, zone_allocation
from couchestor_daemon.services.catalogue import liveness
from couchestor_domain import balance, geometry, ids

GROUPS_PER_SLICE: Final = 128

Shares = dict[ids.DeviceId, balance.Share]


class Outlook(NamedTuple):
    """What one look found."""

    shares: Shares
    groups: list[balance.Group]
    """Those whose members may move, all of them on devices in service."""
    leaving: list[balance.Move]
    """For members on retiring devices that a device is free for; the most live bytes first."""
    zones_left: dict[ids.DeviceId, int]
    """Retiring device -> its zones that are not free yet."""


class BalanceSurvey:
    """Finds what may move.

    Args:
        wanted: The geometry of new groups while all devices are in service.
        reserve_zones_count: Zones of each device that nothing moves to.
        dead_percent: A group of which so much is dead is emptied into others instead (``reclaim``).
    """

    def __init__(
        self,
        *,
        index: index_port.IndexStore,
        media: media_port.Media,
        wanted: geometry.StripeGeometry,
        reserve_zones_count: int,
        dead_percent: int,
    ) -> None:
        self._index = index
        self._media = media
        self._wanted = wanted
        self._reserve_zones_count = reserve_zones_count
        self._dead_percent = dead_percent
        self._shares_at = -1
        self._shares: Shares = {}

    def has_spare(self, reader: index_port.IndexReader, record: media_records.GroupRecord) -> bool:
        """Whether the first member of a group that is on a retiring device can be copied to one
        that stays, so that the group need not be emptied."""
        group = self.movable(reader, record)
        if group is None:
            return False
        # A caller asks about one group after the other: the zones are looked through once for all.
        sequence = commit_log.applied_sequence(reader)
        if sequence != self._shares_at:
            self._shares, self._shares_at = {}, sequence
            for identity in self._media.healthy_devices():
                self._add_share(reader, self._shares, identity)
        for device_id in group.members:
            self._add_member_share(reader, self._shares, device_id)
        return self._leaving(self._shares, group) is not None

    def movable(
        self, reader: index_port.IndexReader, record: media_records.GroupRecord
    ) -> balance.Group | None:
        """A group as moves see it; None: its members stay where they are.

        That is one that is open, mostly dead or too narrow, and so is emptied by others, or one
        that waits for a repair: what is said of a shard may be true of its copy.
        """
        if record.state != media_records.ZoneSetState.SEALED:
            return None
        live_bytes = liveness.group_bytes(reader, record.group_id)
        identities = [
            self._media.device(device_id).identity
            for device_id in map(ids.DeviceId, dict(record.members))
            if not departures.is_lost(self._media, device_id)
        ]
        if not live_bytes or not identities:
            return None
        capacity_bytes = min(identity.zone_capacity_bytes for identity in identities)
        room_bytes = record.data_shards * (capacity_bytes - zone_header.ZONE_HEADER_BYTES)
        dead_share = 1.0 - min(live_bytes / room_bytes, 1.0)
        if 100 * dead_share >= self._dead_percent:
            return None
        if departures.is_narrow(self._media, record, self._wanted):
            return None
        if any(repair_queue.of_group(reader, record.group_id)):
            return None
        members = tuple(ids.DeviceId(device_id) for device_id, _ in record.members)
        return balance.Group(record.group_id, members, live_bytes, capacity_bytes)

    async def look(self, *, leave_out: Collection[int]) -> Outlook:
        """Look through all groups and zones.

        Args:
            leave_out: Groups that are not moved now.
        """
        shares: Shares = {}
        for device_id in self._devices_in_service():
            with self._index.read() as reader:
                self._add_share(reader, shares, self._media.device(device_id).identity)
            await asyncio.sleep(0)
        groups: list[balance.Group] = []
        leaving: list[tuple[int, balance.Move]] = []
        dead: Counter[ids.DeviceId] = Counter()
        start, stop = media_records.table_range(media_records.GROUPS)
        while True:
            looked_at = 0
            with self._index.read() as reader:
                for key, value in reader.scan(start, stop):
                    looked_at += 1
                    start = key + b"\0"
                    record = media_records.unpack(media_records.GroupRecord, value)
                    if self._is_dead(reader, record):
                        dead.update(ids.DeviceId(device_id) for device_id, _ in record.members)
                    group = self.movable(reader, record)
                    if group is not None and group.group_id not in leave_out:
                        move = self._leaving(shares, group)
                        if move is not None:
                            leaving.append((-group.live_bytes, move))
                        # A group that lacks a member is a matter for the rebuild first.
                        if all(device_id in shares for device_id in group.members):
                            groups.append(group)
                    if looked_at == GROUPS_PER_SLICE:
                        break
            if looked_at < GROUPS_PER_SLICE:
                break
            await asyncio.sleep(0)
        zones_left = {
            share.device_id: share.used_count for share in shares.values() if share.retiring
        }
        for device_id, count in dead.items():
            # On their way: they are reset when no reader can look at them any more.
            if device_id in shares and not shares[device_id].retiring:
                used_count = max(0, shares[device_id].used_count - count)
                shares[device_id] = shares[device_id]._replace(used_count=used_count)
        leaving.sort()
        return Outlook(shares, groups, [move for _, move in leaving], zones_left)

    def _devices_in_service(self) -> list[ids.DeviceId]:
        """Those that may be given zones, and those that hold some."""
        found = {identity.device_id for identity in self._media.healthy_devices()}
        start, stop = media_records.table_range(media_records.ZONES)
        with self._index.read() as reader:
            while (first := next(iter(reader.scan(start, stop)), None)) is not None:
                device_id = media_records.zone_of_key(first[0]).device_id
                found.add(device_id)
                _, start = media_records.device_zones_range(device_id)
        return sorted(each for each in found if not departures.is_lost(self._media, each))

    @staticmethod
    def _is_dead(reader: index_port.IndexReader, record: media_records.GroupRecord) -> bool:
        return record.state == media_records.ZoneSetState.SEALED and not liveness.group_bytes(
            reader, record.group_id
        )

    @staticmethod
    def _leaving(
        shares: Mapping[ids.DeviceId, balance.Share], group: balance.Group
    ) -> balance.Move | None:
        retiring = {device_id for device_id, share in shares.items() if share.retiring}
        index = balance.leaving_index(group.members, retiring)
        if index < 0:
            return None
        target = balance.spare(shares, group, group.members[index])
        return None if target is None else balance.Move(group.group_id, index, target)

    def _add_member_share(
        self, reader: index_port.IndexReader, shares: Shares, device_id: ids.DeviceId
    ) -> None:
        if device_id not in shares and not departures.is_lost(self._media, device_id):
            self._add_share(reader, shares, self._media.device(device_id).identity)

    def _add_share(
        self,
        reader: index_port.IndexReader,
        shares: Shares,
        identity: device_port.DeviceIdentity,
    ) -> None:
        roles = Counter(
            media_records.zone_role_of(value)
            for _, value in reader.scan(*media_records.device_zones_range(identity.device_id))
        )
        free_count = identity.zone_count - roles.total()
        kept_count = zone_allocation.kept_free_count(identity, self._reserve_zones_count)
        shares[identity.device_id] = balance.Share(
            identity.device_id,
            identity.failure_domain,
            identity.zone_count,
            # Those of former members are reset as soon as no reader can look at them any more.
            roles.total() - (0 if identity.retiring else roles[zone_header.ZoneRole.LEFT]),
            max(0, free_count - kept_count),
            identity.zone_capacity_bytes,
            identity.retiring,
        )
