"""Names of the writers of a node, and what those leave behind that no process will be any more.

A segment or group belongs to a slot, not to a process: who starts in the slot goes on in it. A slot
above the number of workers has no process, and recovery has none once the node serves.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from couchestor_daemon.formats import media_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import commit_log, group_sealer

logger = logging.getLogger(__name__)

MAINTENANCE: Final = "maintenance"
RECOVERY: Final = "recovery"
_WORKER_PREFIX: Final = "worker-"

_OPEN: Final = int(media_records.ZoneSetState.OPEN)
_SEALED: Final = int(media_records.ZoneSetState.SEALED)


def worker(slot: int) -> str:
    """Writer name of a gateway worker."""
    return f"{_WORKER_PREFIX}{slot}"


def is_vacant(writer: str, *, workers_count: int) -> bool:
    """Whether certainly no process of a serving node writes under this name.

    An unknown name is not vacant: it may be one of a later version's.
    """
    if writer == RECOVERY:
        return True
    number = writer.removeprefix(_WORKER_PREFIX)
    return number != writer and number.isdecimal() and int(number) >= workers_count


async def seal_vacant(
    index: index_port.IndexStore,
    submit: Callable[[commit_log.Operation], Awaitable[object]],
    *,
    workers_count: int,
) -> int:
    """Seal the segments and groups that vacant slots left open; how many there were.

    Call while the node serves: before, the recovery may still write. Nobody appends to them, so
    what they hold was appended before this commit, as ADR 0003 asks of a sealed segment, and what
    was not committed by then never will be, as ADR 0006 asks of a sealed group.

    Raises:
        CouchestorError: it could not be committed; they wait for the next start.
    """
    with index.read() as reader:
        segments = [
            segment.segment_id
            for _, value in reader.scan(*media_records.table_range(media_records.SEGMENTS))
            if (segment := media_records.unpack(media_records.SegmentRecord, value)).state == _OPEN
            and is_vacant(segment.writer, workers_count=workers_count)
        ]
        groups = [
            group.group_id
            for _, value in reader.scan(*media_records.table_range(media_records.GROUPS))
            if (group := media_records.unpack(media_records.GroupRecord, value)).state == _OPEN
            and is_vacant(group.writer, workers_count=workers_count)
        ]
    if not segments and not groups:
        return 0

    def apply(txn: index_port.IndexWriter, _: commit_log.Placement) -> None:
        for segment_id in segments:
            key = media_records.segment_key(segment_id)
            value = txn.get(key)
            assert value is not None, segment_id
            record = media_records.unpack(media_records.SegmentRecord, value)
            txn.put(key, media_records.pack(msgspec.structs.replace(record, state=_SEALED)))
        for group_id in groups:
            group_sealer.seal(txn, group_id)

    await submit(commit_log.Operation(apply=apply, uses_reserve=True))
    logger.info("sealed %d segments and %d groups of former writers", len(segments), len(groups))
    return len(segments) + len(groups)
