"""How far a scrub is, how fast it may be, and what it counted; kept in the index over restarts."""

from __future__ import annotations

import enum
import logging
import math
from collections.abc import Callable
from typing import Final

import msgspec

from couchestor_daemon.formats import media_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import commit_log, replacement_zones
from couchestor_domain import units

logger = logging.getLogger(__name__)

SAVE_SECONDS: Final = 180.0
"""Between commits of the position: what a restart may read twice."""
WAIT_SECONDS_MAX: Final = 60.0
DAMAGED_SEGMENTS_MAX: Final = 1024
"""Remembered at a time; the next pass finds those that are still there."""


class Phase(enum.IntEnum):
    """Parts of a pass, in order; as recorded in the index."""

    GROUPS = 0
    SEGMENTS = 1
    CHECKPOINTS = 2
    ZONES = 3
    MAP = 4
    WAITING = 5
    """The pass is over and the next is not due."""


def fresh(
    started_ns: int, last: media_records.ScrubCounts, *, repaired_count: int = 0
) -> media_records.ScrubRecord:
    """The beginning of a pass."""
    counts = media_records.ScrubCounts(started_ns=started_ns)
    return media_records.ScrubRecord(int(Phase.GROUPS), -1, (), counts, last, repaired_count)


class ScrubPosition:
    """The record of the pass under way.

    Args:
        period_seconds: A pass is spread over this long; the next one begins when it is over.
        now_ns: Wall clock, so that a period goes on over restarts.
    """

    def __init__(
        self,
        *,
        index: index_port.IndexStore,
        submit: replacement_zones.Submit,
        period_seconds: float,
        now_seconds: Callable[[], float],
        now_ns: Callable[[], int],
    ) -> None:
        self._index = index
        self._submit = submit
        self._period_seconds = period_seconds
        self._now_seconds = now_seconds
        self._now_ns = now_ns
        self._saved_seconds = now_seconds()
        self.total_bytes = 0
        """What a pass reads, about."""
        self.record = self._recorded()

    @property
    def phase(self) -> Phase:
        """What is being looked at."""
        return Phase(self.record.phase)

    def _recorded(self) -> media_records.ScrubRecord:
        with self._index.read() as reader:
            value = reader.get(media_records.SCRUB_KEY)
        if value is None:
            return fresh(self._now_ns(), media_records.ScrubCounts())
        record = media_records.unpack(media_records.ScrubRecord, value)
        if record.counts.started_ns > self._now_ns():
            # The clock went back: the period is counted from now.
            counts = msgspec.structs.replace(record.counts, started_ns=self._now_ns())
            record = msgspec.structs.replace(record, counts=counts)
        return record

    def advance(self, position: int) -> None:
        """Everything up to ``position`` is done in this phase."""
        self.record = msgspec.structs.replace(self.record, position=position)

    def enter(self, phase: Phase) -> None:
        """Go on to the next phase."""
        self.record = msgspec.structs.replace(self.record, phase=int(phase), position=-1)

    async def end(self) -> None:
        """The pass is over; durably so when this returns."""
        counts = msgspec.structs.replace(
            self.record.counts, ended_ns=self._now_ns(), repaired_count=self.record.repaired_count
        )
        self.record = msgspec.structs.replace(
            self.record, counts=counts, doubtful_groups=(), repaired_count=0
        )
        self.enter(Phase.WAITING)
        await self.save()

    def begin_if_due(self) -> bool:
        """Begin the next pass when its time has come."""
        if self._now_ns() < self._due_ns():
            return False
        # What is still damaged in the log is found again.
        self.record = fresh(
            self._now_ns(), self.record.counts, repaired_count=self.record.repaired_count
        )
        return True

    def doubt(self, group_id: int) -> None:
        """More of a group is alive than its members show: the map phase says what."""
        self.record = msgspec.structs.replace(
            self.record, doubtful_groups=(*self.record.doubtful_groups, group_id)
        )

    def count(self, *, read_bytes: int = 0, shards: int = 0, damaged: int = 0) -> None:
        """Add to what the pass has done."""
        counts = self.record.counts
        self._set_counts(
            msgspec.structs.replace(
                counts,
                read_bytes=counts.read_bytes + read_bytes,
                shards_count=counts.shards_count + shards,
                damaged_count=counts.damaged_count + damaged,
            )
        )

    def repaired(self, shards_count: int) -> None:
        """A rebuild has brought shards back; recorded soon."""
        self.record = msgspec.structs.replace(
            self.record, repaired_count=self.record.repaired_count + shards_count
        )
        self._saved_seconds = -math.inf

    def distrust_segment(self, segment_id: int, sequence: int) -> None:
        """A replica of a log segment has lost something, up to a batch; recorded at once."""
        known = dict(self.record.damaged_segments)
        known[segment_id] = max(sequence, known.get(segment_id, 0))
        self.record = msgspec.structs.replace(
            self.record, damaged_segments=tuple(sorted(known.items()))[-DAMAGED_SEGMENTS_MAX:]
        )
        self._saved_seconds = -math.inf

    def find(self, text: str) -> None:
        """Something other than a damaged shard is wrong."""
        counts = self.record.counts
        self._set_counts(msgspec.structs.replace(counts, findings_count=counts.findings_count + 1))
        logger.warning("scrub: %s", text)

    def _set_counts(self, counts: media_records.ScrubCounts) -> None:
        self.record = msgspec.structs.replace(self.record, counts=counts)

    async def save_if_due(self) -> None:
        """Commit the position every few minutes."""
        if self._now_seconds() - self._saved_seconds >= SAVE_SECONDS:
            await self.save()

    async def save(self) -> None:
        """Commit the position."""
        packed = media_records.pack(self.record)

        def apply(txn: index_port.IndexWriter, _: commit_log.Placement) -> None:
            txn.put(media_records.SCRUB_KEY, packed)

        await self._submit(commit_log.Operation(apply=apply, uses_reserve=True))
        self._saved_seconds = self._now_seconds()

    def wait_seconds(self) -> float:
        """How far the pass is ahead of its period."""
        counts = self.record.counts
        if self.phase is Phase.WAITING:
            left = (self._due_ns() - self._now_ns()) / units.NS_PER_SECOND
            return min(WAIT_SECONDS_MAX, max(0.0, left))
        if self.phase > Phase.SEGMENTS:
            return 0.0  # What is left is short, and its results should not wait for days.
        passed_seconds = (self._now_ns() - counts.started_ns) / units.NS_PER_SECOND
        done_ratio = min(1.0, counts.read_bytes / self.total_bytes) if self.total_bytes else 0.0
        ahead_seconds = done_ratio * self._period_seconds - passed_seconds
        return min(WAIT_SECONDS_MAX, max(0.0, ahead_seconds))

    def _due_ns(self) -> int:
        return self.record.counts.started_ns + int(self._period_seconds * units.NS_PER_SECOND)
