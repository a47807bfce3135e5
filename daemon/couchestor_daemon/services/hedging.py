"""When a read stops waiting for a device and asks others instead.

A read is slow when it takes longer than nearly all others did lately. With a device that is slow as
a whole, "all others" must not include its own reads: each device has its own 99th percentile, and
what counts is the median of those, right as long as fewer than half of the devices are slow. The
idea is that of hedged requests (Dean and Barroso, "The Tail at Scale", CACM 56 (2), 2013); there
as here they are bounded to a small share of all reads, so that a node that is slow as a whole is
not made slower.

A device that loses several hedges in a row is avoided for a while: reads decode around it at once,
which needs no waiting and takes no thread that would wait with it. Then it is tried again. One that
the node suspects of being slow is avoided for as long as it is suspected (docs/adr/0012).
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable, Collection
from typing import Final

from couchestor_domain import ids

PATIENCE_SECONDS_MIN: Final = 2e-3
"""Below this the wait is the event loop's and the threads', not the device's."""
SAMPLES_PER_DEVICE: Final = 128
SAMPLES_MIN: Final = 32
"""Of a device, before its percentile means anything."""
FORGET_EVERY: Final = 32
"""Reads between two looks at the percentiles."""
HEDGES_PER_READ: Final = 0.05
HEDGES_SAVED_MAX: Final = 16.0
STRIKES_MAX: Final = 3
AVOID_SECONDS: Final = 5.0
AVOID_SECONDS_MAX: Final = 60.0
"""Each time in a row that a device is avoided it is for twice as long."""


PATIENCE_UNKNOWN_SECONDS: Final = 0.1
"""While too little is known but some device is suspected."""


class Hedging:
    """What reads took lately, and what follows for the next ones. For one event loop.

    Args:
        now: Monotonic seconds.
        count: Told of each hedge, with False, and once more, with True, when it came first.
        suspects: Devices that reads do better without, whatever they took lately.
    """

    def __init__(
        self,
        now: Callable[[], float],
        *,
        count: Callable[[bool], None] = lambda won: None,
        suspects: Callable[[], Collection[ids.DeviceId]] = frozenset,
    ) -> None:
        self.hedges_count = 0
        """Reads that asked further shards because one was slow."""
        self.won_count = 0
        """Those in which the further shards came first."""
        self._now = now
        self._count = count
        self._suspects = suspects
        self._samples: dict[ids.DeviceId, deque[float]] = {}
        self._since_look_count = 0
        self._patience_seconds: float | None = None
        self._saved = HEDGES_SAVED_MAX
        self._strikes: dict[ids.DeviceId, int] = {}
        self._avoided_until: dict[ids.DeviceId, float] = {}
        self._avoid_seconds: dict[ids.DeviceId, float] = {}

    def patience_seconds(self) -> float | None:
        """How long a read waits before it counts as slow; None while too little is known."""
        if self._patience_seconds is None and self._suspects():
            return PATIENCE_UNKNOWN_SECONDS
        return self._patience_seconds

    def measured(self, device_id: ids.DeviceId, seconds: float) -> None:
        """A read of a device has ended after so long."""
        samples = self._samples.get(device_id)
        if samples is None:
            samples = self._samples[device_id] = deque(maxlen=SAMPLES_PER_DEVICE)
        samples.append(seconds)
        self._saved = min(HEDGES_SAVED_MAX, self._saved + HEDGES_PER_READ)
        self._since_look_count += 1
        if self._since_look_count >= FORGET_EVERY:
            self._look()
        if self._patience_seconds is not None and seconds <= self._patience_seconds:
            self._strikes.pop(device_id, None)
            self._avoid_seconds.pop(device_id, None)

    def take(self) -> bool:
        """Whether a hedge may be made now; it is counted if so."""
        if self._saved < 1:
            return False
        self._saved -= 1
        self.hedges_count += 1
        self._count(False)
        return True

    def won(self) -> None:
        """A hedge was first."""
        self.won_count += 1
        self._count(True)

    def lost(self, device_id: ids.DeviceId) -> None:
        """Others answered before this device did."""
        strikes = self._strikes.get(device_id, 0) + 1
        self._strikes[device_id] = strikes
        if strikes >= STRIKES_MAX:
            seconds = self._avoid_seconds.get(device_id, AVOID_SECONDS)
            self._avoided_until[device_id] = self._now() + seconds
            self._avoid_seconds[device_id] = min(AVOID_SECONDS_MAX, 2 * seconds)
            # One more slow read is enough the next time.
            self._strikes[device_id] = STRIKES_MAX - 1

    def is_avoided(self, device_id: ids.DeviceId) -> bool:
        """Whether reads should do without the device now."""
        if device_id in self._suspects():
            return True
        until = self._avoided_until.get(device_id)
        if until is None:
            return False
        if self._now() < until:
            return True
        del self._avoided_until[device_id]
        return False

    def _look(self) -> None:
        self._since_look_count = 0
        slowest = [
            sorted(samples)[len(samples) * 99 // 100]
            for samples in self._samples.values()
            if len(samples) >= SAMPLES_MIN
        ]
        if slowest:
            self._patience_seconds = max(PATIENCE_SECONDS_MIN, statistics.median_low(slowest))
