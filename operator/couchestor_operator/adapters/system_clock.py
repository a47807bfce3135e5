"""The machine's clocks."""

from __future__ import annotations

import time


class SystemClock:
    """Wall time for what others have measured, monotonic time for waiting."""

    def now_seconds(self) -> float:
        """Seconds since 1970 (UTC); may jump either way when the clock is set."""
        return time.time()

    def monotonic_seconds(self) -> float:
        """Seconds from an arbitrary start; never goes back."""
        return time.monotonic()
