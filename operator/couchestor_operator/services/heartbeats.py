"""Tells a loop that is stuck from one that lives: each says in time that it has come round."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from couchestor_operator.ports import monotonic_clock

Beat = Callable[[], None]


@dataclass(slots=True, kw_only=True)
class _Loop:
    within_seconds: float
    last_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """A loop that has not been heard of in time."""

    loop: str
    silent_seconds: float
    within_seconds: float


class Heartbeats:
    """The loops of a process. A loop that does not run is not expected to be heard of."""

    def __init__(self, clock: monotonic_clock.MonotonicClock) -> None:
        self._clock = clock
        self._loops: dict[str, _Loop] = {}

    @contextlib.contextmanager
    def expected(self, loop: str, *, within_seconds: float) -> Iterator[Beat]:
        """Expect a loop to beat, from now to the end of the block.

        Args:
            within_seconds: Between two beats, at most.
        """
        assert loop not in self._loops, loop
        known = _Loop(within_seconds=within_seconds, last_seconds=self._clock.monotonic_seconds())
        self._loops[loop] = known

        def beat() -> None:
            known.last_seconds = self._clock.monotonic_seconds()

        try:
            yield beat
        finally:
            del self._loops[loop]

    def silences(self) -> list[Silence]:
        """Every loop that is late."""
        now_seconds = self._clock.monotonic_seconds()
        return [
            Silence(
                loop=name,
                silent_seconds=now_seconds - loop.last_seconds,
                within_seconds=loop.within_seconds,
            )
            for name, loop in sorted(self._loops.items())
            if now_seconds - loop.last_seconds > loop.within_seconds
        ]
