"""Passes over stripe groups at an interval, while the Lease is held."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from couchestor_domain import errors
from couchestor_operator.ports import monotonic_clock
from couchestor_operator.services import heartbeats, stripe_assigner

_LOG = logging.getLogger(__name__)


class Passes(Protocol):
    """Makes passes: see ``stripe_assigner.StripeAssigner``."""

    async def run(self) -> stripe_assigner.Summary:
        """Make one."""
        ...


class Audience(Protocol):
    """Hears what passes did."""

    def assigned(self, summary: stripe_assigner.Summary, *, seconds: float) -> None:
        """One was made."""
        ...

    def not_assigned(self, *, seconds: float) -> None:
        """One could not be made."""
        ...


class StripeLoop:
    """Use ``run`` while the Lease is held; cancelling it anywhere loses nothing.

    Args:
        pass_seconds: Between the beginnings of two passes, and at least a second after the end of
            one, however long that took.
        pass_seconds_max: A pass that takes longer is given up.
        beat: Called before and after every pass.
    """

    def __init__(
        self,
        *,
        passes: Passes,
        audience: Audience,
        clock: monotonic_clock.MonotonicClock,
        beat: heartbeats.Beat,
        pass_seconds: float,
        pass_seconds_max: float,
    ) -> None:
        self._passes = passes
        self._audience = audience
        self._clock = clock
        self._beat = beat
        self._pass_seconds = pass_seconds
        self._pass_seconds_max = pass_seconds_max
        self._problems: frozenset[str] = frozenset()
        self._faults: frozenset[str] = frozenset()
        self._lost: frozenset[str] = frozenset()

    async def run(self) -> None:
        """Until it is cancelled.

        Raises:
            CouchestorError: (or any other) nothing that waiting would mend.
        """
        while True:
            self._beat()
            started_seconds = self._clock.monotonic_seconds()
            summary = await self._pass()
            seconds = self._clock.monotonic_seconds() - started_seconds
            if summary is None:
                self._audience.not_assigned(seconds=seconds)
            else:
                self._audience.assigned(summary, seconds=seconds)
                self._tell(summary)
            self._beat()
            await asyncio.sleep(max(min(1.0, self._pass_seconds), self._pass_seconds - seconds))

    async def _pass(self) -> stripe_assigner.Summary | None:
        try:
            async with asyncio.timeout(self._pass_seconds_max):
                return await self._passes.run()
        except TimeoutError:
            _LOG.error(
                "a pass over stripe groups was given up after %g s: look at how fast the "
                "Kubernetes API and the nodes answer",
                self._pass_seconds_max,
            )
        except errors.TransientError as exc:
            _LOG.warning("a pass over stripe groups was not made: %s", exc)
        return None

    def _tell(self, summary: stripe_assigner.Summary) -> None:
        """Log what is new; all of it is in the figures."""
        for name in sorted(summary.lost - self._lost):
            _LOG.warning("node %s is lost: its shards get new places", name)
        for name in sorted(self._lost - summary.lost):
            _LOG.info("node %s is not lost any more", name)
        self._lost = summary.lost
        # By node: the words may hold numbers that change.
        faults = frozenset(summary.faults)
        for name in sorted(faults - self._faults):
            _LOG.warning("node %s says nothing: %s", name, summary.faults[name])
        for name in sorted(self._faults - faults):
            _LOG.info("node %s answers again", name)
        self._faults = faults
        problems = frozenset(summary.problems)
        for problem in sorted(problems - self._problems):
            _LOG.warning("%s", problem)
        self._problems = problems
