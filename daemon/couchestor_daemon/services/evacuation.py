"""Emptying one source after the other: what is alive in them goes to new stripes.

The end of one source shares a stripe with the beginning of the next, so that stripes are full.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

from couchestor_daemon.services import relocation
from couchestor_daemon.services.catalogue import l2p


class Source(Protocol):
    """Finds live entries; see ``segment_source`` and ``group_source``."""

    def entries(self) -> AsyncIterator[list[l2p.Entry]]:
        """Lists that are not empty."""
        ...


NextSource = Callable[[], Source | None]


class Evacuation:
    """One worker's way through its sources.

    Memory: a few stripes' worth of entries, not their bytes.

    Args:
        stripe_bytes: Entries are gathered until they fill a stripe of this size.
    """

    def __init__(self, moving: relocation.Relocation, *, stripe_bytes: int) -> None:
        self._relocation = moving
        self._stripe_bytes = stripe_bytes
        self._walk: AsyncIterator[list[l2p.Entry]] | None = None
        self._gathered: list[l2p.Entry] = []
        self._gathered_bytes = 0

    async def step(self, next_source: NextSource) -> relocation.Moved | None:
        """Move as many stripes as ``moving`` does at once; None when nothing is left to move.

        Args:
            next_source: The next one to empty, each once; None when no other is due.

        Raises:
            CouchestorError: as ``Relocation.move``, of the first that failed, after all have ended;
                what was not moved is tried again.
        """
        while not self._is_enough():
            if self._walk is None:
                source = next_source()
                if source is None:
                    break
                self._walk = source.entries()
            found = await self._advance(self._walk)
            if found is None:
                self._walk = None
                continue
            self._gathered += found
            self._gathered_bytes += sum(entry.location.length_bytes for entry in found)
        if not self._gathered:
            return None
        return await self._move(self._stripes())

    async def _move(self, stripes: Sequence[Sequence[l2p.Entry]]) -> relocation.Moved:
        """What was moved in all."""
        total = relocation.Moved(taken_count=0)
        failure: BaseException | None = None
        left = self._gathered[sum(map(len, stripes)) :]
        ended = await asyncio.gather(
            *(self._relocation.move(stripe) for stripe in stripes), return_exceptions=True
        )
        unmoved: list[l2p.Entry] = []
        for stripe, outcome in zip(stripes, ended, strict=True):
            if isinstance(outcome, BaseException):
                unmoved += stripe
                failure = failure or outcome
            else:
                total.add(outcome)
        self._keep([*unmoved, *left])
        if failure is not None:
            raise failure
        return total

    def _keep(self, entries: list[l2p.Entry]) -> None:
        self._gathered = entries
        self._gathered_bytes = sum(entry.location.length_bytes for entry in entries)

    def _stripes(self) -> list[list[l2p.Entry]]:
        """The first entries as they fit in stripes; the rest of a walk that goes on waits for more.

        At least one stripe.
        """
        stripes: list[list[l2p.Entry]] = []
        position = 0
        while position < len(self._gathered) and len(stripes) < self._relocation.stripes_count:
            rest = self._gathered[position : position + relocation.ENTRIES_PER_STRIPE_MAX]
            count = self._relocation.fitting_count(rest)
            is_last = position + count == len(self._gathered)
            filled_bytes = sum(entry.location.length_bytes for entry in rest[:count])
            if stripes and is_last and filled_bytes < self._stripe_bytes and self._walk is not None:
                break
            stripes.append(rest[:count])
            position += count
        return stripes

    def _is_enough(self) -> bool:
        count = self._relocation.stripes_count
        return (
            self._gathered_bytes >= count * self._stripe_bytes
            or len(self._gathered) >= count * relocation.ENTRIES_PER_STRIPE_MAX
        )

    async def _advance(self, walk: AsyncIterator[list[l2p.Entry]]) -> list[l2p.Entry] | None:
        try:
            return await anext(walk, None)
        except BaseException:
            # A generator that was cut off has ended: the source is walked again when it is due.
            self._walk = None
            raise
