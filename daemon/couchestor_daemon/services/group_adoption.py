"""Stripe groups that an earlier incarnation of a writer left open: gone on with, or left.

The earlier incarnation is dead, so what it had not committed it never will: a group that is left
may be sealed at once.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

from couchestor_daemon import buffers
from couchestor_daemon.formats import media_records, zone_header
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.ports import media as media_port
from couchestor_daemon.services import group_zones, log_segment, open_group, repair_tools
from couchestor_daemon.services.catalogue import liveness
from couchestor_domain import errors, geometry, ids, units

logger = logging.getLogger(__name__)

FILLER_BYTES = 64 * units.KIB


class Found(NamedTuple):
    """Groups of a writer that nobody writes to yet."""

    usable: list[open_group.OpenGroup]
    """Take stripes; torn tails are skipped."""
    left: list[open_group.OpenGroup]
    """Take none any more."""


class GroupAdoption:
    """The groups of one writer as the index has them.

    Args:
        run_blocking: Runs device commands that are not in the media port on a pool.
    """

    def __init__(
        self,
        *,
        writer: str,
        media: media_port.Media,
        index: index_port.IndexStore,
        pool: buffers.BufferPool,
        run_blocking: repair_tools.RunBlocking,
    ) -> None:
        self._writer = writer
        self._media = media
        self._index = index
        self._pool = pool
        self._run_blocking = run_blocking

    async def find(self, wanted: geometry.StripeGeometry) -> Found:
        """Call it once in the life of a process, before it opens a group.

        Raises:
            OverloadedError: the pool lends no memory now.
        """
        healthy = {identity.device_id: identity for identity in self._media.healthy_devices()}
        found = Found([], [])
        for record in self._left_open():
            zones = media_records.zone_addresses(record.members)
            shape = geometry.StripeGeometry(record.data_shards, record.parity_shards)
            group = open_group.OpenGroup(record, shape, zones, zone_header.ZONE_HEADER_BYTES, 0)
            if shape != wanted or any(zone.device_id not in healthy for zone in zones):
                logger.info("group %d is not gone on with: the devices changed", record.group_id)
                found.left.append(group)
                continue
            group.capacity_bytes = min(
                healthy[zone.device_id].zone_capacity_bytes for zone in zones
            )
            is_usable = False
            try:
                is_usable = await self._make_ready(group)
            except errors.DeviceError as exc:
                # What stripes it has stay readable; they are counted in the index, not here.
                logger.warning("group %d is not gone on with: %s", record.group_id, exc)
            (found.usable if is_usable else found.left).append(group)
        return found

    def _left_open(self) -> list[media_records.GroupRecord]:
        with self._index.read() as reader:
            records = [
                media_records.unpack(media_records.GroupRecord, value)
                for _, value in reader.scan(*media_records.table_range(media_records.GROUPS))
            ]
        return [
            record
            for record in records
            if record.writer == self._writer and record.state == media_records.ZoneSetState.OPEN
        ]

    async def _make_ready(self, group: open_group.OpenGroup) -> bool:
        record, zones = group.record, group.zones
        if await group_zones.are_formatted(self._media, record, zones):
            group.offset_bytes = await self._level(zones)
            return True
        with self._index.read() as reader:
            live_bytes = liveness.group_bytes(reader, record.group_id)
        if live_bytes:
            logger.warning("group %d has lost zone headers", record.group_id)
            return False
        await group_zones.format_zones(self._media, self._pool, record, zones)
        return True

    async def _level(self, zones: tuple[ids.ZoneAddress, ...]) -> int:
        with self._pool.acquire(FILLER_BYTES) as buffer:
            filler = buffer.view
            filler[:] = bytes(len(filler))
            offset = await self._run_blocking(log_segment.level_zones, self._media, zones, filler)
        assert isinstance(offset, int), offset
        return offset
