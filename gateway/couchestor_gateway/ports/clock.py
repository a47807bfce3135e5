"""Time, as the gateway needs it."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Wall and monotonic time in nanoseconds; never blocks."""

    def now_ns(self) -> int:
        """Since the Unix epoch, UTC; may jump."""
        ...

    def monotonic_ns(self) -> int:
        """From an arbitrary start; never goes back."""
        ...
