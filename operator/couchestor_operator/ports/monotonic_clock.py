"""Time that passes."""

from __future__ import annotations

from typing import Protocol


class MonotonicClock(Protocol):
    """A clock for durations within one process."""

    def monotonic_seconds(self) -> float:
        """Seconds from an arbitrary start; never goes back."""
        ...
