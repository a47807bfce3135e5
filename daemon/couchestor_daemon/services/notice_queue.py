"""Notices on their way to targets: queued by the commit that makes the change, removed once taken.

A notice is an entry of the index, so it is durable exactly when the change is: both are mutations
of one batch of the log. What is in the queue has not been taken by its target for certain.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator
from typing import Final, NamedTuple, TypeVar

from couchestor_daemon.formats import index_keys, media_records, notice_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import commit_log
from couchestor_daemon.services.catalogue import buckets, history, versions
from couchestor_domain import notices, objects

WAITING_MAX: Final = 100_000
"""Notices kept for one target unless told otherwise, some 300 bytes of the index each."""

T = TypeVar("T")
_Apply = Callable[[index_port.IndexWriter, commit_log.Placement], T]


class Waiting(NamedTuple):
    """A notice in the queue."""

    key: bytes
    notice: notices.Notice


class NoticeQueue:
    """What commits queue. One instance per process.

    Args:
        now_ns: Wall clock, since the Unix epoch.
        waiting_max: Notices kept for one target. Beyond, changes go on being made, and notices of
            them are not kept but counted: a target that is away for long must not stop writes.
    """

    def __init__(self, now_ns: Callable[[], int], *, waiting_max: int = WAITING_MAX) -> None:
        self._now_ns = now_ns
        self._waiting_max = waiting_max

    def of_object(
        self,
        apply: _Apply[objects.ObjectRecord],
        announcement: notices.Announcement | None,
        *,
        tells_size: bool = True,
        unless: Callable[[index_port.IndexReader], bool] | None = None,
    ) -> _Apply[objects.ObjectRecord]:
        """A change that leaves an object, and tells of it.

        Args:
            apply: The change; it gives the object that is left.
            unless: Says, before it is made, that the change will be none.
        """
        if announcement is None:
            return apply

        def announcing(
            txn: index_port.IndexWriter, place: commit_log.Placement
        ) -> objects.ObjectRecord:
            is_none = unless is not None and unless(txn)
            record = apply(txn, place)
            if not is_none:
                for event in announcement.interests:
                    self._add(
                        txn,
                        announcement,
                        event,
                        bucket=record.bucket,
                        key=record.key,
                        size_bytes=record.size_bytes if tells_size else None,
                        etag=record.etag,
                        version_id=record.version_id if record.is_named else "",
                    )
            return record

        return announcing

    def deleting(
        self,
        txn: index_port.IndexWriter,
        bucket: str,
        doomed: objects.Doomed,
        delete: Callable[[], objects.Deletion],
    ) -> objects.Deletion:
        """Delete, and tell of it if there was something to delete, or a marker was made."""
        announcement = doomed.announcement
        if announcement is None:
            return delete()
        existed = _exists(txn, bucket, doomed)
        deletion = delete()
        is_marker_made = deletion.is_delete_marker and doomed.version_id is None
        event = notices.MARKED if is_marker_made else notices.REMOVED
        if existed or is_marker_made:
            self._add(
                txn,
                announcement,
                event,
                bucket=bucket,
                key=doomed.key,
                version_id=deletion.version_id,
            )
        return deletion

    def _add(
        self,
        txn: index_port.IndexWriter,
        announcement: notices.Announcement,
        event: str,
        *,
        bucket: str,
        key: str,
        size_bytes: int | None = None,
        etag: str = "",
        version_id: str = "",
    ) -> None:
        for target, configuration_id in announcement.interests.get(event, ()):
            totals_key = notice_records.totals_key(target)
            totals = notice_records.unpack_totals(txn.get(totals_key))
            if totals.waiting_count >= self._waiting_max:
                totals = totals._replace(lost_count=totals.lost_count + 1)
                txn.put(totals_key, notice_records.pack_totals(totals))
                continue
            notice = notices.Notice(
                sequence=_draw(txn),
                target=target,
                configuration_id=configuration_id,
                event=event,
                time_ns=self._now_ns(),
                cause=announcement.cause,
                bucket=bucket,
                key=key,
                size_bytes=size_bytes,
                etag=etag,
                version_id=version_id,
            )
            txn.put(notice_records.key(target, notice.sequence), notice_records.pack(notice))
            totals = totals._replace(waiting_count=totals.waiting_count + 1)
            txn.put(totals_key, notice_records.pack_totals(totals))


def totals(reader: index_port.IndexReader, target: str) -> notice_records.Totals:
    """How many notices wait for a target, and how many were lost."""
    return notice_records.unpack_totals(reader.get(notice_records.totals_key(target)))


def waiting(
    reader: index_port.IndexReader, target: str, *, after: int = 0, limit: int
) -> list[Waiting]:
    """Notices of a target, oldest first.

    Args:
        after: Sequence behind which to begin.

    Raises:
        IndexCorruptError
    """
    start = notice_records.key(target, after + 1)
    _, stop = notice_records.target_range(target)
    return [
        Waiting(key, notice_records.unpack(key, value))
        for key, value in itertools.islice(reader.scan(start, stop), limit)
    ]


def newest(reader: index_port.IndexReader, target: str) -> list[Waiting]:
    """The last notice of a target, if any waits. Raises IndexCorruptError."""
    found = reader.scan(*notice_records.target_range(target), reverse=True)
    return [
        Waiting(key, notice_records.unpack(key, value)) for key, value in itertools.islice(found, 1)
    ]


def remove(txn: index_port.IndexWriter, target: str, keys: Collection[bytes]) -> None:
    """Forget notices that their target has taken; what is gone already is no error."""
    gone_count = sum(txn.delete(key) for key in keys)
    if not gone_count:
        return
    found = totals(txn, target)
    left = found._replace(waiting_count=max(0, found.waiting_count - gone_count))
    if any(left):
        txn.put(notice_records.totals_key(target), notice_records.pack_totals(left))
    else:
        txn.delete(notice_records.totals_key(target))


def miscounted(reader: index_port.IndexReader) -> Iterator[str]:
    """What is wrong with the queue, a sentence each. Looks at every notice.

    Raises:
        IndexCorruptError: a notice cannot be read.
    """
    counts: dict[str, int] = {}
    last = 0
    for key, value in reader.scan(*media_records.table_range(index_keys.NOTICES)):
        notice = notice_records.unpack(key, value)
        counts[notice.target] = counts.get(notice.target, 0) + 1
        last = max(last, notice.sequence)
    drawn = _last_drawn(reader)
    if drawn < last:
        yield f"notice {last} waits although {drawn} was the last one"
    for key, value in reader.scan(*media_records.table_range(index_keys.NOTICE_TOTALS)):
        target = notice_records.target_of_totals(key)
        told = notice_records.unpack_totals(value).waiting_count
        found = counts.pop(target, 0)
        if told != found:
            yield f"{found} notices wait for {target}, and {told} are counted"
    for target, found in counts.items():
        yield f"{found} notices wait for {target}, and none is counted"


def _exists(reader: index_port.IndexReader, bucket: str, doomed: objects.Doomed) -> bool:
    bucket_id = buckets.find(reader, bucket).bucket_id
    key = doomed.key.encode()
    current = versions.find(reader, bucket_id, key)
    if doomed.version_id is None or (
        current is not None and current.version_id == doomed.version_id
    ):
        return current is not None
    return bool(key) and history.find(reader, bucket_id, key, doomed.version_id) is not None


def _last_drawn(reader: index_port.IndexReader) -> int:
    value = reader.get(notice_records.SEQUENCE_KEY)
    return 0 if value is None else int(media_records.U64.unpack(value)[0])


def _draw(txn: index_port.IndexWriter) -> int:
    sequence = _last_drawn(txn) + 1
    txn.put(notice_records.SEQUENCE_KEY, media_records.U64.pack(sequence))
    return sequence
