"""Emptying one source after the other: what is alive in them goes to new stripes, one at a time.

The end of one source shares a stripe with the beginning of the next, so that stripes are full.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
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

    Memory: a stripe's worth of entries, not their bytes.

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
        """Move one stripe; None when nothing is left to move.

        Args:
            next_source: The next one to empty, each once; None when no other is due.

        Raises:
            CouchestorError: as ``Relocation.move``; what was gathered is tried again.
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
        moved = await self._relocation.move(self._gathered)
        taken = self._gathered[: moved.taken_count]
        del self._gathered[: moved.taken_count]
        self._gathered_bytes -= sum(entry.location.length_bytes for entry in taken)
        return moved

    def _is_enough(self) -> bool:
        return (
            self._gathered_bytes >= self._stripe_bytes
            or len(self._gathered) >= relocation.ENTRIES_PER_STRIPE_MAX
        )

    async def _advance(self, walk: AsyncIterator[list[l2p.Entry]]) -> list[l2p.Entry] | None:
        try:
            return await anext(walk, None)
        except BaseException:
            # A generator that was cut off has ended: the source is walked again when it is due.
            self._walk = None
            raise
