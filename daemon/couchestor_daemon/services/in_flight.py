"""Pieces of work that go on at the same time and are taken in the order in which they began.

So that devices read the next pieces while the codec verifies one and others are written. Each piece
may be lent memory of its own, which bounds how many there are.
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from couchestor_daemon import buffers

T = TypeVar("T")


class InFlight(Generic[T]):
    """A context: what is under way at its end is cancelled and waited for, whatever ended it, so
    that no thread uses the memory any more when that is given back.
    """

    def __init__(self) -> None:
        self._pieces: collections.deque[tuple[asyncio.Task[T], buffers.AlignedBuffer | None]] = (
            collections.deque()
        )

    def __len__(self) -> int:
        """Pieces that were begun and not taken yet."""
        return len(self._pieces)

    def begin(
        self, work: Coroutine[Any, Any, T], memory: buffers.AlignedBuffer | None = None
    ) -> None:
        """Start a piece. Its memory is given back by ``take``, or at the end of the context."""
        self._pieces.append((asyncio.ensure_future(work), memory))

    async def first(self) -> T:
        """Wait for the piece that began first; it keeps its memory. Raises what the piece raised.

        Cancellation: the pieces go on; the end of the context sees to them.
        """
        task, _ = self._pieces[0]
        await asyncio.wait([task])
        return task.result()

    def take(self) -> None:
        """Be done with the piece that ``first`` waited for, and give its memory back."""
        task, memory = self._pieces.popleft()
        assert task.done(), task
        if memory is not None:
            memory.release()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        tasks = [task for task, _ in self._pieces]
        cancelled: asyncio.CancelledError | None = None
        for task in tasks:
            task.cancel()
        while not all(task.done() for task in tasks):
            try:
                await asyncio.wait(tasks)
            except asyncio.CancelledError as told:
                cancelled = told  # Told on below: threads still use the memory.
        for task in tasks:
            if not task.cancelled():
                task.exception()  # Read, so that it is not reported as never retrieved.
        while self._pieces:
            _, memory = self._pieces.popleft()
            if memory is not None:
                memory.release()
        if cancelled is not None:
            raise cancelled
