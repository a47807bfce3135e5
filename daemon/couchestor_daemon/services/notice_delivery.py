"""Brings the notices of one target to it: background work of the maintenance process.

Each is handed over at least once. It leaves the queue by a commit after its target has taken it, so
a crash between the two hands it over again. A notice that the target refuses stays and is offered
again later; those behind it are offered meanwhile, so one bad notice holds up none.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from couchestor_daemon.ports import index as index_port
from couchestor_daemon.ports import notice_target
from couchestor_daemon.services import commit_log, notice_queue
from couchestor_domain import notices, units

logger = logging.getLogger(__name__)

CONCURRENT_MAX: Final = 8
"""Messages under way to one target."""
WINDOW_COUNT: Final = 64
"""Notices that leave the queue by one commit."""
POLL_SECONDS: Final = 0.25
RETRY_SECONDS_MIN: Final = 1.0
RETRY_SECONDS_MAX: Final = 60.0


class Progress(NamedTuple):
    """What people see of a target."""

    waiting_count: int
    lost_count: int
    """Since the store was made."""
    delivered_count: int
    """By this step."""
    failed_count: int
    """By this step: attempts that the target did not answer with a 2xx."""
    oldest_age_seconds: float
    """Of what waits; 0.0: nothing does."""


class NoticeDelivery:
    """Implements ``BackgroundWork`` for one target.

    Args:
        encode: Makes the message of a notice.
        submit: Commits an operation through the group commit.
        now_ns: Wall clock, since the Unix epoch.
        on_progress: Told after each step that did something, and of the first one.
    """

    def __init__(
        self,
        target: str,
        taker: notice_target.NoticeTarget,
        *,
        index: index_port.IndexStore,
        encode: Callable[[notices.Notice], bytes],
        submit: Callable[[commit_log.Operation], Awaitable[object]],
        now_ns: Callable[[], int],
        on_progress: Callable[[Progress], None],
    ) -> None:
        self.name = f"notices for {target}"
        self._target = target
        self._taker = taker
        self._index = index
        self._encode = encode
        self._submit = submit
        self._now_ns = now_ns
        self._on_progress = on_progress
        self._told: tuple[int, int] | None = None
        self._lost_count = 0
        self._after = 0
        self._failures_count = 0
        self._refuses_some = False

    async def step(self) -> float:
        """Offer the next notices. Returns and raises as ``BackgroundWork.step``."""
        window = self._window()
        if not window:
            self._tell(delivered_count=0, failed_count=0)
            return POLL_SECONDS
        outcomes = await self._offer(window)
        taken = [each.key for each, refusal in zip(window, outcomes, strict=True) if not refusal]
        refusals = [refusal for refusal in outcomes if refusal]
        if taken:
            await self._submit(
                commit_log.Operation(
                    apply=lambda txn, _: notice_queue.remove(txn, self._target, taken),
                    uses_reserve=True,
                )
            )
        # Behind what was offered, from the front again once the end is reached.
        if self._failures_count:
            self._after = window[0].notice.sequence
        else:
            self._after = window[-1].notice.sequence if len(window) == WINDOW_COUNT else 0
        self._tell(delivered_count=len(taken), failed_count=len(refusals))
        return self._wait_seconds(refusals, taken_count=len(taken))

    def _window(self) -> list[notice_queue.Waiting]:
        """The next notices; while the target takes nothing, one, and the newest.

        That one shows that the target is back where it goes on refusing all that are older.
        """
        limit = 1 if self._failures_count else WINDOW_COUNT
        with self._index.read() as reader:
            found = notice_queue.waiting(reader, self._target, after=self._after, limit=limit)
            if not found and self._after:
                self._after = 0
                found = notice_queue.waiting(reader, self._target, limit=limit)
            newest = notice_queue.newest(reader, self._target) if self._failures_count else []
        return found + [each for each in newest if each not in found]

    async def _offer(self, window: list[notice_queue.Waiting]) -> list[str]:
        slots = asyncio.Semaphore(CONCURRENT_MAX)

        async def offer(notice: notices.Notice) -> str:
            async with slots:
                try:
                    return await self._taker.deliver(self._encode(notice))
                except Exception as exc:
                    # Whatever a target does, the other work of this process goes on.
                    logger.exception("notice %d for %s", notice.sequence, self._target)
                    return f"it failed in an unforeseen way: {type(exc).__name__}"

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(offer(each.notice)) for each in window]
        return [task.result() for task in tasks]

    def _wait_seconds(self, refusals: list[str], *, taken_count: int) -> float:
        if taken_count:
            if self._failures_count:
                logger.info("target %s of notices takes them again", self._target)
            self._failures_count = 0
            if not refusals:
                self._refuses_some = False
                return 0.0
            if not self._refuses_some:
                self._refuses_some = True
                logger.warning(
                    "target %s of notices does not take all: %s; it is offered them again",
                    self._target,
                    refusals[0],
                )
            return RETRY_SECONDS_MIN
        if not self._failures_count:
            logger.warning(
                "target %s of notices takes none: %s; they are kept and offered again",
                self._target,
                refusals[0],
            )
        wait_seconds = RETRY_SECONDS_MIN * 2.0 ** min(self._failures_count, 16)
        self._failures_count += 1
        return min(wait_seconds, RETRY_SECONDS_MAX)

    def _tell(self, *, delivered_count: int, failed_count: int) -> None:
        with self._index.read() as reader:
            totals = notice_queue.totals(reader, self._target)
            oldest = notice_queue.waiting(reader, self._target, limit=1)
        if totals.lost_count > self._lost_count:
            if self._told is not None:
                logger.error(
                    "%d notices for target %s are lost: as many as are kept were waiting",
                    totals.lost_count - self._lost_count,
                    self._target,
                )
            self._lost_count = totals.lost_count
        if self._told == totals and not (oldest or delivered_count or failed_count):
            return
        self._told = (totals.waiting_count, totals.lost_count)
        age_ns = self._now_ns() - oldest[0].notice.time_ns if oldest else 0
        self._on_progress(
            Progress(
                waiting_count=totals.waiting_count,
                lost_count=totals.lost_count,
                delivered_count=delivered_count,
                failed_count=failed_count,
                oldest_age_seconds=max(0.0, age_ns / units.NS_PER_SECOND),
            )
        )
