"""Erasure-coding geometry: pure arithmetic over k, m, chunks and byte ranges.

A stripe holds ``data_bytes`` user bytes as k data chunks of ``chunk_bytes`` each (the last ones
zero-padded) and m parity chunks. The code is systematic: user byte ``i`` of a stripe is byte
``i % chunk_bytes`` of data chunk ``i // chunk_bytes``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from couchestor_domain import errors, units

SHARDS_COUNT_MAX: Final = 32
"""k + m at most: liberasurecode's limit, and enough for any failure domain count in use."""


class ChunkRange(NamedTuple):
    """The part of one data chunk that a read needs."""

    shard_index: int
    start_bytes: int
    length_bytes: int


@dataclass(frozen=True, slots=True)
class StripeGeometry:
    """k data and m parity shards.

    Raises:
        InvalidEcConfigurationError: k < 1, m < 1 or k + m above the limit.
    """

    data_shards: int
    parity_shards: int

    def __post_init__(self) -> None:
        if self.data_shards < 1 or self.parity_shards < 1 or self.shards_count > SHARDS_COUNT_MAX:
            raise errors.InvalidEcConfigurationError(
                f"{self.data_shards}+{self.parity_shards} is not a usable coding: "
                f"data and parity shards must each be at least 1 and at most "
                f"{SHARDS_COUNT_MAX} together"
            )

    @property
    def shards_count(self) -> int:
        """k + m."""
        return self.data_shards + self.parity_shards

    @property
    def overhead_ratio(self) -> float:
        """Raw bytes per user byte: (k + m) / k."""
        return self.shards_count / self.data_shards

    def chunk_bytes(self, data_bytes: int) -> int:
        """Chunk size of a stripe of ``data_bytes`` user bytes: block-aligned, never empty."""
        per_shard = units.ceil_div(data_bytes, self.data_shards)
        return max(units.BLOCK_BYTES, units.align_up(per_shard, units.BLOCK_BYTES))

    def chunk_ranges(
        self, *, chunk_bytes: int, start_bytes: int, length_bytes: int
    ) -> Iterator[ChunkRange]:
        """Data-chunk ranges that hold user bytes [start, start + length) of a stripe, in order."""
        end_bytes = start_bytes + length_bytes
        while start_bytes < end_bytes:
            index, inside = divmod(start_bytes, chunk_bytes)
            taken = min(chunk_bytes - inside, end_bytes - start_bytes)
            yield ChunkRange(index, inside, taken)
            start_bytes += taken

    def __str__(self) -> str:
        return f"{self.data_shards}+{self.parity_shards}"


@functools.lru_cache(maxsize=64)  # Asked for every stripe.
def shrink_to_healthy(wanted: StripeGeometry, healthy_devices_count: int) -> StripeGeometry | None:
    """Widest geometry that keeps m parity on the devices that are left, or None below 1 + m.

    Durability is never traded for space: with fewer than k + m healthy devices new groups open
    with fewer data shards and the same parity.
    """
    data_shards = min(wanted.data_shards, healthy_devices_count - wanted.parity_shards)
    if data_shards < 1:
        return None
    return StripeGeometry(data_shards, wanted.parity_shards)
