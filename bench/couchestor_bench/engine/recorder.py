"""Sorts what ended into seconds, and into the run or its warm-up. Times are seconds of one clock.

A request belongs to the run if its intended start does: then it counts whenever it ends, and slow
ones are not lost at the end. A second counts what ended in it, whatever it belongs to: that is what
a server did in that second.
"""

from __future__ import annotations

import array
import collections
import math
from collections.abc import Callable
from typing import Final, NamedTuple

from couchestor_bench.reports import tally

SECONDS: Final = 1.0
AFTER: Final = 1 << 31
"""Of the interval that holds all that ended after the measured time."""


class Interval(NamedTuple):
    """One second. ``at`` counts from the start of the measured time, below 0 is warm-up."""

    at: int
    tallies: tally.Tallies


class _Pending:
    """What has not been put into a histogram yet: adding singly costs as much as a request."""

    __slots__ = ("counted", "errors", "measured_bytes", "measured_errors", "size_bytes", "warming")

    def __init__(self) -> None:
        self.counted = array.array("d")
        self.warming = array.array("d")
        self.size_bytes = self.measured_bytes = 0
        self.errors: collections.Counter[str] = collections.Counter()
        self.measured_errors: collections.Counter[str] = collections.Counter()


class Recorder:
    """Counts for one process.

    Args:
        measured_from: Start of the measured time.
        ends: Its end; infinity when a count ends it.
        report: Gets each second that has passed.
    """

    def __init__(
        self, *, measured_from: float, ends: float, report: Callable[[Interval], None]
    ) -> None:
        self._measured_from, self._ends, self._report = measured_from, ends, report
        self._pending: dict[str, _Pending] = {}
        self._at = -AFTER
        self._fold_at = -math.inf
        self.totals: tally.Tallies = {}
        self.measured_count = 0
        self.last_ended = measured_from

    def record(
        self, operation: str, *, intended: float, ended: float, size_bytes: int, failure: str
    ) -> None:
        """One that has ended. Calls come in the order of ``ended``. ``failure``: empty if good."""
        if ended >= self._fold_at:
            self.fold(ended)
        pending = self._pending.get(operation)
        if pending is None:
            pending = self._pending[operation] = _Pending()
        measured = intended >= self._measured_from
        if measured:
            self.measured_count += 1
            self.last_ended = ended
        if failure:
            pending.errors[failure] += 1
            if measured:
                pending.measured_errors[failure] += 1
        elif measured:
            pending.counted.append(ended - intended)
            pending.size_bytes += size_bytes
            pending.measured_bytes += size_bytes
        else:
            pending.warming.append(ended - intended)
            pending.size_bytes += size_bytes

    def fold(self, now: float) -> None:
        """Report the second that is over, if one is. To be called now and then on a quiet run."""
        if now < self._fold_at:
            return
        self._flush()
        if now >= self._ends:
            self._at, self._fold_at = AFTER, math.inf
            return
        self._at = math.floor((now - self._measured_from) / SECONDS)
        # What ends after the measured time is in no second of it.
        following = self._measured_from + (self._at + 1) * SECONDS
        self._fold_at = min(following, self._ends)

    def finish(self) -> None:
        """Report what is left."""
        self._flush()

    def _flush(self) -> None:
        found: tally.Tallies = {}
        for operation, pending in self._pending.items():
            second = tally.Tally(size_bytes=pending.size_bytes, errors=pending.errors)
            second.latencies.record_seconds(pending.warming)
            if pending.counted or pending.measured_errors:
                total = tally.Tally(size_bytes=pending.measured_bytes)
                total.errors.update(pending.measured_errors)
                total.latencies.record_seconds(pending.counted)
                second.latencies.merge(total.latencies)
                self.totals.setdefault(operation, tally.Tally()).merge(total)
            found[operation] = second
        self._pending = {}
        if found:
            self._report(Interval(self._at, found))
