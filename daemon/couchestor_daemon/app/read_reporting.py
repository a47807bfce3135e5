"""How far back the reads of workers look: told by each of them, asked by the release of zones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from couchestor_daemon.adapters import read_board
from couchestor_daemon.app import pace_keeping
from couchestor_daemon.services import places_in_use

PUBLISH_SECONDS: Final = 0.25


class ReadReporter:
    """Publishes the horizon of one worker for as long as it runs."""

    def __init__(
        self, slot: int, in_use: places_in_use.PlacesInUse, *, now: Callable[[], float]
    ) -> None:
        place = pace_keeping.folder()
        self._board = read_board.ReadBoardWriter(place, slot) if place else None
        self._in_use = in_use
        self._now = now

    async def run(self) -> None:
        """Until cancelled."""
        while self._board is not None:
            self._board.publish(self._in_use.horizon_seconds(self._now()))
            await asyncio.sleep(PUBLISH_SECONDS)

    def close(self) -> None:
        """Release the mapping; what was published last grows old."""
        if self._board is not None:
            self._board.close()


def horizon(workers_count: int) -> Callable[[], float]:
    """What ``Release`` asks. Without a folder that the workers share nobody can tell."""
    place = pace_keeping.folder()
    if place is None:
        return lambda: 0.0
    return read_board.ReadBoard(place, workers_count).horizon_seconds
