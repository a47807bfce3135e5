"""Zones that a test of a device writes to: taken, and given back.

    line                                      after a crash there
    commit: zone taken (role TEST)            given back by the next process that tests
    writes, reads                             the same
    reset                                     the same
    commit: record deleted                    the zone is free

One test at a time: whatever has the role when none is under way is left over.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

from couchestor_daemon.formats import media_records, zone_header
from couchestor_daemon.ports import device as device_port
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.ports import media as media_port
from couchestor_daemon.services import commit_log, zone_allocation
from couchestor_domain import errors, ids

Submit = Callable[[commit_log.Operation], Awaitable[object]]

_ROLE = int(zone_header.ZoneRole.TEST)


class TrialZones:
    """What tests change in the index: one object in the node, in the process that tests.

    Args:
        reserve_zones_count: Zones of each device that are not for tests.
    """

    def __init__(
        self,
        *,
        index: index_port.IndexStore,
        media: media_port.Media,
        submit: Submit,
        reserve_zones_count: int,
    ) -> None:
        self._index = index
        self._media = media
        self._submit = submit
        self._reserve_zones_count = reserve_zones_count

    async def take(self, identity: device_port.DeviceIdentity) -> ids.ZoneAddress | None:
        """A free zone of a device, whether others are given its zones or not; None: it has none
        to spare, or retires.

        Raises:
            CouchestorError: the commit failed.
        """
        if identity.retiring:
            return None

        def apply(txn: index_port.IndexWriter, _: commit_log.Placement) -> ids.ZoneAddress:
            (zone,) = zone_allocation.allocate(
                txn,
                [identity],
                count=1,
                role=zone_header.ZoneRole.TEST,
                owner_id=0,
                keep_free_count=self._reserve_zones_count,
                leaves_moving_room=True,
            )
            return zone

        try:
            zone = await self._submit(commit_log.Operation(apply=apply, waits_for_room=False))
        except (errors.StoreFullError, errors.StoreReadOnlyError):
            return None
        assert isinstance(zone, ids.ZoneAddress), zone
        # Whoever had it may have left bytes there while the device was away.
        await self._media.reset(zone)
        return zone

    async def give_back(self) -> None:
        """Free every zone that has been taken, also by a process that died.

        Raises:
            CouchestorError: not all of it; call it again.
        """
        # What a cancelled test submitted may not have been committed yet; this waits behind it.
        await self._submit(commit_log.Operation(apply=lambda txn, _: None, uses_reserve=True))
        start, stop = media_records.table_range(media_records.ZONES)
        with self._index.read() as reader:
            keys = [
                key
                for key, value in reader.scan(start, stop)
                if media_records.zone_role_of(value) == _ROLE
            ]
        if not keys:
            return
        for key in keys:
            # One that is away keeps its bytes: whoever is given the zone next resets it first.
            with contextlib.suppress(errors.DeviceError):
                await self._media.reset(media_records.zone_of_key(key))

        def apply(txn: index_port.IndexWriter, _: commit_log.Placement) -> None:
            for key in keys:
                value = txn.get(key)
                if value is not None and media_records.zone_role_of(value) == _ROLE:
                    txn.delete(key)

        await self._submit(commit_log.Operation(apply=apply, uses_reserve=True))
