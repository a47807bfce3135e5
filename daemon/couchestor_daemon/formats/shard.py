"""A shard: one device's part of a stripe, at a 4 KiB-aligned offset of its zone.

    [header, zero-padded to a multiple of 4 KiB][chunk, chunk_bytes]

header: frame magic CSTSHARD, version 1 (formats.frame); payload, little-endian:

    offset  bytes  field
    0       8      group id
    8       8      offset of the shard in its zone (the same in every zone of the group)
    16      8      writer epoch
    24      8      logical address of the stripe's first data byte
    32      4      data bytes of the stripe (before padding)
    36      4      chunk bytes
    40      4      bytes per checksum block
    44      1      shard index: below k data, from k on parity
    45      1      k
    46      1      m
    47      1      codec id
    48      8*n    XXH3-64 of each block of the chunk, the last one possibly shorter

A stale or misplaced shard never passes for another: group ids are never reused and the header
names group, offset and index.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

import xxhash

from couchestor_daemon.formats import frame
from couchestor_domain import units

MAGIC: Final = b"CSTSHARD"
VERSION: Final = 1
FIXED: Final = struct.Struct("<QQQQIIIBBBB")
CHECKSUM_BLOCK_BYTES: Final = 16 * units.KIB
CHECKSUM_BYTES: Final = 8
assert FIXED.size == 48, FIXED.size
assert CHECKSUM_BLOCK_BYTES % units.BLOCK_BYTES == 0, CHECKSUM_BLOCK_BYTES


class ShardHeader(NamedTuple):
    """What a shard says about itself."""

    group_id: int
    stripe_offset_bytes: int
    writer_epoch: int
    extent_address: int
    data_bytes: int
    chunk_bytes: int
    checksum_block_bytes: int
    shard_index: int
    data_shards: int
    parity_shards: int
    codec_id: int
    checksums: tuple[int, ...]


def header_bytes(chunk_bytes: int) -> int:
    """Length of the padded header before a chunk; one block for an empty chunk."""
    blocks_count = units.ceil_div(chunk_bytes, CHECKSUM_BLOCK_BYTES)
    return units.align_up(
        frame.FRAME_BYTES + FIXED.size + CHECKSUM_BYTES * blocks_count, units.BLOCK_BYTES
    )


HEADER_BYTES_MAX: Final = header_bytes(units.GIB)
"""Of the longest chunk there can be: what claims more is not a shard."""


def shard_bytes(chunk_bytes: int) -> int:
    """Length of a whole shard on media."""
    return header_bytes(chunk_bytes) + chunk_bytes


def checksums(chunk: memoryview) -> tuple[int, ...]:
    """XXH3-64 of each checksum block of a chunk."""
    digest = xxhash.xxh3_64_intdigest
    return tuple(
        digest(chunk[start : start + CHECKSUM_BLOCK_BYTES])
        for start in range(0, len(chunk), CHECKSUM_BLOCK_BYTES)
    )


def pack(header: ShardHeader) -> bytes:
    """The header with its padding, ``header_bytes(header.chunk_bytes)`` long."""
    expected = units.ceil_div(header.chunk_bytes, header.checksum_block_bytes)
    assert len(header.checksums) == expected, (len(header.checksums), expected)
    payload = FIXED.pack(*header[:-1]) + struct.pack(f"<{expected}Q", *header.checksums)
    packed = frame.pack(MAGIC, version=VERSION, payload=payload)
    return packed.ljust(header_bytes(header.chunk_bytes), b"\0")


def unpack(view: memoryview) -> ShardHeader | None:
    """The header at the start of ``view``, or None when it is not one or does not verify."""
    found = frame.unpack(MAGIC, view)
    if found is None or found.version != VERSION or len(found.payload) < FIXED.size:
        return None
    fields = FIXED.unpack_from(found.payload)
    chunk_bytes, block_bytes = fields[5], fields[6]
    if block_bytes != CHECKSUM_BLOCK_BYTES:
        return None
    blocks_count = units.ceil_div(chunk_bytes, block_bytes)
    if len(found.payload) != FIXED.size + CHECKSUM_BYTES * blocks_count:
        return None
    return ShardHeader._make(
        (*fields, struct.unpack_from(f"<{blocks_count}Q", found.payload, FIXED.size))
    )


def verify_blocks(header: ShardHeader, first_block: int, view: memoryview) -> bool:
    """Whether ``view`` holds whole blocks of the chunk from block ``first_block`` on, unharmed.

    A view that ends inside a block (unless the chunk ends there) does not verify, nor an empty one.
    """
    block_bytes = header.checksum_block_bytes
    start = first_block * block_bytes
    length = len(view)
    end = start + length
    if length == 0 or end > header.chunk_bytes:
        return False
    if end % block_bytes and end != header.chunk_bytes:
        return False
    digest = xxhash.xxh3_64_intdigest
    expected = header.checksums
    for block, inside in enumerate(range(0, length, block_bytes), first_block):
        if digest(view[inside : inside + block_bytes]) != expected[block]:
            return False
    return True
