"""Group commit: the one total order of mutations, replicated, then visible.

What is durable and visible after a crash at each line of a commit:

    line                                   log                     live index
    take the node's write lock             old                     old
    draw a sequence (never drawn again)    old                     old
    apply the operations to the index txn  old                     old (uncommitted)
    append the batch to every replica      new on some or all      old
    commit the index                       new on all              new
    release the lock, answer 200

A batch names the one it was committed after. A process that dies between append and commit leaves
a batch nobody answered for; the next commit names the same predecessor under a higher sequence, so
replay takes the higher one and the orphan is void (docs/adr/0002).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from couchestor_daemon import buffers
from couchestor_daemon.formats import batch, media_records, zone_header
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.ports import media as media_port
from couchestor_daemon.services import log_segment, own_segments, recording_writer
from couchestor_domain import errors, event_publisher, events, ids, units

MUTATIONS_ROOM_BYTES: Final = units.KIB
"""Room assumed for one operation's mutations when choosing the segment; a batch that turns out to
need more than the segment has rolls over to a new one."""
APPEND_ATTEMPTS_MAX: Final = 8


class Placement(NamedTuple):
    """Where the payload of one operation lies in the log."""

    segment_id: int
    offset_bytes: int
    length_bytes: int


Apply = Callable[[index_port.IndexWriter, Placement], object]
Gather = Callable[[], Sequence["Operation"]]


@dataclass(slots=True, eq=False)
class Operation:
    """One atomic change. ``apply`` checks everything before its first write, then writes."""

    apply: Apply
    payload: bytes | memoryview = b""
    uses_reserve: bool = False
    """Whether it goes through on a full store: what frees space or keeps the node going does."""
    waits_for_room: bool = True
    """Whether it is tried again for a while when no zone is free but some are on their way back."""
    lacks_room: bool = False
    """Set with an error that says that no zone is free for it."""
    on_end: Callable[[], None] | None = None
    """Called once by the group commit, on its event loop, when the operation has ended: committed,
    refused, failed, or not even queued; also when nobody awaits it any more."""
    result: object = None
    error: BaseException | None = None


class _GatheredOnce:
    """The operations of one commit, asked for at the first use and the same ever after."""

    def __init__(self, gather: Gather) -> None:
        self._gather = gather
        self._operations: Sequence[Operation] | None = None

    def __call__(self) -> Sequence[Operation]:
        if self._operations is None:
            self._operations = self._gather()
        return self._operations


class _RollOver(Exception):
    """The batch does not fit in the open segment."""


class _Spoiled(Exception):
    """An operation failed after it had written: the whole transaction must be redone without it."""


def applied_sequence(reader: index_port.IndexReader) -> ids.Sequence:
    """Sequence of the last batch in the index; 0 for an empty one."""
    value = reader.get(media_records.APPLIED_KEY)
    return ids.Sequence(0 if value is None else media_records.U64.unpack(value)[0])


class CommitLog:
    """One writer's end of the log. Not thread-safe: one commit thread owns it.

    Args:
        writer: Slot name; the open segment is found again under it after a restart.
        replicas_count: Devices each batch is written to (m + 1 unless configured).
        reserve_zones_count: Zones of each device kept free for operations that use the reserve.
    """

    def __init__(
        self,
        *,
        writer: str,
        index: index_port.IndexStore,
        media: media_port.Media,
        pool: buffers.BufferPool,
        replicas_count: int,
        reserve_zones_count: int = 0,
        publisher: event_publisher.EventPublisher,
        draw_seed: Callable[[], int] = lambda: secrets.randbits(64),
    ) -> None:
        self._index = index
        self._pool = pool
        self._publisher = publisher
        self._segments = own_segments.OwnSegments(
            writer=writer,
            media=media,
            pool=pool,
            replicas_count=replicas_count,
            reserve_zones_count=reserve_zones_count,
            publisher=publisher,
            draw_seed=draw_seed,
        )

    def commit(
        self, operations: Sequence[Operation], *, avoid: Collection[ids.ZoneAddress] = ()
    ) -> None:
        """Apply operations in order as one batch; each gets its ``result`` or ``error``.

        Args:
            avoid: Zones not to take for a new segment (recovery protects what it copies from).

        Durability: when this returns, every operation without an error is on all replicas.
        """
        self.commit_gathered(lambda: operations, avoid=avoid)

    def commit_gathered(self, gather: Gather, *, avoid: Collection[ids.ZoneAddress] = ()) -> None:
        """As ``commit``, for what is waiting once the node's write lock is held.

        While another process holds the lock more operations arrive: taking them then, not before,
        makes batches as large as the waiting allows.

        Args:
            gather: Called once, on this thread.
        """
        gathered = _GatheredOnce(gather)
        try:
            self._commit_in_attempts(gathered, avoid)
        except errors.CouchestorError as exc:
            self._fail(gathered(), exc)

    def _commit_in_attempts(
        self, gathered: _GatheredOnce, avoid: Collection[ids.ZoneAddress]
    ) -> None:
        failure = errors.CouchestorError("the commit could not be written")
        one_by_one = False
        for _ in range(APPEND_ATTEMPTS_MAX):
            try:
                self._commit_once(gathered, avoid, one_by_one=one_by_one)
                return
            except _Spoiled:
                pass  # Redone without the operations that have an error by now.
            except _RollOver:
                self._segments.leave()
            except own_segments.OnlyReserveLeft as exc:
                refused = [item for item in gathered() if not item.uses_reserve]
                for item in refused:
                    item.lacks_room = item.error is None
                self._fail(refused, exc.cause)
            except errors.IndexFullError:
                # Once more, finding out for which operations there is no room.
                if one_by_one:
                    raise
                one_by_one = True
            except errors.DeviceFullError as exc:
                self._segments.leave()
                failure = errors.StoreFullError(
                    f"no room on the medium for the log: {exc}", **exc.context
                )
            except errors.DeviceError as exc:
                self._segments.leave()
                failure = exc
        self._fail(gathered(), failure)

    def fence(self) -> None:
        """Commit a batch that changes nothing but the order: every unanswered batch an earlier
        crash left behind names the same predecessor under a lower sequence, and is void for good.

        Call before the first read is served after a crash; else a write that a client saw absent
        could appear after the next power loss.

        Raises:
            CouchestorError: the log cannot be written.
        """
        operation = Operation(
            apply=lambda txn, place: txn.put(
                media_records.FENCE_KEY, media_records.U64.pack(place.segment_id)
            ),
            uses_reserve=True,
        )
        self.commit([operation])
        if operation.error is not None:
            raise operation.error

    @staticmethod
    def _fail(operations: Sequence[Operation], error: BaseException) -> None:
        for operation in operations:
            operation.error = operation.error or error

    def _commit_once(
        self,
        gathered: _GatheredOnce,
        avoid: Collection[ids.ZoneAddress],
        *,
        one_by_one: bool,
    ) -> None:
        with self._index.write() as txn:
            operations = [item for item in gathered() if item.error is None]
            if not operations:
                return
            payload_bytes = sum(len(operation.payload) for operation in operations)
            previous = applied_sequence(txn)
            sequence = self._index.next_sequence(previous)
            recorder = recording_writer.RecordingWriter(txn)
            wanted = batch.total_bytes(payload_bytes, MUTATIONS_ROOM_BYTES * len(operations))
            grows = any(not operation.uses_reserve for operation in operations)
            segment, is_new = self._segments.with_room(
                recorder, sequence, wanted, avoid=avoid, grows=grows
            )
            allocated_count = recorder.writes_count
            refusals = self._apply(operations, recorder, segment, one_by_one=one_by_one)
            if recorder.writes_count == allocated_count:
                self._refuse(refusals)
                return  # Nothing to log; a new segment's allocation goes with the transaction.
            recorder.carry_out()
            mutations = batch.pack_mutations(recorder.mutations)
            total = batch.total_bytes(payload_bytes, len(mutations))
            if total > segment.free_bytes:
                if is_new:
                    raise own_segments.too_large(total, segment)
                raise _RollOver
            with self._pool.acquire(total) as buffer:
                view = buffer.view[:total]
                if is_new:
                    segment.format_zones(view[: zone_header.ZONE_HEADER_BYTES])
                batch.pack_into(
                    view,
                    segment_id=segment.record.segment_id,
                    sequence=sequence,
                    previous=previous,
                    payloads=[operation.payload for operation in operations],
                    mutations=mutations,
                    seed=segment.record.seed,
                    offset_bytes=segment.offset_bytes,
                )
                segment.append(view)
            txn.put(media_records.APPLIED_KEY, media_records.U64.pack(sequence))
            txn.commit()
        self._refuse(refusals)
        if is_new:
            # Not before: what failed above took the allocation of its zones back.
            self._segments.went_on_to(segment)
        self._publisher.publish(
            events.WriteJournaled(
                segment_id=ids.SegmentId(segment.record.segment_id),
                sequence=ids.Sequence(sequence),
                payload_bytes=payload_bytes,
                writes_count=len(operations),
            )
        )

    @staticmethod
    def _apply(
        operations: Sequence[Operation],
        recorder: recording_writer.RecordingWriter,
        segment: log_segment.LogSegment,
        *,
        one_by_one: bool,
    ) -> list[tuple[Operation, errors.CouchestorError]]:
        """Apply in order; returns the refusals, which hold only if what they saw is committed.

        Args:
            one_by_one: Carry each out at once, so that a full index fails the one concerned.
        """
        refusals: list[tuple[Operation, errors.CouchestorError]] = []
        offset = segment.offset_bytes + batch.HEADER_BYTES
        for operation in operations:
            length = len(operation.payload)
            before = recorder.writes_count
            place = Placement(segment.record.segment_id, offset, length)
            try:
                operation.result = operation.apply(recorder, place)
                if one_by_one:
                    recorder.carry_out()
            except errors.CouchestorError as exc:
                if recorder.writes_count != before:
                    operation.error = exc
                    raise _Spoiled from exc
                refusals.append((operation, exc))
            offset += length
        return refusals

    @staticmethod
    def _refuse(refusals: Sequence[tuple[Operation, errors.CouchestorError]]) -> None:
        for operation, error in refusals:
            operation.error = error
