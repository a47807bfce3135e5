"""Reads that nobody waits for any more."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any


class StrayReads:
    """Tasks left to end by themselves, owned here until they do: a thread cannot be stopped."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def leave(self, tasks: Collection[asyncio.Task[Any]]) -> None:
        """Wait for these no more; what has not started yet never does."""
        for task in tasks:
            if not task.done():
                task.cancel()
                self._tasks.add(task)
            task.add_done_callback(self._forget)

    async def drain(self) -> None:
        """Wait until all have ended."""
        while self._tasks:
            await asyncio.wait(list(self._tasks))

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # Looked at, so that the loop does not complain of it.
