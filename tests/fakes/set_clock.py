"""A clock that only goes when it is told to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class SetClock:
    """Both clocks of the operator; the wall clock and the monotonic one go together."""

    now: float = 1_800_000_000.0
    monotonic: float = 5_000.0

    def now_seconds(self) -> float:
        """What the wall clock says."""
        return self.now

    def monotonic_seconds(self) -> float:
        """What the monotonic clock says."""
        return self.monotonic

    def go(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self.monotonic += seconds
