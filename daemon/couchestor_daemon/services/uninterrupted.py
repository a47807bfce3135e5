"""Work that a cancelled caller must wait for, because threads use memory the caller releases."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Await work that must not be left half-way: its threads still use the memory it releases.

    A cancellation is delivered once the work has ended.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError:
                continue  # Already on the way out.
        if not task.cancelled():
            task.exception()  # Read, so that it is not reported as never retrieved.
        raise
