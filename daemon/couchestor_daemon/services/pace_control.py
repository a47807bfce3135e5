"""How fast background work may go: a controller that follows the latency clients see.

Pure: windows of measurements in, a rate out. The rate is that of the background's device I/O, which
is what it competes with requests for.

The latency to compare with is measured, not configured: every ``BASELINE_SECONDS`` one window is
spent at the floor, and what requests take then is what they take without the background. Within a
tolerated ratio of it the rate grows by a factor, beyond it falls by a larger one, in the manner of
AIMD (Chiu and Jain, "Analysis of the Increase and Decrease Algorithms for Congestion Avoidance in
Computer Networks", 1989); growth is multiplicative too, because useful rates span three decades and
a node may be idle at one moment and busy at the next. The floor guarantees that work ends.
"""

from __future__ import annotations

from typing import Final, NamedTuple

BASELINE_SECONDS: Final = 30.0
"""How old a baseline may get while requests come."""
BASELINE_WEIGHT: Final = 0.5
"""Of a new measurement: two windows forget most of what was before."""
GROWTH: Final = 1.25
IDLE_GROWTH: Final = 4.0
FALL: Final = 0.5
REQUESTS_MIN: Final = 20
"""Fewer in a window say nothing about latency, and are few enough not to matter much."""


class Window(NamedTuple):
    """What was measured since the last one."""

    seconds: float
    requests_count: int
    latency_seconds: float
    """A high percentile over the requests of the window; anything when there were none."""


class PaceController:
    """Sets the rate once per window.

    Args:
        floor_bytes_per_second: Always granted.
        ceiling_bytes_per_second: Never exceeded.
        tolerated_ratio: Latency beside the background over latency without it that is left alone.
    """

    def __init__(
        self,
        *,
        floor_bytes_per_second: float,
        ceiling_bytes_per_second: float,
        tolerated_ratio: float,
    ) -> None:
        assert 0 < floor_bytes_per_second <= ceiling_bytes_per_second, floor_bytes_per_second
        assert tolerated_ratio > 1, tolerated_ratio
        self._floor = floor_bytes_per_second
        self._ceiling = ceiling_bytes_per_second
        self._tolerated_ratio = tolerated_ratio
        self._wanted = floor_bytes_per_second
        self._baseline_seconds = 0.0
        self._baseline_age_seconds = 0.0
        self._is_measuring = True
        self._is_idle = False

    @property
    def bytes_per_second(self) -> float:
        """The rate for the next window."""
        return self._floor if self._is_measuring else self._wanted

    @property
    def baseline_seconds(self) -> float:
        """Latency without the background, as last measured; 0.0: not yet."""
        return self._baseline_seconds

    def observe(self, window: Window) -> float:
        """Take in a window that ran at ``bytes_per_second``. Returns the rate for the next one."""
        self._baseline_age_seconds += window.seconds
        if window.requests_count < REQUESTS_MIN:
            # Nobody to disturb.
            self._is_measuring, self._is_idle = False, True
            self._wanted = min(self._ceiling, self._wanted * IDLE_GROWTH)
        elif self._is_idle:
            # Requests come: from the floor again, and the latency without the background first.
            self._is_measuring, self._is_idle = True, False
            self._wanted = self._floor
        elif self._is_measuring:
            self._learn(window.latency_seconds)
            self._is_measuring = False
        elif self._baseline_age_seconds >= BASELINE_SECONDS:
            self._is_measuring = True
        elif window.latency_seconds > self._baseline_seconds * self._tolerated_ratio:
            self._wanted = max(self._floor, self._wanted * FALL)
        else:
            self._wanted = min(self._ceiling, self._wanted * GROWTH)
        return self.bytes_per_second

    def _learn(self, latency_seconds: float) -> None:
        old = self._baseline_seconds
        self._baseline_seconds = (
            old + BASELINE_WEIGHT * (latency_seconds - old) if old else latency_seconds
        )
        self._baseline_age_seconds = 0.0
