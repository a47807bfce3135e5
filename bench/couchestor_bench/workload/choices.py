"""The next operation and its key, drawn beforehand in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

import numpy as np

from couchestor_bench.workload import keys

_BATCH_COUNT: Final = 4096


class Choice(NamedTuple):
    """An operation on one key."""

    operation: str
    key_index: int


def endless(
    mix: Mapping[str, float], draw: keys.Draw, random: np.random.Generator
) -> Iterator[Choice]:
    """Operations in proportion to their weights, keys as ``draw`` has them."""
    names = list(mix)
    bounds = np.cumsum(list(mix.values()))
    while True:
        chosen = np.searchsorted(bounds, random.random(_BATCH_COUNT) * bounds[-1], side="right")
        indexes = draw(random, _BATCH_COUNT)
        for at, key_index in zip(chosen.tolist(), indexes.tolist(), strict=True):
            yield Choice(names[at], key_index)


def once(operation: str, key_indexes: Iterable[int]) -> Iterator[Choice]:
    """One operation on each key."""
    for key_index in key_indexes:
        yield Choice(operation, key_index)


class LivingKeys:
    """Which keys have an object, of a workload that deletes.

    A key that was drawn and has none, or is in use, gives way to the next one that will do. So no
    request is sent that must fail, and no object is deleted under a reader of ours.

    Args:
        key_indexes: The keys of this generator; no other generator touches them.
    """

    def __init__(self, key_indexes: range) -> None:
        self._keys = key_indexes
        self._living = [True] * len(key_indexes)
        self._in_use = [0] * len(key_indexes)
        self.living_count = len(key_indexes)

    def admit(self, choice: Choice) -> Choice | None:
        """The choice, on a key that will do; None when there is none. End it with ``release``."""
        first = choice.key_index % len(self._keys)
        for step in range(len(self._keys)):
            place = (first + step) % len(self._keys)
            if self._suits(choice.operation, place):
                break
        else:
            return None
        if choice.operation == "delete":
            self._set(place, False)
        self._in_use[place] += 1
        return Choice(choice.operation, self._keys[place])

    def release(self, choice: Choice, *, succeeded: bool) -> None:
        """The operation on that key, as ``admit`` gave it, has ended."""
        place = self._keys.index(choice.key_index)
        self._in_use[place] -= 1
        if choice.operation == "put" and succeeded:
            self._set(place, True)

    def _suits(self, operation: str, place: int) -> bool:
        living, in_use = self._living[place], self._in_use[place] > 0
        if operation == "delete":
            return living and not in_use
        # A PUT beside a DELETE of the same key: nobody could say which of them came last.
        return living or (operation == "put" and not in_use)

    def _set(self, place: int, alive: bool) -> None:
        self.living_count += alive - self._living[place]
        self._living[place] = alive
