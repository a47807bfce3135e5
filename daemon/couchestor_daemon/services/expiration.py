"""Lifecycle rules put into effect: what is due is found bucket by bucket, and taken away.

One process of a node does it. A pass over all buckets begins every ``interval_seconds``; a pass
that was cut off is begun anew after a restart, because what it has done is not due any more.

What is there after a crash at each line of a step:

    line                                       what is due
    look at some rows of the index             all there
    submit the removal of what was found       all there, or that batch gone as a whole: one
                                               operation of one commit (``commit_log``)
    tell it                                    that batch gone; its event may not have been told
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final, Protocol, cast

from couchestor_daemon.formats import index_keys, index_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import commit_log
from couchestor_daemon.services.catalogue import (
    bucket_lifecycle,
    buckets,
    expiry,
    expiry_walk,
    key_space,
    versions,
)
from couchestor_domain import errors, event_publisher, events, lifecycle, units

_log = logging.getLogger(__name__)

ROWS_PER_STEP_MAX: Final = 512
RULES_PER_STEP_MAX: Final = 1 << 16
"""How often rows may be asked of rules in a step: fewer rows where there are many rules."""
BUCKETS_PER_STEP_MAX: Final = 512
BATCH_VERSIONS_MAX: Final = 128
BATCH_PARTS_MAX: Final = 1024
"""Parts of versions that one commit drops; a version with more goes alone. Writers wait for it."""
LOOKING_SHARE_MAX: Final = 0.1
"""Part of the time that a pass may take of the process."""
COMMIT_BYTES_ASSUMED: Final = 4 * units.KIB
"""What the removal of one version is counted as where background work is paced."""


class Clock(Protocol):
    """Wall clock, and one for durations."""

    def now_ns(self) -> int:
        """Nanoseconds since the Unix epoch."""
        ...

    def monotonic_seconds(self) -> float:
        """Seconds from an arbitrary start; never goes back."""
        ...


@dataclasses.dataclass(slots=True)
class Tally:
    """What was done to a bucket."""

    removed_count: int = 0
    hidden_count: int = 0
    markers_count: int = 0
    uploads_count: int = 0
    removed_bytes: int = 0

    def add(self, done: expiry.Expired) -> None:
        """Count one more."""
        if done.candidate.kind is expiry.Kind.UPLOAD:
            self.uploads_count += 1
        elif done.candidate.kind is expiry.Kind.MARKER:
            self.markers_count += 1
        elif done.is_hidden:
            self.hidden_count += 1
        else:
            self.removed_count += 1
            self.removed_bytes += done.size_bytes


class Expiration:
    """``BackgroundWork`` of the one process that does it.

    Args:
        submit: Commits an operation and returns its result, or raises its error.
        pace: Waits until so many bytes may be written.
        interval_seconds: From the begin of one pass to that of the next.
        on_done: Told after each commit what it did.
        on_pass: Told when a whole pass has ended.
    """

    name: Final = "lifecycle"

    def __init__(
        self,
        *,
        index: index_port.IndexStore,
        submit: Callable[[commit_log.Operation], Awaitable[object]],
        publisher: event_publisher.EventPublisher,
        clock: Clock,
        draw: versions.DrawRandom,
        pace: Callable[[int], Awaitable[None]],
        interval_seconds: float,
        calendar: lifecycle.Calendar = lifecycle.REAL_DAYS,
        rows_per_step_max: int = ROWS_PER_STEP_MAX,
        on_done: Callable[[Sequence[expiry.Expired]], None] = lambda done: None,
        on_pass: Callable[[], None] = lambda: None,
    ) -> None:
        self._index = index
        self._submit = submit
        self._publisher = publisher
        self._clock = clock
        self._draw = draw
        self._pace = pace
        self._interval_seconds = interval_seconds
        self._calendar = calendar
        self._rows_per_step_max = rows_per_step_max
        self._on_done = on_done
        self._on_pass = on_pass
        self._began_at: float | None = None
        """When the present pass began; None between two."""
        self._following = index_keys.BUCKETS
        """Key of the bucket, or of those behind it, that the pass goes on with."""
        self._bucket_id = 0
        """Of the bucket that ``_position`` is in."""
        self._position = expiry_walk.BEGIN
        self._tally = Tally()

    async def step(self) -> float:
        """Look at some rows, and remove what is due among them.

        Raises:
            CouchestorError: the commit failed; the same rows are looked at again.
        """
        now = self._clock.monotonic_seconds()
        if self._began_at is None:
            self._began_at = now
        name, bucket_id, found = self._look()
        looked_seconds = self._clock.monotonic_seconds() - now
        if name is None:
            if self._following != index_keys.BUCKETS:
                return looked_seconds * (1 / LOOKING_SHARE_MAX - 1)
            return self._end_pass()
        if found.candidates:
            await self._remove(name, bucket_id, found.candidates)
        if found.following is None:
            self._leave_bucket(name)
        else:
            self._position = found.following
        return looked_seconds * (1 / LOOKING_SHARE_MAX - 1)

    def _end_pass(self) -> float:
        assert self._began_at is not None
        took_seconds = self._clock.monotonic_seconds() - self._began_at
        self._began_at = None
        self._on_pass()
        return max(0.0, self._interval_seconds - took_seconds)

    def _look(self) -> tuple[str | None, int, expiry_walk.Found]:
        """The next rows of the bucket that the pass is at; no name when there is none (yet)."""
        with self._index.read() as reader:
            name, stored = self._next_bucket(reader)
            if name is None or stored is None:
                return None, 0, expiry_walk.Found()
            if stored.bucket_id != self._bucket_id:
                self._bucket_id, self._position = stored.bucket_id, expiry_walk.BEGIN
                self._tally = Tally()
            configuration = bucket_lifecycle.of_bucket(reader, stored)
            rules = lifecycle.enabled(configuration.rules) if configuration else ()
            judge = expiry.Judge(rules, self._clock.now_ns(), self._calendar)
            rows_max = min(
                self._rows_per_step_max, max(1, RULES_PER_STEP_MAX // max(1, len(rules)))
            )
            found = expiry_walk.look(
                reader, stored.bucket_id, judge, self._position, rows_max=rows_max
            )
            return name, stored.bucket_id, found

    def _next_bucket(
        self, reader: index_port.IndexReader
    ) -> tuple[str | None, index_records.Bucket | None]:
        stop = bytes([index_keys.BUCKETS[0] + 1])
        for count, (key, value) in enumerate(reader.scan(self._following, stop)):
            if count == BUCKETS_PER_STEP_MAX:
                self._following = key
                return None, None
            stored = buckets.decoded(value)
            if stored.has_lifecycle:
                self._following = key
                return key[1:].decode(), stored
        self._following = index_keys.BUCKETS
        return None, None

    def _leave_bucket(self, name: str) -> None:
        tally, self._tally = self._tally, Tally()
        self._bucket_id, self._position = 0, expiry_walk.BEGIN
        self._following = key_space.after(index_keys.bucket(name))
        if tally != Tally():
            self._publisher.publish(
                events.LifecycleApplied(
                    bucket=name,
                    removed_versions_count=tally.removed_count,
                    hidden_versions_count=tally.hidden_count,
                    removed_markers_count=tally.markers_count,
                    aborted_uploads_count=tally.uploads_count,
                    removed_bytes=tally.removed_bytes,
                )
            )

    # -- removal --------------------------------------------------------------------------------

    async def _remove(
        self, name: str, bucket_id: int, candidates: Sequence[expiry.Candidate]
    ) -> None:
        # The oldest of a key first: how long a version has not been current goes by its successor.
        for batch in _batches(candidates[::-1]):
            await self._pace(len(batch) * COMMIT_BYTES_ASSUMED)
            try:
                await self._commit(name, bucket_id, batch)
            except errors.IntegrityError:
                # What is damaged must not keep the rest for ever.
                for each in batch:
                    await self._commit_alone(name, bucket_id, each)

    async def _commit_alone(self, name: str, bucket_id: int, candidate: expiry.Candidate) -> None:
        try:
            await self._commit(name, bucket_id, (candidate,))
        except errors.IntegrityError as exc:
            _log.error(
                "what is due by the lifecycle of its bucket cannot be removed",
                extra={"bucket": name, "key": candidate.key, "reason": exc.message},
            )

    async def _commit(
        self, name: str, bucket_id: int, candidates: Sequence[expiry.Candidate]
    ) -> None:
        operation = commit_log.Operation(
            apply=lambda txn, _: expiry.expire(
                txn,
                name,
                bucket_id,
                candidates,
                now_ns=self._clock.now_ns(),
                calendar=self._calendar,
                draw=self._draw,
            ),
            uses_reserve=True,
        )
        done = cast("list[expiry.Expired]", await self._submit(operation))
        for each in done:
            self._tally.add(each)
            _log.debug(
                "expired",
                extra={
                    "bucket": name,
                    "key": each.candidate.key,
                    "version": each.candidate.version_id,
                    "kind": each.candidate.kind.value,
                    "rule": each.rule_id,
                },
            )
        if done:
            self._on_done(done)


def _batches(candidates: Sequence[expiry.Candidate]) -> Iterator[list[expiry.Candidate]]:
    batch: list[expiry.Candidate] = []
    parts_count = 0
    for each in candidates:
        parts_count += each.parts_count
        if batch and (len(batch) == BATCH_VERSIONS_MAX or parts_count > BATCH_PARTS_MAX):
            yield batch
            batch, parts_count = [], each.parts_count
        batch.append(each)
    if batch:
        yield batch
