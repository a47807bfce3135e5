"""Which key a request takes: all alike, or a few of them most of the time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

EXAMPLES: Final = "uniform or zipf:0.99"
_EXPONENT_MAX: Final = 5.0


Draw = Callable[[np.random.Generator, int], npt.NDArray[np.int64]]
"""Draws that many key indexes."""


class Keys(Protocol):
    """A distribution over keys ``0 .. keys_count - 1``."""

    def prepare(self, keys_count: int, random: np.random.Generator) -> Draw:
        """Draws over that many keys; the same for the same state of ``random``."""
        ...


@dataclass(frozen=True, slots=True)
class Uniform:
    """Every key as likely as any other."""

    def prepare(self, keys_count: int, random: np.random.Generator) -> Draw:
        return lambda draws, count: draws.integers(0, keys_count, count)


@dataclass(frozen=True, slots=True)
class Zipf:
    """The key of rank r is taken in proportion to ``1 / r ** exponent``.

    Which key has which rank is drawn, so that popular ones do not stand side by side.
    """

    exponent: float

    def prepare(self, keys_count: int, random: np.random.Generator) -> Draw:
        bounds = np.cumsum(1.0 / np.arange(1, keys_count + 1) ** self.exponent)
        bounds /= bounds[-1]
        by_rank = random.permutation(keys_count)

        def draw(draws: np.random.Generator, count: int) -> npt.NDArray[np.int64]:
            ranks = np.searchsorted(bounds, draws.random(count), side="right")
            return by_rank[np.minimum(ranks, keys_count - 1)]

        return draw


def parse(text: str) -> Keys:
    """A distribution from how people write it (``EXAMPLES``).

    Raises:
        ValueError: What is wrong, with an example.
    """
    kind, colon, rest = text.partition(":")
    if kind == "uniform" and not colon:
        return Uniform()
    if kind != "zipf":
        raise ValueError(f"is no distribution of keys; write {EXAMPLES}")
    try:
        exponent = float(rest) if colon else 0.99
    except ValueError:
        exponent = -1.0
    if not 0 < exponent <= _EXPONENT_MAX:
        raise ValueError(f"wants an exponent above 0 and up to {_EXPONENT_MAX:g}: {EXAMPLES}")
    return Zipf(exponent)
