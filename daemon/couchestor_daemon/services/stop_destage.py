"""Destage at an orderly stop: what lies in the log moves to stripes before the node ends.

Nothing depends on it: what stays is on all replicas of the log, and moves after the next start. So
it may be cut off at any point, and is, when its time is over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from couchestor_daemon.services import background
from couchestor_domain import errors

logger = logging.getLogger(__name__)

SETTLE_SECONDS: Final = 0.5
"""After a look that found nothing: the last requests may still be ending."""
EMPTY_LOOKS_COUNT: Final = 2


async def empty_log(works: Sequence[background.BackgroundWork], *, within_seconds: float) -> bool:
    """Step works until nothing is due any more; False when the time was too short, or an error
    ended it."""
    try:
        async with asyncio.timeout(within_seconds):
            for work in works:
                await _finish(work)
    except TimeoutError:
        logger.warning(
            "the log is not empty after %g s; what is left moves after the next start",
            within_seconds,
        )
        return False
    except errors.CouchestorError as exc:
        logger.warning("the log is not emptied, which the next start goes on with: %s", exc)
        return False
    logger.info("the log was emptied before the stop")
    return True


async def _finish(work: background.BackgroundWork) -> None:
    empty_looks = 0
    while empty_looks < EMPTY_LOOKS_COUNT:
        if await work.step() == 0.0:
            empty_looks = 0
            continue
        empty_looks += 1
        if empty_looks < EMPTY_LOOKS_COUNT:
            await asyncio.sleep(SETTLE_SECONDS)
