"""Since when the reads of a process use what they looked up, so that zones come back sooner.

A zone that nothing refers to any more is left alone for a grace, because reads may use places they
looked up before (docs/adr/0006). When every process can say that none of its reads does, the rest
of the grace is for nobody.
"""

from __future__ import annotations

import itertools


class PlacesInUse:
    """The lookups of one process that reads still go by.

    ``begin`` from the event loop; a ``Use`` may end on any thread.

    Args:
        forgotten_seconds: A use that is older counts no more: the grace of whatever it could
            protect is over.
    """

    def __init__(self, *, forgotten_seconds: float) -> None:
        self._forgotten_seconds = forgotten_seconds
        # Every access is one operation of a dictionary, which threads cannot cut in two.
        self._begun: dict[int, float] = {}
        self._numbers = itertools.count()

    def begin(self, now_seconds: float) -> Use:
        """Call in one go with the lookup, without an await in between."""
        return Use(self._begun, next(self._numbers), now_seconds)

    def horizon_seconds(self, now_seconds: float) -> float:
        """No read of this process goes by a lookup from before this moment."""
        forgotten = now_seconds - self._forgotten_seconds
        begun = [each for each in list(self._begun.values()) if each > forgotten]
        return min(begun, default=now_seconds)


class Use:
    """Held by whoever goes by a lookup; it ends with its last holder."""

    __slots__ = ("_begun", "_number")

    def __init__(self, begun: dict[int, float], number: int, now_seconds: float) -> None:
        self._begun = begun
        self._number = number
        begun[number] = now_seconds

    def __del__(self) -> None:
        self._begun.pop(self._number, None)
