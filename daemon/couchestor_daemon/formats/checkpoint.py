"""A checkpoint image: the whole index at one sequence, as a stream of blocks over zones.

    zone p of a copy                          (the same in every copy, but for the zone header)
    +-------------+---------+---------+-- - -
    | zone header | block   | block   |       the last block of the last zone is the end
    +-------------+---------+---------+-- - -
    0             4 KiB     4 KiB-aligned

    block: frame magic "CSTCHECK", version 1, flags 0 (entries) or 1 (end), seeded with the zone
    header's seed, zero-padded to the next 4 KiB; payload:

    offset  bytes  field
    0       8      checkpoint id
    8       8      sequence of the last batch in the image
    16      4      block number, from 0 through all zones
    20      4      part number: position of the zone in its copy, from 0
    24      n      entries: the next bytes of the stream, cut anywhere
                   end: entry count u64, stream bytes u64, XXH3-64 of the stream, seeded

    stream: (key bytes u16, value bytes u32, key, value) ... in the order of the keys

The seed is drawn per checkpoint, so that bytes of a client or of an earlier life of the zone cannot
pose as a block. An image counts only if every block up to the end verifies.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from couchestor_daemon.formats import frame
from couchestor_domain import units

MAGIC: Final = b"CSTCHECK"
VERSION: Final = 1
END_FLAG: Final = 1
FIXED: Final = struct.Struct("<QQII")
TOTALS: Final = struct.Struct("<QQQ")
ENTRY: Final = struct.Struct("<HI")
OVERHEAD_BYTES: Final = frame.FRAME_BYTES + FIXED.size
BLOCK_BYTES_MAX: Final = 512 * units.KIB
"""Longest block on media, padding included."""
assert OVERHEAD_BYTES == 48, OVERHEAD_BYTES
assert OVERHEAD_BYTES + TOTALS.size <= units.BLOCK_BYTES


class BlockHeader(NamedTuple):
    """Whose block it is and where it belongs."""

    checkpoint_id: int
    sequence: int
    number: int
    part_number: int


class Block(NamedTuple):
    """A verified block."""

    header: BlockHeader
    is_end: bool
    content: memoryview
    total_bytes: int


class Totals(NamedTuple):
    """What the end says of the stream before it."""

    entries_count: int
    stream_bytes: int
    checksum: int


def pack_into(
    out: memoryview,
    header: BlockHeader,
    content: bytes | bytearray | memoryview,
    *,
    seed: int,
    is_end: bool = False,
) -> int:
    """Write a block at the start of ``out`` and return its padded length."""
    FIXED.pack_into(out, frame.FRAME_BYTES, *header)
    end = OVERHEAD_BYTES + len(content)
    out[OVERHEAD_BYTES:end] = content
    frame.pack_around(
        out,
        MAGIC,
        version=VERSION,
        payload_bytes=FIXED.size + len(content),
        flags=END_FLAG if is_end else 0,
        seed=seed,
    )
    total = units.align_up(end, units.BLOCK_BYTES)
    out[end:total] = bytes(total - end)
    return total


def unpack(buffer: memoryview, *, seed: int) -> Block | None:
    """The block at the start of ``buffer``, or None when there is none that verifies."""
    found = frame.unpack(MAGIC, buffer, seed=seed)
    if found is None or found.version != VERSION or len(found.payload) < FIXED.size:
        return None
    return Block(
        BlockHeader(*FIXED.unpack_from(found.payload)),
        found.flags == END_FLAG,
        found.payload[FIXED.size :],
        units.align_up(found.total_bytes, units.BLOCK_BYTES),
    )


def unpack_totals(content: memoryview) -> Totals | None:
    """Totals in the content of an end block, or None when it has another length."""
    return Totals(*TOTALS.unpack(content)) if len(content) == TOTALS.size else None


def pack_entry(key: bytes, value: bytes) -> bytes:
    """One entry of the stream."""
    return ENTRY.pack(len(key), len(value)) + key + value


class EntryParser:
    """Entries out of a stream that arrives in pieces."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._wanted_bytes = ENTRY.size
        """How much there must be before there can be another entry."""

    @property
    def rest_bytes(self) -> int:
        """Bytes of an entry that has begun and not ended."""
        return len(self._rest)

    def feed(self, piece: memoryview) -> Iterator[tuple[bytes, bytes]]:
        """The entries that end in ``piece``; consume them before the next call."""
        self._rest += piece
        if len(self._rest) < self._wanted_bytes:
            # Not copied again for each piece of a long entry.
            return
        self._wanted_bytes = ENTRY.size
        data = bytes(self._rest)
        position = 0
        while len(data) - position >= ENTRY.size:
            key_bytes, value_bytes = ENTRY.unpack_from(data, position)
            start = position + ENTRY.size
            end = start + key_bytes + value_bytes
            if end > len(data):
                self._wanted_bytes = end - position
                break
            position = end
            yield data[start : start + key_bytes], data[start + key_bytes : end]
        del self._rest[:position]
