"""Whether zones are on their way back on a store that has none to give.

Background work gives zones back that nothing refers to, moves payloads out of the log and live
bytes out of half-dead groups (docs/adr/0006). As long as there is any of that to be done, a write
that finds no zone is early rather than refused.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from couchestor_daemon.formats import media_records, zone_header
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import reclaim
from couchestor_daemon.services.catalogue import liveness

_SEALED: Final = int(media_records.ZoneSetState.SEALED)


class RoomOutlook(NamedTuple):
    """What the index says of space; two that are equal have nothing happened in between."""

    used_zones_count: int
    live_bytes: int
    """Of sealed groups and segments."""
    is_coming: bool
    """Whether background work can give back any zone."""


def look(reader: index_port.IndexReader, *, zone_capacity_bytes: int) -> RoomOutlook:
    """Reads every group, segment and zone in use: milliseconds for each thousand of them.

    Args:
        zone_capacity_bytes: Of the largest zones there are.
    """
    zones_count = live_bytes = 0
    is_coming = False
    start, stop = media_records.table_range(media_records.ZONES)
    for _, value in reader.scan(start, stop):
        zones_count += 1
        is_coming |= media_records.zone_role_of(value) == zone_header.ZoneRole.LEFT
    start, stop = media_records.table_range(media_records.GROUPS)
    for _, value in reader.scan(start, stop):
        group = media_records.unpack(media_records.GroupRecord, value)
        if group.state == _SEALED:
            alive = liveness.group_bytes(reader, group.group_id)
            live_bytes += alive
            room = group.data_shards * (zone_capacity_bytes - zone_header.ZONE_HEADER_BYTES)
            is_coming |= alive <= (1 - reclaim.DEAD_SHARE_MIN) * room
    start, stop = media_records.table_range(media_records.SEGMENTS)
    for _, value in reader.scan(start, stop):
        segment = media_records.unpack(media_records.SegmentRecord, value)
        if segment.state == _SEALED:
            live_bytes += liveness.segment_bytes(reader, segment.segment_id)
            is_coming = True
    return RoomOutlook(zones_count, live_bytes, is_coming)
