"""The machine's clocks."""

from __future__ import annotations

import time

# Linux; elsewhere nothing is said of a machine that sleeps.
_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    """Wall time for what others have measured, monotonic time for waiting."""

    def now_seconds(self) -> float:
        """Seconds since 1970 (UTC); may jump either way when the clock is set."""
        return time.time()

    def monotonic_seconds(self) -> float:
        """Seconds from an arbitrary start; never goes back."""
        return time.monotonic()


class BootClock:
    """Time since the machine was started, in which the time that it slept counts, too."""

    def monotonic_seconds(self) -> float:
        """Seconds since the start; never goes back."""
        return time.clock_gettime(_BOOT_CLOCK)
