"""What the maintenance process does beside the requests: works that are called again and again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final, Protocol

from couchestor_domain import errors

logger = logging.getLogger(__name__)

RETRY_SECONDS_MIN: Final = 1.0
RETRY_SECONDS_MAX: Final = 300.0
FULL_SECONDS_MAX: Final = 5.0


class BackgroundWork(Protocol):
    """One kind of background work.

    It runs on the event loop beside the others, so it neither blocks nor keeps threads of its own.
    """

    @property
    def name(self) -> str:
        """For logs and metrics, e.g. ``release``."""
        ...

    async def step(self) -> float:
        """Do a bounded amount of work: a few stripes, a few seconds at most.

        Cancellation: at any await, and leaves nothing wrong.

        Returns:
            Seconds until it is worth calling again; 0.0: there is more to do now.

        Raises:
            CouchestorError: it cannot go on now; called again after a while.
        """
        ...


class BackgroundRunner:
    """Calls each work again and again, each in a task of its own.

    Args:
        retry_seconds_min: Wait after the first failure of a work; each further one in a row
            doubles it.
    """

    def __init__(
        self, works: Sequence[BackgroundWork], *, retry_seconds_min: float = RETRY_SECONDS_MIN
    ) -> None:
        self._works = works
        self._retry_seconds_min = retry_seconds_min

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop``; what is under way then is cancelled. One that fails in an unforeseen way
        ends all of them."""
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._keep_doing(work), name=work.name) for work in self._works
            ]
            await stop.wait()
            for task in tasks:
                task.cancel()

    async def _keep_doing(self, work: BackgroundWork) -> None:
        failures_count = 0
        told: set[type[errors.CouchestorError]] = set()
        while True:
            try:
                wait_seconds = await work.step()
            except errors.CouchestorError as exc:
                wait_seconds = self._retry_seconds_min * 2.0 ** min(failures_count, 16)
                # Zones come back after their grace, and work may be what makes them come back.
                is_full = isinstance(exc, errors.StoreFullError)
                wait_seconds = min(wait_seconds, FULL_SECONDS_MAX if is_full else RETRY_SECONDS_MAX)
                failures_count += 1
                # Once a kind: a full store is full for hours.
                if type(exc) not in told:
                    told.add(type(exc))
                    logger.warning("%s waits and tries again: %s", work.name, exc)
            else:
                if failures_count:
                    logger.info("%s goes on", work.name)
                failures_count = 0
                told.clear()
            await asyncio.sleep(wait_seconds)
