"""How large objects are: one size, or a distribution of them.

A size belongs to a key, not to a request: it is drawn once, so that overwriting changes no size
and a reader knows what to expect.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from couchestor_daemon.app import option_values

EXAMPLES = "4KiB, uniform:4KiB-1MiB, 4KiB=70,1MiB=30 or lognormal:64KiB,1.5,16MiB"


class Sizes(Protocol):
    """A distribution of sizes in bytes."""

    @property
    def largest_bytes(self) -> int:
        """No size is above it."""
        ...

    def draw(self, random: np.random.Generator, count: int) -> npt.NDArray[np.int64]:
        """``count`` sizes, the same for the same state of ``random``."""
        ...


@dataclass(frozen=True, slots=True)
class Fixed:
    """All alike."""

    largest_bytes: int

    def draw(self, random: np.random.Generator, count: int) -> npt.NDArray[np.int64]:
        return np.full(count, self.largest_bytes, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Uniform:
    """Each size between two, both included, as likely as any other."""

    least_bytes: int
    largest_bytes: int

    def draw(self, random: np.random.Generator, count: int) -> npt.NDArray[np.int64]:
        return random.integers(self.least_bytes, self.largest_bytes, count, endpoint=True)


@dataclass(frozen=True, slots=True)
class Choice:
    """A few sizes, each with a weight."""

    sizes_bytes: tuple[int, ...]
    weights: tuple[float, ...]

    @property
    def largest_bytes(self) -> int:
        return max(self.sizes_bytes)

    def draw(self, random: np.random.Generator, count: int) -> npt.NDArray[np.int64]:
        shares = np.array(self.weights) / sum(self.weights)
        return random.choice(np.array(self.sizes_bytes, dtype=np.int64), size=count, p=shares)


@dataclass(frozen=True, slots=True)
class Lognormal:
    """Many small ones and a long tail: the logarithm of the size is normally distributed.

    Args:
        median_bytes: Half of all sizes are below.
        sigma: Standard deviation of the natural logarithm; 1.5 spreads a factor of twenty to
            either side over 95 % of all.
        largest_bytes: What is drawn above is cut to this.
    """

    median_bytes: int
    sigma: float
    largest_bytes: int

    def draw(self, random: np.random.Generator, count: int) -> npt.NDArray[np.int64]:
        found = random.lognormal(math.log(self.median_bytes), self.sigma, count)
        return np.clip(np.rint(found), 1, self.largest_bytes).astype(np.int64)


def parse(text: str) -> Sizes:
    """A distribution from how people write it (``EXAMPLES``).

    Raises:
        ValueError: What is wrong, with an example.
    """
    kind, colon, rest = text.partition(":")
    if not colon:
        return _choice(text) if "=" in text else Fixed(_size(text))
    if kind == "uniform":
        least, dash, most = rest.partition("-")
        if not dash or _size(least) > _size(most):
            raise ValueError(f"wants two sizes, the smaller one first: {EXAMPLES}")
        return Uniform(_size(least), _size(most))
    if kind == "lognormal":
        return _lognormal(rest.split(","))
    raise ValueError(f"is no distribution of sizes; write for example {EXAMPLES}")


def _lognormal(parts: list[str]) -> Lognormal:
    if len(parts) not in (2, 3):
        raise ValueError(f"wants a median and a spread, and a largest size maybe: {EXAMPLES}")
    median_bytes = _size(parts[0])
    sigma = _number(parts[1])
    # Without a limit one object in a million would take the memory of the generator.
    limit = _size(parts[2]) if len(parts) == 3 else int(median_bytes * math.exp(3 * sigma))
    if median_bytes < 1 or limit < median_bytes or not 0 < sigma <= 5:
        raise ValueError(f"wants a spread up to 5 and a limit above the median: {EXAMPLES}")
    return Lognormal(median_bytes, sigma, limit)


def _choice(text: str) -> Choice:
    pairs = [part.partition("=") for part in text.split(",")]
    weights = tuple(_number(weight) for _, _, weight in pairs)
    if any(weight < 0 for weight in weights) or not sum(weights):
        raise ValueError(f"wants weights of which one is above zero: {EXAMPLES}")
    return Choice(tuple(_size(size) for size, _, _ in pairs), weights)


def _size(text: str) -> int:
    try:
        return option_values.parse_size(text)
    except ValueError:
        raise ValueError(f"has a size that cannot be read, {text!r}: {EXAMPLES}") from None


def _number(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise ValueError(f"has a number that cannot be read, {text!r}: {EXAMPLES}")
    return found
