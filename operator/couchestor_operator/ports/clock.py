"""The time of day."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """What the time is; it may go back, and other operators' clocks may differ."""

    def now_seconds(self) -> float:
        """Seconds since the epoch."""
        ...
