"""What the scrub found damaged in the log, and what makes up for it.

No replica is written again. Full redundancy comes back like after the loss of a device:

    live payloads of the segment          move to stripes at once (``destage``)
    mutations, up to the damaged batch    a checkpoint holds them on m + 1 devices
    the segment                           is released, once it is sealed
"""

from __future__ import annotations

from couchestor_daemon.formats import media_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services.catalogue import liveness


def segments(reader: index_port.IndexReader) -> dict[int, int]:
    """Log segments with a damaged replica, and the last sequence concerned in each."""
    value = reader.get(media_records.SCRUB_KEY)
    if value is None:
        return {}
    return dict(media_records.unpack(media_records.ScrubRecord, value).damaged_segments)


def last_sequence(reader: index_port.IndexReader) -> int:
    """What a checkpoint must hold to make up for the damage in segments that are still there; 0
    when there is none."""
    return max(
        (
            sequence
            for segment_id, sequence in segments(reader).items()
            if reader.get(media_records.segment_key(segment_id)) is not None
        ),
        default=0,
    )


def checkpointed_sequence(reader: index_port.IndexReader) -> int:
    """Sequence of the newest complete checkpoint; 0 when there is none."""
    newest = _newest_checkpoint(reader)
    return newest.sequence if newest else 0


def is_needed(reader: index_port.IndexReader, segment_id: int) -> bool:
    """Whether anything would be missed if all replicas of a log segment were gone: live payloads,
    or batches that no checkpoint holds. One that is not needed may be reset at any time."""
    value = reader.get(media_records.segment_key(segment_id))
    if value is None:
        return False
    record = media_records.unpack(media_records.SegmentRecord, value)
    newest = _newest_checkpoint(reader)
    return (
        record.state != media_records.ZoneSetState.SEALED
        or liveness.segment_bytes(reader, segment_id) > 0
        or newest is None
        or segment_id > newest.sequence
        or segment_id in dict(newest.open_segments)
    )


def _newest_checkpoint(
    reader: index_port.IndexReader,
) -> media_records.CheckpointRecord | None:
    records = (
        media_records.unpack(media_records.CheckpointRecord, value)
        for _, value in reader.scan(*media_records.table_range(media_records.CHECKPOINTS))
    )
    complete = (r for r in records if r.state == media_records.CheckpointState.COMPLETE)
    return max(complete, key=lambda record: record.sequence, default=None)
