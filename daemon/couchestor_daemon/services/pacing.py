"""How much device I/O background work may cause: a bucket of bytes that fills at a steady rate."""

from __future__ import annotations

import asyncio
from typing import Final

from couchestor_daemon.ports import clock as clock_port

BURST_SECONDS: Final = 0.25
"""What is not used is saved for so long and no longer, so that a pause does not become a storm."""


class Pacer:
    """Shared by all works of a process.

    Args:
        bytes_per_second: 0: no limit.
    """

    def __init__(self, bytes_per_second: float, *, clock: clock_port.MonotonicClock) -> None:
        assert bytes_per_second >= 0, bytes_per_second
        self._bytes_per_second = float(bytes_per_second)
        self._now = clock.monotonic_seconds
        self._free_at = 0.0
        """When what has been taken so far is paid for."""

    def set_rate(self, bytes_per_second: float) -> None:
        """What is taken from now on is paid for at another rate; what waits goes on waiting.

        Args:
            bytes_per_second: Above 0.
        """
        assert bytes_per_second > 0, bytes_per_second
        if self._bytes_per_second:
            # The debt is one of bytes, not of time: the rate it was made at may have been a
            # thousandth of this one.
            now = self._now()
            debt_bytes = max(0.0, self._free_at - now) * self._bytes_per_second
            self._free_at = min(self._free_at, now) + debt_bytes / bytes_per_second
        self._bytes_per_second = bytes_per_second

    async def take(self, bytes_count: int) -> None:
        """Wait until so many bytes may be read or written. Those who wait are served in turn.

        Cancellation: what was asked for stays taken.
        """
        if not self._bytes_per_second:
            await asyncio.sleep(0)
            return
        now = self._now()
        begin = max(self._free_at, now - BURST_SECONDS)
        self._free_at = begin + bytes_count / self._bytes_per_second
        # The bytes are due when those before them are paid for, not after they are: a piece larger
        # than the bucket goes through, and the next one waits for it.
        await asyncio.sleep(max(0.0, begin - now))
