"""Groups that lost members for good while no device is free to take their place.

A rebuild cannot help them, so they are emptied instead (``reclaim``): what lives in them goes to
new groups of the geometry that the healthy devices hold, which have all their parity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from couchestor_daemon.formats import media_records
from couchestor_daemon.ports import device as device_port
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.ports import media as media_port
from couchestor_daemon.services import departures, rebuild_survey, zone_allocation
from couchestor_domain import geometry, ids


class Stranded(NamedTuple):
    """What is known of one such group."""

    redundancy_count: int
    """Further members that it may lose before bytes are."""
    lost_device_ids: frozenset[ids.DeviceId]
    """Devices of its members that are given up."""


class StrandedGroups:
    """Tells which groups are stranded; asked again and again, so that it knows since when.

    Args:
        wanted: The geometry of new groups while all devices are in service.
        reserve_zones_count: Zones of each device that a rebuild leaves alone.
        delay_seconds: How long a device may be away before it is given up.
        now_seconds: Monotonic clock.
        now_ns: Wall clock.
    """

    def __init__(
        self,
        media: media_port.Media,
        *,
        wanted: geometry.StripeGeometry,
        reserve_zones_count: int,
        delay_seconds: float,
        now_seconds: Callable[[], float],
        now_ns: Callable[[], int],
    ) -> None:
        self._media = media
        self._wanted = wanted
        self._reserve_zones_count = reserve_zones_count
        self._absent = rebuild_survey.AbsentDevices(
            media, delay_seconds=delay_seconds, now_seconds=now_seconds, now_ns=now_ns
        )

    def among(
        self, reader: index_port.IndexReader, records: Iterable[media_records.GroupRecord]
    ) -> Mapping[int, Stranded]:
        """The stranded ones of some sealed groups, by group id.

        Left out are groups of which too few members are there to read them, and all of them while
        too few devices are healthy for a new group: moving can help neither.
        """
        healthy = self._media.healthy_devices()
        if geometry.shrink_to_healthy(self._wanted, len(healthy)) is None:
            return {}
        roomy: list[device_port.DeviceIdentity] | None = None
        found: dict[int, Stranded] = {}
        for record in records:
            stranded = self._losses(record)
            if stranded is None or stranded.redundancy_count < 0:
                continue
            if roomy is None:  # The zones of every device are looked through at most once.
                roomy = [each for each in healthy if self._has_room(reader, each)]
            if not departures.has_spare(self._media, record, roomy):
                found[record.group_id] = stranded
        return found

    def _losses(self, record: media_records.GroupRecord) -> Stranded | None:
        given_up: set[ids.DeviceId] = set()
        away_count = 0
        for zone in media_records.zone_addresses(record.members):
            if self._absent.since_ns(zone.device_id) is None:
                continue
            away_count += 1
            if self._absent.is_given_up(zone.device_id):
                given_up.add(zone.device_id)
        if not given_up:
            return None
        return Stranded(record.parity_shards - away_count, frozenset(given_up))

    def _has_room(
        self, reader: index_port.IndexReader, identity: device_port.DeviceIdentity
    ) -> bool:
        kept_count = zone_allocation.kept_free_count(identity, self._reserve_zones_count)
        return len(zone_allocation.free_zones(reader, identity)) > kept_count
