"""A packed stripe: many extents in the data of one stripe, named by a table at its start.

The shards of such a stripe name ``ADDRESS`` in place of the address of their first data byte.

    data of the stripe
    +----------------------+---------+---------+-- - -
    | table, zero-padded   | payload | payload |
    +----------------------+---------+---------+-- - -
    0                      4 KiB-aligned, then 8-byte-aligned

table: frame magic CSTPACKD, version 1 (formats.frame); payload: entries in the order of their
starts, little-endian:

    offset  bytes  field
    0       8      extent address
    8       4      start in the data of the stripe
    12      4      stored bytes
    16      4      logical bytes
    20      4      flags: bit 0, stored as one LZ4 block

The table is padded to 4 KiB because most payloads are whole blocks: packed from a block boundary
on, a payload of 4 KiB lies in one checksum block of one chunk, and a read of it looks at nothing
else.
Payloads of other lengths are padded to 8 bytes, a word of what hashes and copies them.

The table serves who has no index entry in hand: a walk of the group. Reads go by the L2P.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from couchestor_daemon.formats import frame
from couchestor_domain import units

MAGIC: Final = b"CSTPACKD"
VERSION: Final = 1
ADDRESS: Final = 2**64 - 1
"""Extent address in the shards of a packed stripe: no real address gets there."""
ENTRY: Final = struct.Struct("<QIIII")
LZ4: Final = 1
PAYLOAD_ALIGNMENT_BYTES: Final = 8
ENTRIES_COUNT_MAX: Final = 4096
"""More make no table: what claims them is not one. Bounds a reader's memory."""
assert ENTRY.size == 24, ENTRY.size


class Entry(NamedTuple):
    """One extent of a packed stripe."""

    extent_address: int
    start_bytes: int
    stored_bytes: int
    logical_bytes: int
    is_lz4: bool


def table_bytes(entries_count: int) -> int:
    """Length of a table with its padding: where the first payload starts."""
    return units.align_up(frame.FRAME_BYTES + ENTRY.size * entries_count, units.BLOCK_BYTES)


TABLE_BYTES_MAX: Final = table_bytes(ENTRIES_COUNT_MAX)


def payload_bytes(stored_bytes: int) -> int:
    """What a payload takes of the stripe's data, with its padding."""
    return units.align_up(stored_bytes, PAYLOAD_ALIGNMENT_BYTES)


def pack(entries: Sequence[Entry]) -> bytes:
    """The table with its padding, ``table_bytes(len(entries))`` long."""
    assert 0 < len(entries) <= ENTRIES_COUNT_MAX, len(entries)
    payload = b"".join(
        ENTRY.pack(address, start, stored, logical, LZ4 if is_lz4 else 0)
        for address, start, stored, logical, is_lz4 in entries
    )
    packed = frame.pack(MAGIC, version=VERSION, payload=payload)
    return packed.ljust(table_bytes(len(entries)), b"\0")


def announced_bytes(view: memoryview) -> int:
    """Length of the table that the start of a stripe's data claims, 0 when it claims none.

    The claim is unverified: use it only to decide how much to read before ``unpack``.
    """
    announced = frame.announced_bytes(MAGIC, view)
    if announced > TABLE_BYTES_MAX:
        return 0
    return units.align_up(announced, units.BLOCK_BYTES)


def unpack(view: memoryview, *, data_bytes: int) -> tuple[Entry, ...] | None:
    """The entries of the table at the start of ``view``, or None when it does not verify.

    Args:
        data_bytes: Of the stripe. Every entry lies inside it and behind the table, none overlaps
            another.
    """
    found = frame.unpack(MAGIC, view)
    if found is None or found.version != VERSION or found.flags:
        return None
    count, rest = divmod(len(found.payload), ENTRY.size)
    if rest or not 0 < count <= ENTRIES_COUNT_MAX:
        return None
    entries = []
    end = table_bytes(count)
    for address, start, stored, logical, flags in ENTRY.iter_unpack(found.payload):
        whole = stored == logical if flags == 0 else 0 < stored < logical
        if flags not in (0, LZ4) or not whole or not end <= start <= start + stored <= data_bytes:
            return None
        entries.append(Entry(address, start, stored, logical, bool(flags)))
        end = start + stored
    return tuple(entries)
