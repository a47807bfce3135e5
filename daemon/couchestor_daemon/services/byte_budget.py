"""Memory that bodies in flight share: taken in order of arrival, by the byte, never exceeded."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from typing import Final

from couchestor_domain import errors

WAITING_MAX: Final = 1024


class ByteBudget:
    """Lends parts of ``limit_bytes`` on one event loop; who comes first is served first."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._lent_bytes = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @contextlib.asynccontextmanager
    async def borrowed(self, size_bytes: int) -> AsyncIterator[None]:
        """Hold ``size_bytes`` for the length of the block; more than there is counts as all of it.

        Raises:
            OverloadedError: ``WAITING_MAX`` others wait already.
        """
        size_bytes = min(size_bytes, self._limit_bytes)
        await self._take(size_bytes)
        try:
            yield
        finally:
            self._give_back(size_bytes)

    async def _take(self, size_bytes: int) -> None:
        if not self._waiting and self._lent_bytes + size_bytes <= self._limit_bytes:
            self._lent_bytes += size_bytes
            return
        if len(self._waiting) >= WAITING_MAX:
            raise errors.OverloadedError(
                f"{len(self._waiting)} uploads are waiting for memory; try again later"
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (size_bytes, turn)
        self._waiting.append(entry)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give_back(size_bytes)  # Its turn came together with the cancellation.
            else:
                # It may be gone already: passed over when its turn came after the cancellation.
                with contextlib.suppress(ValueError):
                    self._waiting.remove(entry)
                self._serve()
            raise

    def _give_back(self, size_bytes: int) -> None:
        self._lent_bytes -= size_bytes
        self._serve()

    def _serve(self) -> None:
        while self._waiting:
            size_bytes, turn = self._waiting[0]
            if turn.cancelled():
                self._waiting.popleft()
                continue
            if self._lent_bytes + size_bytes > self._limit_bytes:
                return
            self._waiting.popleft()
            self._lent_bytes += size_bytes
            turn.set_result(None)
