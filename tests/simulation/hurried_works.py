"""Background works on virtual time: they poll in a hurry and are watched."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from tests.simulation import node_shape

from couchestor_daemon.services import background, checkpoints, compression
from couchestor_domain import errors


async def unpaced(bytes_count: int) -> None:
    """Another may go first."""
    await asyncio.sleep(0)


async def paced(bytes_count: int) -> None:
    """The work of an idle node, at the speed of its devices."""
    await asyncio.sleep(bytes_count * node_shape.PACE_SECONDS_PER_BYTE)


class HurriedWork:
    """A work that polls by the second, on virtual time, and tells what it has moved."""

    def __init__(
        self,
        work: background.BackgroundWork,
        counters: compression.CompressionCounters,
        happened: Callable[[str], None],
    ) -> None:
        self.name = work.name
        self._work = work
        self._counters = counters
        self._happened = happened

    async def step(self) -> float:
        """As the work itself; the wait is shorter."""
        kept_count = self._counters.kept_count
        wait_seconds = await self._work.step()
        if wait_seconds == 0.0:
            self._happened(f"{self.name}-moved")
        if self._counters.kept_count > kept_count:
            self._happened("compressed")
        return node_shape.POLL_FACTOR * wait_seconds


class WatchedWork:
    """A background work that may find no room or devices, but never an index that is wrong."""

    def __init__(self, work: background.BackgroundWork) -> None:
        self.name = work.name
        self._work = work

    async def step(self) -> float:
        """As the work itself."""
        try:
            return await self._work.step()
        except errors.IndexCorruptError as exc:
            raise AssertionError(f"{self.name} found the index wrong: {exc}") from exc


class CheckpointWork:
    """What ``app.checkpointing`` does, on virtual time and after less log."""

    name: Final = "checkpoints"

    def __init__(self, taker: checkpoints.Checkpoints, happened: Callable[[str], None]) -> None:
        self._taker = taker
        self._happened = happened
        self._has_begun = False

    async def step(self) -> float:
        """Take one if it is due."""
        await asyncio.sleep(0)
        if not self._has_begun:
            self._taker.release_leftovers()
            self._has_begun = True
        lost = not self._taker.is_newest_trusted() and not self._taker.verify_newest()
        grown = self._taker.log_bytes_since_newest() > node_shape.CHECKPOINT_LOG_BYTES
        weakened = bool(self._taker.weakened_log_bytes())
        if grown or ((lost or weakened) and self._taker.can_take()):
            record = self._taker.take(space_is_short=True)
            assert record is not None, "nothing stops it"
            self._happened(f"checkpoint {record.checkpoint_id} at {record.sequence}")
        return node_shape.CHECKPOINT_SECONDS
