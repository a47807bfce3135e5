"""The machine's clocks."""

from __future__ import annotations

import time


class SystemClock:
    """Wall time for records people read, monotonic time for durations."""

    def now_ns(self) -> int:
        """Nanoseconds since 1970 (UTC); may jump either way when the clock is set."""
        return time.time_ns()

    def monotonic_seconds(self) -> float:
        """Seconds from an arbitrary start; never goes back."""
        return time.monotonic()

    def monotonic_ns(self) -> int:
        """Nanoseconds from an arbitrary start; never goes back."""
        return time.monotonic_ns()
