"""Which payloads are stored compressed, and how: LZ4 where a sample promises a saving worth it.

A saving is paid for at every read, so only one that is large enough is kept. Longer payloads are
looked at first: bytes that are spread over all values, as in images, archives and what clients
encrypt, are left alone without a try. For short ones the look would cost more than the try: 6 us
against 2.5 us for 4 KiB of random bytes. No payload is so long that a read of a few bytes of it,
which decompresses all of it, would be slow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import lz4.block
import numpy as np

from couchestor_domain import errors, units

PAYLOAD_BYTES_MIN: Final = 256
"""Shorter ones cost more to look at than they could save."""
PAYLOAD_BYTES_MAX: Final = 256 * units.KIB
"""Longer ones stay as they are."""
SAMPLED_BYTES_MIN: Final = 16 * units.KIB
"""Shorter ones are tried without a look."""
SAMPLE_BYTES: Final = units.KIB
PROMISING_BITS_MAX: Final = 7.5
"""Entropy of a byte up to which compressing is tried. Random bytes show about 8, text 4 to 5,
base64 6, and there repetitions may still help."""


@dataclass(slots=True, kw_only=True)
class CompressionCounters:
    """What became of payloads that were moved, since the start of the process."""

    skipped_count: int = 0
    """Too short, too long, or not promising."""
    tried_count: int = 0
    kept_count: int = 0
    """Of those tried."""
    saved_bytes: int = 0


class Compression:
    """The policy of one process. Not thread-safe: one caller at a time.

    Args:
        saving_percent: Least saving that is kept; above 100: nothing is compressed.
    """

    def __init__(self, *, saving_percent: int) -> None:
        self._kept_percent_max = 100 - saving_percent
        self.counters = CompressionCounters()

    def compressed(self, payload: memoryview) -> bytes | None:
        """The payload as one LZ4 block, or None when it is to be stored as it is. CPU only."""
        counters = self.counters
        length = len(payload)
        if (
            self._kept_percent_max < 0
            or not PAYLOAD_BYTES_MIN <= length <= PAYLOAD_BYTES_MAX
            or (length >= SAMPLED_BYTES_MIN and not _is_promising(payload))
        ):
            counters.skipped_count += 1
            return None
        counters.tried_count += 1
        block: bytes = lz4.block.compress(payload, store_size=False)
        if 100 * len(block) > self._kept_percent_max * length or len(block) >= length:
            return None
        counters.kept_count += 1
        counters.saved_bytes += length - len(block)
        return block


def _is_promising(payload: memoryview) -> bool:
    return entropy_bits(payload[:SAMPLE_BYTES]) <= PROMISING_BITS_MAX


def entropy_bits(sample: memoryview) -> float:
    """Collision entropy of the bytes that a sample of at least two was drawn from: 0 for one value
    only, about 8 for random bytes, whatever the length of the sample.

    Below Shannon's for the same bytes, and sums of whole numbers only.
    """
    length = len(sample)
    counts = np.bincount(np.frombuffer(sample, dtype=np.uint8))
    collisions = int(counts.dot(counts)) - length
    return math.log2(length * (length - 1) / collisions) if collisions else math.inf


def decompressed(block: memoryview, *, length_bytes: int) -> memoryview:
    """The payload of a block made by ``Compression.compressed``.

    Raises:
        DecompressionError: the block is not one of a payload of that length.
    """
    try:
        payload: bytes = lz4.block.decompress(block, uncompressed_size=length_bytes)
    except lz4.block.LZ4BlockError as exc:
        raise errors.DecompressionError(
            f"a block of {len(block)} bytes verifies but is not the {length_bytes} bytes it "
            f"should be: {exc}; restore the object from elsewhere and report this"
        ) from exc
    if len(payload) != length_bytes:
        raise errors.DecompressionError(
            f"a block of {len(block)} bytes verifies but holds {len(payload)} bytes where "
            f"{length_bytes} are expected; restore the object from elsewhere and report this"
        )
    return memoryview(payload)
