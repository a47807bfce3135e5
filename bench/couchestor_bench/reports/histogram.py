"""Latencies counted in buckets: bounded memory, mergeable, three significant digits.

    value in ns     0 .. 2,047      2,048 .. 4,095    4,096 .. 8,191   ...
    bucket width    1               2                 4                ...
    buckets         2,048           1,024             1,024            ...

The layout is that of an HDR histogram: each doubling of the value has the same number of buckets,
so a bucket is at most 1/1024 of its value wide.

Source: G. Tene, HdrHistogram, https://hdrhistogram.org
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from couchestor_domain import units

_HALF: Final = 1024
"""Buckets for each doubling: two more than a thousand keep three significant digits."""
VALUE_NS_MAX: Final = (1 << 43) - 1
"""Some two hours and a half; longer ones are counted as this."""
_HALF_BITS: Final = _HALF.bit_length() - 1
BUCKETS_COUNT: Final = (VALUE_NS_MAX.bit_length() - _HALF_BITS - 1 + 2) * _HALF


def bucket_of(value_ns: int) -> int:
    """Index of the bucket that counts a value of 0 to ``VALUE_NS_MAX``."""
    shift = max(0, value_ns.bit_length() - _HALF_BITS - 1)
    return shift * _HALF + (value_ns >> shift)


def highest_of(bucket_index: int) -> int:
    """The largest value in ns that a bucket counts."""
    shift = max(0, bucket_index // _HALF - 1)
    return ((bucket_index - shift * _HALF + 1) << shift) - 1


_State = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], tuple[int, int, int, int]]
"""Used buckets alone: a process sends one for each second."""


class Histogram:
    """Counts of values in nanoseconds. Smallest, largest and sum are exact."""

    __slots__ = ("_counts", "count", "max_ns", "min_ns", "sum_ns")

    def __init__(self) -> None:
        self._counts = np.zeros(BUCKETS_COUNT, dtype=np.int64)
        self.count = 0
        self.sum_ns = 0
        self.min_ns = VALUE_NS_MAX
        self.max_ns = 0

    def record_seconds(self, values: npt.ArrayLike) -> None:
        """Count many values given in seconds; negative ones, of clocks read crosswise, as 0."""
        seconds = np.asarray(values, dtype=np.float64)
        if not seconds.size:
            return
        found = np.clip(np.rint(seconds * units.NS_PER_SECOND), 0, VALUE_NS_MAX).astype(np.int64)
        # frexp's exponent is the bit length, exact for whole numbers below 2^53.
        shifts = np.maximum(0, np.frexp(found.astype(np.float64))[1] - _HALF_BITS - 1)
        indexes = shifts * _HALF + (found >> shifts)
        self._counts += np.bincount(indexes, minlength=BUCKETS_COUNT)
        self.count += int(found.size)
        self.sum_ns += int(found.sum())
        self.min_ns = min(self.min_ns, int(found.min()))
        self.max_ns = max(self.max_ns, int(found.max()))

    def merge(self, other: Histogram) -> None:
        """Add what another one counted, such as another process's."""
        self._counts += other._counts
        self.count += other.count
        self.sum_ns += other.sum_ns
        self.min_ns = min(self.min_ns, other.min_ns)
        self.max_ns = max(self.max_ns, other.max_ns)

    def percentile_ns(self, percent: float) -> int:
        """The value that ``percent`` of all values are not above: nearest rank, never interpolated.

        It is the highest value of its bucket, so at most 1/1024 above the exact one and never below
        it. 0 when nothing was counted.
        """
        if not self.count:
            return 0
        # Whole numbers: 99.9 % of 1,000 is rank 999, not 1,000 by a rounding.
        thousandths = round(percent * 1000)
        rank = max(1, -(-self.count * thousandths // 100_000))
        bucket = int(np.searchsorted(np.cumsum(self._counts), rank))
        return max(self.min_ns, min(highest_of(bucket), self.max_ns))

    def percentile_ms(self, percent: float) -> float:
        """As ``percentile_ns``, in milliseconds."""
        return self.percentile_ns(percent) / 1e6

    @property
    def mean_ms(self) -> float:
        """Exact; 0 when nothing was counted."""
        return self.sum_ns / self.count / 1e6 if self.count else 0.0

    def pairs(self) -> list[list[int]]:
        """``[bucket index, count]`` of buckets that counted anything, for JSON and for pipes."""
        used = np.flatnonzero(self._counts)
        counts = self._counts[used].tolist()
        return [[index, count] for index, count in zip(used.tolist(), counts, strict=True)]

    @classmethod
    def of(
        cls,
        pairs: Iterable[Sequence[int]],
        *,
        sum_ns: int = 0,
        min_ns: int = VALUE_NS_MAX,
        max_ns: int = VALUE_NS_MAX,
    ) -> Self:
        """From what ``pairs`` gave. Raises ValueError for a bucket that there is not."""
        made = cls()
        for index, count in pairs:
            if not 0 <= index < BUCKETS_COUNT or count < 0:
                raise ValueError(f"there is no bucket {index} that counts {count}")
            made._counts[index] += count
        made.count = int(made._counts.sum())
        made.sum_ns, made.min_ns, made.max_ns = sum_ns, min_ns, max_ns
        return made

    def __getstate__(self) -> _State:
        used = np.flatnonzero(self._counts)
        return used, self._counts[used], (self.count, self.sum_ns, self.min_ns, self.max_ns)

    def __setstate__(self, state: _State) -> None:
        used, counts, (self.count, self.sum_ns, self.min_ns, self.max_ns) = state
        self._counts = np.zeros(BUCKETS_COUNT, dtype=np.int64)
        self._counts[used] = counts
