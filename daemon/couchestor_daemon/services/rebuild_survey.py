"""Which groups lack members: by the devices that are in service and by the repair queue.

Looked up in slices, so that an index of many groups holds the event loop up only briefly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from couchestor_daemon.formats import media_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.ports import media as media_port
from couchestor_daemon.services import rebuild_order, repair_queue, shard_check
from couchestor_daemon.services.catalogue import liveness
from couchestor_domain import ids

GROUPS_PER_SLICE: Final = 128


class AbsentDevices:
    """Devices that this process found missing, and since when.

    Args:
        delay_seconds: How long one may be away before its members are replaced.
        now_seconds: Monotonic clock.
    """

    def __init__(
        self,
        media: media_port.Media,
        *,
        delay_seconds: float,
        now_seconds: Callable[[], float],
        now_ns: Callable[[], int],
    ) -> None:
        self._media = media
        self._delay_seconds = delay_seconds
        self._now_seconds = now_seconds
        self._now_ns = now_ns
        self._since: dict[ids.DeviceId, tuple[float, int]] = {}

    def since_ns(self, device_id: ids.DeviceId) -> int | None:
        """When a device was first seen missing, on the wall clock; None: it is in service."""
        if shard_check.in_service(self._media, device_id):
            self._since.pop(device_id, None)
            return None
        found = self._since.setdefault(device_id, (self._now_seconds(), self._now_ns()))
        return found[1]

    def is_given_up(self, device_id: ids.DeviceId) -> bool:
        """Whether a missing device has been away for long enough."""
        found = self._since.get(device_id)
        return found is not None and self._now_seconds() >= found[0] + self._delay_seconds

    def are_known(self) -> bool:
        """Whether any device is missing: groups that are sealed later may lack it."""
        return bool(self._since)

    def next_change_seconds(self) -> float | None:
        """Monotonic time at which the next missing device is given up."""
        coming = [
            seconds + self._delay_seconds
            for device_id, (seconds, _) in self._since.items()
            if not self.is_given_up(device_id)
        ]
        return min(coming, default=None)


class RebuildSurvey:
    """Finds what needs a rebuild."""

    def __init__(
        self,
        *,
        index: index_port.IndexStore,
        absent: AbsentDevices,
    ) -> None:
        self._index = index
        self._absent = absent

    def need_of(
        self, reader: index_port.IndexReader, record: media_records.GroupRecord
    ) -> rebuild_order.Need | None:
        """What a group needs now; None when it is open, dead, or has all its members."""
        if record.state != media_records.ZoneSetState.SEALED:
            for zone in media_records.zone_addresses(record.members):
                # The delay of a device runs from now on, not from when the group is sealed.
                self._absent.since_ns(zone.device_id)
            return None
        missing: list[int] = []
        waiting: list[int] = []
        suspects: set[int] = set()
        oldest_ns: list[int] = []
        for index, zone in enumerate(media_records.zone_addresses(record.members)):
            since_ns = self._absent.since_ns(zone.device_id)
            if since_ns is None:
                continue
            given_up = self._absent.is_given_up(zone.device_id)
            (missing if given_up else waiting).append(index)
            oldest_ns.append(since_ns)
        for found in repair_queue.of_group(reader, record.group_id):
            if found.shard_index not in waiting:
                suspects.add(found.shard_index)
                oldest_ns.append(found.found_ns)
        if not missing and not suspects:
            return None
        if not liveness.group_bytes(reader, record.group_id):
            # It is released before long: what is queued is taken off, and nothing is rebuilt.
            suspects -= set(missing)
            missing = []
            if not suspects:
                return None
        return rebuild_order.need(
            group_id=record.group_id,
            parity_shards=record.parity_shards,
            since_ns=min(oldest_ns),
            missing=missing,
            waiting=waiting,
            suspects=suspects,
        )

    async def queued(self) -> tuple[list[rebuild_order.Need], list[int]]:
        """Needs of the groups in the repair queue, and groups there that do not exist."""
        needs: list[rebuild_order.Need] = []
        gone: list[int] = []
        after = -1
        while True:
            looked_at = 0
            with self._index.read() as reader:
                for group_id in repair_queue.groups(reader, after=after):
                    looked_at, after = looked_at + 1, group_id
                    value = reader.get(media_records.group_key(group_id))
                    if value is None:
                        gone.append(group_id)
                        continue
                    found = self.need_of(
                        reader, media_records.unpack(media_records.GroupRecord, value)
                    )
                    if found is not None:
                        needs.append(found)
                    if looked_at == GROUPS_PER_SLICE:
                        break
            if looked_at < GROUPS_PER_SLICE:
                return needs, gone
            needs = rebuild_order.most_urgent(needs)
            await asyncio.sleep(0)

    async def of_all_groups(self) -> tuple[list[rebuild_order.Need], int]:
        """The most urgent needs of all groups, and how many members are to be replaced in all."""
        start, stop = media_records.table_range(media_records.GROUPS)
        needs: list[rebuild_order.Need] = []
        members_count = 0
        while True:
            looked_at = 0
            with self._index.read() as reader:
                for key, value in reader.scan(start, stop):
                    looked_at += 1
                    start = key + b"\0"
                    found = self.need_of(
                        reader, media_records.unpack(media_records.GroupRecord, value)
                    )
                    if found is not None:
                        needs.append(found)
                        members_count += len(found.missing) + len(found.suspects)
                    if looked_at == GROUPS_PER_SLICE:
                        break
            if looked_at < GROUPS_PER_SLICE:
                return rebuild_order.most_urgent(needs), members_count
            needs = rebuild_order.most_urgent(needs)
            await asyncio.sleep(0)
