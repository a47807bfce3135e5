"""One measurement for all who ask: kept for a while, taken one at a time, not hurried by faults."""

from __future__ import annotations

import asyncio
import copy
from dataclasses import dataclass, field
from typing import Final

from couchestor_domain import errors
from couchestor_operator.ports import metrics_provider, monotonic_clock

KEPT_SECONDS: Final = 30.0
RETRY_SECONDS_MIN: Final = 1.0
RETRY_SECONDS_MAX: Final = 60.0


@dataclass(slots=True)
class _Window:
    """What is known for one length of window."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    reading: metrics_provider.HeatReading | None = None
    kept_until_seconds: float = 0.0
    fault: errors.ControlPlaneError | None = None
    faults_count: int = 0
    again_at_seconds: float = 0.0
    waiting_count: int = 0

    def is_idle(self, now_seconds: float) -> bool:
        """Whether nothing of it is needed any more."""
        over_seconds = max(self.kept_until_seconds, self.again_at_seconds + RETRY_SECONDS_MAX)
        return self.waiting_count == 0 and now_seconds >= over_seconds


class HeatCache:
    """A ``MetricsProvider`` that asks another one seldom.

    A reading is shared for ``kept_seconds``; callers that come while one is taken wait for it.
    After a fault the same error is raised, without asking, for as long as the source asked to be
    left alone, and at least for a time that doubles with each fault in a row. An old reading is
    never given in place of an error. Each length of window is on its own: a query that one policy
    made too large does not blind the others.
    """

    def __init__(
        self,
        source: metrics_provider.MetricsProvider,
        clock: monotonic_clock.MonotonicClock,
        *,
        kept_seconds: float = KEPT_SECONDS,
    ) -> None:
        assert kept_seconds >= 0, kept_seconds
        self._source = source
        self._clock = clock
        self._kept_seconds = kept_seconds
        self._windows: dict[float, _Window] = {}

    async def measure(self, window_seconds: float) -> metrics_provider.HeatReading:
        """See ``MetricsProvider.measure``; a reading is at most ``kept_seconds`` old."""
        window = self._window(window_seconds)
        window.waiting_count += 1
        try:
            # Whoever is cancelled here leaves the lock to the next one, who asks again.
            async with window.lock:
                return await self._current(window, window_seconds)
        finally:
            window.waiting_count -= 1

    def _window(self, window_seconds: float) -> _Window:
        now_seconds = self._clock.monotonic_seconds()
        for length in [k for k, known in self._windows.items() if known.is_idle(now_seconds)]:
            if length != window_seconds:
                del self._windows[length]
        return self._windows.setdefault(window_seconds, _Window())

    async def _current(
        self, window: _Window, window_seconds: float
    ) -> metrics_provider.HeatReading:
        now_seconds = self._clock.monotonic_seconds()
        if window.reading is not None and now_seconds < window.kept_until_seconds:
            return window.reading
        window.reading = None
        if window.fault is not None and now_seconds < window.again_at_seconds:
            raise copy.copy(window.fault) from window.fault
        try:
            reading = await self._source.measure(window_seconds)
        except errors.ControlPlaneError as exc:
            self._failed(window, exc)
            raise
        window.fault, window.faults_count = None, 0
        window.reading = reading
        # From before the query on: its answer is as old as that.
        window.kept_until_seconds = now_seconds + self._kept_seconds
        return reading

    def _failed(self, window: _Window, fault: errors.ControlPlaneError) -> None:
        wait_seconds = min(RETRY_SECONDS_MIN * 2.0**window.faults_count, RETRY_SECONDS_MAX)
        if isinstance(fault, errors.TransientError):
            wait_seconds = max(wait_seconds, fault.retry_after_seconds)
        window.fault = fault
        window.faults_count = min(window.faults_count + 1, 30)
        window.again_at_seconds = self._clock.monotonic_seconds() + wait_seconds
