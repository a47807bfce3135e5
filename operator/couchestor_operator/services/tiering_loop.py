"""What an operator does while it leads: passes at an interval, and looks at what is under way.

One thing at a time: a pass carries on what is under way, too. Nothing that has no answer ends the
loop, and nothing that takes too long holds it: what was not done is done at the next turn.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import Protocol, TypeVar

from couchestor_domain import errors
from couchestor_operator.ports import monotonic_clock
from couchestor_operator.services import heartbeats, tiering_pass

_LOG = logging.getLogger(__name__)

T = TypeVar("T")


class Passes(Protocol):
    """Makes passes: see ``tiering_pass.TieringPass``."""

    async def run(self) -> tiering_pass.Summary:
        """Make one."""
        ...


class Mover(Protocol):
    """Brings migrations on: see ``migrator.Migrator``."""

    async def tick_all(self) -> int:
        """All of them by one step. Returns: how many are under way."""
        ...


class Audience(Protocol):
    """Hears what passes did."""

    def passed(self, summary: tiering_pass.Summary, *, seconds: float) -> None:
        """One was made."""
        ...

    def missed(self, *, seconds: float) -> None:
        """One could not be made."""
        ...


class TieringLoop:
    """Use ``run`` while the Lease is held; cancelling it anywhere loses nothing.

    Args:
        pass_seconds: Between the beginnings of two passes.
        poll_seconds: Between two looks at what is under way.
        turn_seconds_max: A turn that takes longer is given up.
        beat: Called at every turn.
    """

    def __init__(
        self,
        *,
        passes: Passes,
        mover: Mover,
        audience: Audience,
        clock: monotonic_clock.MonotonicClock,
        beat: heartbeats.Beat,
        pass_seconds: float,
        poll_seconds: float,
        turn_seconds_max: float,
    ) -> None:
        self._passes = passes
        self._mover = mover
        self._audience = audience
        self._clock = clock
        self._beat = beat
        self._pass_seconds = pass_seconds
        self._poll_seconds = poll_seconds
        self._turn_seconds_max = turn_seconds_max

    async def run(self) -> None:
        """Until it is cancelled.

        Raises:
            CouchestorError: (or any other) nothing that waiting would mend.
        """
        next_pass_seconds = self._clock.monotonic_seconds()
        under_way_count = 0
        while True:
            self._beat()
            started_seconds = self._clock.monotonic_seconds()
            if started_seconds >= next_pass_seconds:
                under_way_count = await self._pass(started_seconds)
                next_pass_seconds = started_seconds + self._pass_seconds
            else:
                ticked = await self._in_time(self._mover.tick_all(), what="a look at migrations")
                under_way_count = under_way_count if ticked is None else ticked
            self._beat()
            wait_seconds = max(0.0, next_pass_seconds - self._clock.monotonic_seconds())
            if under_way_count > 0:
                wait_seconds = min(wait_seconds, self._poll_seconds)
            await asyncio.sleep(wait_seconds)

    async def _pass(self, started_seconds: float) -> int:
        """Returns: how many migrations are under way, as far as is known."""
        summary = await self._in_time(self._passes.run(), what="a pass")
        seconds = self._clock.monotonic_seconds() - started_seconds
        if summary is None:
            self._audience.missed(seconds=seconds)
            # There may be: a look tells.
            return 1
        self._audience.passed(summary, seconds=seconds)
        return summary.under_way_count + summary.begun_count

    async def _in_time(self, turn: Awaitable[T], *, what: str) -> T | None:
        try:
            async with asyncio.timeout(self._turn_seconds_max):
                return await turn
        except TimeoutError:
            _LOG.error(
                "%s was given up after %g s: look at how fast the Kubernetes API, Prometheus and "
                "the volume manager answer",
                what,
                self._turn_seconds_max,
            )
        except errors.TransientError as exc:
            _LOG.warning("%s was not made: %s", what, exc)
        return None
