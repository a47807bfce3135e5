"""How long requests take in every process, readable by any other one while they run.

One file per worker slot, mapped by its writer and by readers: an array of counters, one for each
bucket of durations. A request costs one addition in memory, so that every request can be counted.
The counters only grow; a reader compares with what it saw last. They are native 64-bit items, each
written by one instruction of the one thread that counts: a reader sees the old number or the new.

    file latency-<slot>:  u64[BUCKETS_COUNT]; bucket i counts durations from bound i - 1 to bound i,
    bound i = 2 ** (i / 4) microseconds; the last bucket takes whatever is longer
"""

from __future__ import annotations

import bisect
import mmap
import os
import pathlib
from collections.abc import Sequence
from typing import Final, NamedTuple

from couchestor_domain import errors

BUCKETS_COUNT: Final = 108
BOUNDS_SECONDS: Final = tuple(2 ** (index / 4) * 1e-6 for index in range(BUCKETS_COUNT))
"""To two minutes; a quarter of a power of two apart, 19 %."""
_FILE_BYTES: Final = 8 * BUCKETS_COUNT
_PREFIX: Final = "latency-"


class LatencyRecorder:
    """The counters of one slot, going on from where an earlier process of the slot stopped.

    Raises:
        IndexFullError: no room for the file.
    """

    def __init__(self, folder: pathlib.Path, slot: int) -> None:
        self._map = _map(folder / f"{_PREFIX}{slot}")
        self._counts = memoryview(self._map).cast("Q")

    def observe(self, seconds: float) -> None:
        """Count one request."""
        self._counts[min(bisect.bisect_left(BOUNDS_SECONDS, seconds), BUCKETS_COUNT - 1)] += 1

    def close(self) -> None:
        """Release the mapping."""
        self._counts.release()
        self._map.close()


class Latencies(NamedTuple):
    """Requests since the look before."""

    counts: tuple[int, ...]

    @property
    def requests_count(self) -> int:
        """All of them."""
        return sum(self.counts)

    def percentile_seconds(self, percent: float) -> float:
        """Upper bound of the bucket that holds the percentile; 0.0 when there was no request."""
        rank = self.requests_count * percent / 100
        seen = 0
        for bound, count in zip(BOUNDS_SECONDS, self.counts, strict=True):
            seen += count
            if count and seen >= rank:
                return bound
        return 0.0


class LatencyBoard:
    """Reads the counters of all slots that there are."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self._seen = [0] * BUCKETS_COUNT
        self.take()

    def take(self) -> Latencies:
        """What came since the last call. Reads a few small files in memory."""
        now = [sum(column) for column in zip(*self._slots(), strict=True)] or self._seen
        # A file that is gone, because the folder was cleaned, must not look like negative time.
        fresh = tuple(max(0, new - old) for new, old in zip(now, self._seen, strict=True))
        self._seen = now
        return Latencies(fresh)

    def _slots(self) -> list[Sequence[int]]:
        found: list[Sequence[int]] = []
        for path in sorted(self._folder.glob(f"{_PREFIX}*")):
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                continue
            if len(content) == _FILE_BYTES:
                found.append(memoryview(content).cast("Q"))
        return found


def _map(path: pathlib.Path) -> mmap.mmap:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # Reserved, not just extended: a store into a hole of a full disk kills the process.
        os.posix_fallocate(fd, 0, _FILE_BYTES)
        return mmap.mmap(fd, _FILE_BYTES)
    except OSError as exc:
        raise errors.IndexFullError(f"no room for {path}: {exc.strerror}") from exc
    finally:
        os.close(fd)
