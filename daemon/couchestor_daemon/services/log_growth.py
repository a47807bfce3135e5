"""How much the log has grown since a checkpoint: what a replay after it would have to read."""

from __future__ import annotations

from collections.abc import Iterable

from couchestor_daemon.formats import media_records, zone_header
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.ports import media as media_port
from couchestor_daemon.services import departures
from couchestor_domain import errors, ids


def open_segments(
    reader: index_port.IndexReader, media: media_port.Media
) -> tuple[tuple[int, int], ...]:
    """Id of each open segment and the bytes of batches in it, as a checkpoint keeps them."""
    start, stop = media_records.table_range(media_records.SEGMENTS)
    records = [
        record
        for record in _records(reader, start, stop)
        if record.state == media_records.ZoneSetState.OPEN
    ]
    return tuple(_written_bytes(records, media).items())


def bytes_since(
    reader: index_port.IndexReader,
    media: media_port.Media,
    newest: media_records.CheckpointRecord | None,
) -> int:
    """Bytes of one log replica appended after ``newest``; without one, of the whole log."""
    return _growth_bytes(_after(reader, newest), newest, media)


def weakened(
    reader: index_port.IndexReader,
    media: media_port.Media,
    newest: media_records.CheckpointRecord | None,
) -> tuple[int, ...]:
    """Ids of segments that may hold batches after ``newest`` and have a replica on a device that
    is not in service. Reads the index alone."""
    return tuple(record.segment_id for record in _weakened(reader, media, newest))


def keeps_from_leaving(
    reader: index_port.IndexReader,
    media: media_port.Media,
    newest: media_records.CheckpointRecord | None,
) -> bool:
    """Whether a sealed segment that only a checkpoint after ``newest`` lets go of has a member on a
    device that retires or is lost: without one it never ceases to refer to the device. Reads the
    index alone."""
    return any(
        record.state == media_records.ZoneSetState.SEALED
        and (
            departures.has_retiring_member(media, record.members)
            or departures.has_lost_member(media, record.members)
        )
        for record in _after(reader, newest)
    )


def weakened_bytes(
    reader: index_port.IndexReader,
    media: media_port.Media,
    newest: media_records.CheckpointRecord | None,
) -> int:
    """Bytes of batches after ``newest`` that are on fewer devices than they were written to: all
    that is left of them until a checkpoint holds what they say."""
    return _growth_bytes(_weakened(reader, media, newest), newest, media)


def write_pointers(media: media_port.Media, device_id: ids.DeviceId) -> dict[ids.ZoneIndex, int]:
    """Bytes written to each zone of a device; none when it is not in service."""
    try:
        return {
            report.zone_index: report.write_pointer_bytes
            for report in media.device(device_id).report()
        }
    except errors.DeviceError:
        return {}


def _after(
    reader: index_port.IndexReader, newest: media_records.CheckpointRecord | None
) -> list[media_records.SegmentRecord]:
    """Segments that may hold batches after ``newest``."""
    _, stop = media_records.table_range(media_records.SEGMENTS)
    after = newest.sequence if newest else 0
    records = list(_records(reader, media_records.segment_key(after + 1), stop))
    for segment_id, _ in newest.open_segments if newest else ():
        value = reader.get(media_records.segment_key(segment_id))
        if value is not None:
            records.append(media_records.unpack(media_records.SegmentRecord, value))
    return records


def _weakened(
    reader: index_port.IndexReader,
    media: media_port.Media,
    newest: media_records.CheckpointRecord | None,
) -> list[media_records.SegmentRecord]:
    return [
        record
        for record in _after(reader, newest)
        if departures.has_lost_member(media, record.members)
    ]


def _growth_bytes(
    records: Iterable[media_records.SegmentRecord],
    newest: media_records.CheckpointRecord | None,
    media: media_port.Media,
) -> int:
    then = dict(newest.open_segments) if newest else {}
    return sum(
        max(0, written - then.get(segment_id, 0))
        for segment_id, written in _written_bytes(records, media).items()
    )


def _records(
    reader: index_port.IndexReader, start: bytes, stop: bytes
) -> Iterable[media_records.SegmentRecord]:
    for _, value in reader.scan(start, stop):
        yield media_records.unpack(media_records.SegmentRecord, value)


def _written_bytes(
    records: Iterable[media_records.SegmentRecord], media: media_port.Media
) -> dict[int, int]:
    reports: dict[str, dict[ids.ZoneIndex, int]] = {}
    written: dict[int, int] = {}
    for record in records:
        pointers = [0]
        for zone in media_records.zone_addresses(record.members):
            if zone.device_id not in reports:
                reports[zone.device_id] = write_pointers(media, zone.device_id)
            pointers.append(reports[zone.device_id].get(zone.zone_index, 0))
        written[record.segment_id] = max(0, max(pointers) - zone_header.ZONE_HEADER_BYTES)
    return written
