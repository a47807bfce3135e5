"""When requests start, and from when their latency counts. Times are seconds of one clock.

Closed loop: a connection sends its next request when the last answer is whole. A server that
stalls is asked less, so its stalls hardly show in the percentiles.

Open loop: requests are due at times drawn beforehand, whatever the server does. One that finds no
free connection waits, and its latency counts from when it was due.

Source: G. Tene, "How NOT to Measure Latency", on coordinated omission.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final, Protocol

import numpy as np

_BATCH_COUNT: Final = 1024


class Pace(Protocol):
    """Tells when the next request starts."""

    @property
    def due_at(self) -> float:
        """When ``take`` may give something; infinity: never again."""
        ...

    def take(self, now: float) -> float | None:
        """The intended start of a request to be sent now; None: none is due."""
        ...

    def end_if_late(self, now: float) -> None:
        """Notice that the time is over though nobody takes anything."""
        ...

    def stop(self) -> None:
        """Nothing starts any more."""
        ...


class ClosedLoop:
    """A request is due whenever a connection is free.

    Args:
        measured_from: Requests from then on count towards ``count``.
        ends: None starts any more.
        count: Requests to be measured; None: as many as there is time for.
    """

    def __init__(self, *, measured_from: float, ends: float, count: int | None = None) -> None:
        self._measured_from, self._ends = measured_from, ends
        self._left = math.inf if count is None else count

    @property
    def due_at(self) -> float:
        return math.inf if self._left <= 0 else -math.inf

    def take(self, now: float) -> float | None:
        self.end_if_late(now)
        if self._left <= 0:
            return None
        if now >= self._measured_from:
            self._left -= 1
        return now

    def end_if_late(self, now: float) -> None:
        if now >= self._ends:
            self._left = 0

    def stop(self) -> None:
        self._left = 0


class OpenLoop:
    """Requests are due at the times that ``arrivals`` gives, in rising order.

    Args:
        measured_from: Arrivals from then on count towards ``count``.
        ends: Arrivals from then on are none.
        count: Arrivals to be measured; None: all until ``ends``.
    """

    def __init__(
        self,
        arrivals: Iterator[float],
        *,
        measured_from: float,
        ends: float,
        count: int | None = None,
    ) -> None:
        self._arrivals = arrivals
        self._measured_from, self._ends = measured_from, ends
        self._left = math.inf if count is None else count
        self._due_at = -math.inf
        self._advance()

    @property
    def due_at(self) -> float:
        return self._due_at

    def take(self, now: float) -> float | None:
        if self._due_at > now:
            return None
        intended = self._due_at
        self._advance()
        return intended

    def end_if_late(self, now: float) -> None:
        """Does nothing: what was due in time is sent, however late."""

    def stop(self) -> None:
        self._due_at = math.inf

    def give_up(self) -> int:
        """End here. Returns how many requests that were to be measured were never taken."""
        missed = 0
        while self._due_at < math.inf:
            missed += self._due_at >= self._measured_from
            self._advance()
        return missed

    def _advance(self) -> None:
        following = next(self._arrivals, math.inf)
        measured = following >= self._measured_from
        if following >= self._ends or (measured and self._left <= 0):
            following = math.inf
        elif measured:
            self._left -= 1
        self._due_at = following


def constant(per_second: float, *, begin: float, phase: float = 0.0) -> Iterator[float]:
    """Arrivals at equal distances. ``phase`` (0 to 1) shifts them by a part of the distance."""
    index = 0
    while True:
        # By multiplication: adding up the distance would add up its rounding, too.
        yield begin + (index + phase) / per_second
        index += 1


def poisson(per_second: float, *, begin: float, random: np.random.Generator) -> Iterator[float]:
    """Arrivals that know nothing of each other; those of several processes add up to the same."""
    now = begin
    while True:
        for gap in random.exponential(1 / per_second, _BATCH_COUNT):
            now += float(gap)
            yield now
