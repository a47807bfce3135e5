"""Groups rebuilt at the same time: while one waits for a zone, a flush or a commit, others keep the
devices and the codec busy.

A lane takes one group after the other. Which ones go on beside one another is said by
``rebuild_order``; the lanes of the others pause, and hold their fresh zones but no memory.

At the end of a step nothing is under way at a device and no memory is lent. What the lanes borrow
meanwhile is one part of the pool that all repairing shares (``buffers.PoolPart``), which bounds it
however many there are: a lane for which there is none waits for the next step, while others go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from couchestor_daemon.services import (
    in_flight,
    member_rebuild,
    member_replacement,
    rebuild_order,
    repair_tools,
    replacement_zones,
)
from couchestor_domain import errors, event_publisher

logger = logging.getLogger(__name__)

STEP_SECONDS: Final = member_rebuild.STEP_SECONDS
"""In one step lanes go on for so long, each at its own pace; every one of them once at least."""


class Lane:
    """One group after the other.

    Args:
        on_failed, on_replaced: As of ``MemberReplacement``.
    """

    def __init__(
        self,
        tools: repair_tools.Tools,
        *,
        zones: replacement_zones.ReplacementZones,
        publisher: event_publisher.EventPublisher,
        on_failed: Callable[[Lane, member_rebuild.MemberRebuild, Exception], None],
        on_replaced: Callable[[Lane, member_rebuild.MemberRebuild], None],
    ) -> None:
        self.need: rebuild_order.Need | None = None
        """Of the group that was begun last."""
        self.began_seconds = 0.0
        """When that was, on the clock of whoever began it."""
        self.replacement = member_replacement.MemberReplacement(
            tools,
            zones=zones,
            publisher=publisher,
            on_failed=lambda work, why: on_failed(self, work, why),
            on_replaced=lambda work: on_replaced(self, work),
        )

    @property
    def under_way(self) -> rebuild_order.Need | None:
        """Of the group that is being rebuilt."""
        return None if self.replacement.work is None else self.need


Begin = Callable[[Lane], Awaitable[float]]
"""Has an idle lane take up the next group, if there is one; see ``MemberReplacement.step``."""


class RebuildLanes:
    """As many as there are groups under way; made as they are needed, and kept.

    Args:
        make: An idle lane.
    """

    def __init__(self, make: Callable[[], Lane]) -> None:
        self._make = make
        self._lanes: list[Lane] = []
        self._turn = asyncio.Lock()
        """Groups are begun one by one: each is the most urgent one that is left."""
        self._went_on = False
        """Whether any lane did, in this step."""
        self._is_short = False
        """Whether one has waited for memory: then nothing more is begun in this step."""

    @property
    def under_way(self) -> list[Lane]:
        """Lanes that have a group, the paused ones too."""
        return [lane for lane in self._lanes if lane.under_way is not None]

    @property
    def needs(self) -> list[rebuild_order.Need]:
        """Of the groups under way."""
        return [need for lane in self._lanes if (need := lane.under_way) is not None]

    @property
    def done_bytes(self) -> int:
        """Written so far, to all groups."""
        return sum(lane.replacement.done_bytes for lane in self._lanes)

    async def step(self, begin: Begin, *, queue: list[rebuild_order.Need]) -> float:
        """Go on with the groups under way that need not pause, and begin others.

        Args:
            queue: What there is to begin, the most urgent first.

        Returns:
            As a step of ``services.background``.

        Raises:
            CouchestorError: one could not go on and has been given up, and no other is under way.

        Cancellation: what was going on has been given up; what paused goes on with the next step.
        """
        until = asyncio.get_running_loop().time() + STEP_SECONDS
        chosen = self._chosen(queue)
        self._went_on, self._is_short = False, False
        waits: list[float] = []
        failures: list[errors.CouchestorError] = []
        async with in_flight.InFlight[float | errors.CouchestorError]() as turns:
            for lane in chosen:
                turns.begin(self._run(lane, begin, until))
            while turns:
                outcome = await turns.first()
                turns.take()
                if isinstance(outcome, errors.CouchestorError):
                    failures.append(outcome)
                else:
                    waits.append(outcome)
        if failures and not self.under_way:
            raise failures[0]
        for failure in failures:
            logger.warning("one group waits for its rebuild, others go on: %s", failure)
        if self.under_way:
            return 0.0 if self._went_on else member_replacement.MEMORY_SECONDS
        return min(waits)

    def _chosen(self, queue: list[rebuild_order.Need]) -> list[Lane]:
        """The lanes of this step."""
        known = [*self.needs, *queue[:1]]
        chosen = [
            lane
            for lane in self._lanes
            if (need := lane.under_way) is not None and rebuild_order.goes_on(need, known)
        ]
        # One looks for something to begin when there is nothing.
        idle_count = min(rebuild_order.GROUPS_AT_ONCE - len(chosen), len(queue))
        idle_count = max(idle_count, not chosen)
        idle = [lane for lane in self._lanes if lane.under_way is None]
        while len(idle) < idle_count:
            idle.append(self._make())
            self._lanes.append(idle[-1])
        return chosen + idle[:idle_count]

    async def _run(
        self, lane: Lane, begin: Begin, until_seconds: float
    ) -> float | errors.CouchestorError:
        """Go on with one lane; what its last step returned or raised."""
        now_seconds = asyncio.get_running_loop().time
        try:
            while True:
                is_idle = lane.under_way is None
                async with self._turn if is_idle else contextlib.nullcontext():
                    if is_idle and self._is_short:
                        return 0.0
                    wait_seconds = await lane.replacement.step(
                        lambda: begin(lane), until_seconds=until_seconds
                    )
                if wait_seconds:
                    self._is_short |= lane.under_way is not None
                    return wait_seconds
                self._went_on = True
                if now_seconds() >= until_seconds:
                    return 0.0
        except errors.CouchestorError as exc:
            return exc
