"""Writers wait for zones that are on their way back, before they are refused.

    a zone is free   background work has     seconds_max passed      the write
                     something to give back
    yes                                                              goes on
    no               no                                              507
    no               yes                     no                      waits
    no               yes                     yes, zones came back    503, try again later
    no               yes                     yes, nothing happened   507

After the last line nobody waits again before something has happened: a store that is full for hours
refuses at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeVar

from couchestor_daemon.ports import clock as clock_port
from couchestor_domain import errors

if TYPE_CHECKING:
    # Leads to the codecs, which what takes only the times above does without.
    from couchestor_daemon.services import room_outlook

T = TypeVar("T")

SECONDS_MAX: Final = 20.0
POLL_SECONDS: Final = 0.1
LOOK_SECONDS: Final = 0.5
LOOKING_SHARE_MAX: Final = 0.05
"""Part of the time that looking at the index may take."""


class Waiting:
    """One write's wait, from its first refusal."""

    def __init__(self, until_seconds: float, first: room_outlook.RoomOutlook) -> None:
        self.until_seconds = until_seconds
        self.first = first


class RoomWait:
    """The patience of the writers of one process.

    Args:
        look: The outlook as of now; called on the event loop, and rarely.
        seconds_max: How long a write waits at most.
    """

    def __init__(
        self,
        look: Callable[[], Awaitable[room_outlook.RoomOutlook]],
        *,
        clock: clock_port.MonotonicClock,
        seconds_max: float = SECONDS_MAX,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._look = look
        self._now = clock.monotonic_seconds
        self._seconds_max = seconds_max
        self.poll_seconds = poll_seconds
        self._looking = asyncio.Lock()
        self._seen: room_outlook.RoomOutlook | None = None
        self._seen_until = 0.0
        self._fruitless: room_outlook.RoomOutlook | None = None
        """What a whole wait has seen and nothing else."""
        self._is_over = False

    def end(self) -> None:
        """Let nobody wait any longer: the process stops."""
        self._is_over = True

    async def until_there_is(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Try until there is room.

        Raises:
            StoreFullError: there is none, and none on its way.
            OverloadedError: zones come back, but not fast enough for this write.
        """
        waiting: Waiting | None = None
        while True:
            try:
                return await attempt()
            except errors.StoreFullError as exc:
                cause = exc
            waiting = await self.patience(waiting, cause)
            await asyncio.sleep(self.poll_seconds)

    async def patience(self, waiting: Waiting | None, cause: errors.StoreFullError) -> Waiting:
        """The wait to go on with after another refusal.

        Args:
            waiting: What this returned after the refusal before; None at the first one.

        Raises:
            StoreFullError, OverloadedError: as ``until_there_is``.
        """
        outlook = await self._outlook()
        if self._is_over or not outlook.is_coming or outlook == self._fruitless:
            raise cause
        now = self._now()
        if waiting is None:
            return Waiting(now + self._seconds_max, outlook)
        if now < waiting.until_seconds:
            return waiting
        if outlook == waiting.first:
            self._fruitless = outlook
            raise cause
        raise errors.OverloadedError(
            f"zones come back more slowly than writes need them: {cause}; try again later",
            retry_after_seconds=self._seconds_max,
        ) from cause

    async def _outlook(self) -> room_outlook.RoomOutlook:
        async with self._looking:
            began = self._now()
            if self._seen is None or began >= self._seen_until:
                self._seen = await self._look()
                now = self._now()
                self._seen_until = now + max(LOOK_SECONDS, (now - began) / LOOKING_SHARE_MAX)
            return self._seen
