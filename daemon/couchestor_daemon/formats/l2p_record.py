"""Where a logical extent lies: the value of an L2P entry.

key    "p", extent address u64 big-endian (so that ranges scan in order)
value  kind u8, then by kind, little-endian:

kind 1, payload of a log batch            kind 2, part of a stripe
1   8  segment id                         1   8  group id
9   8  offset of the payload in the zone  9   8  offset of the stripe in its zones
17  4  length                             17  4  chunk bytes
21  8  XXH3-64 of the payload             21  4  data bytes of the whole stripe
                                          25  4  start inside the stripe's data
                                          29  4  length

kind 3, the same stored as one LZ4 block
1   32 as in kind 2; the length is that of the extent
33  4  stored bytes
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from couchestor_domain import errors, ids

TABLE: Final = b"p"
ADDRESS: Final = struct.Struct(">Q")
JOURNAL: Final = struct.Struct("<BQQIQ")
STRIPE: Final = struct.Struct("<BQQIIII")
LZ4: Final = struct.Struct("<BQQIIIII")
JOURNAL_KIND: Final = 1
STRIPE_KIND: Final = 2
LZ4_KIND: Final = 3


class JournalLocation(NamedTuple):
    """A payload in a log segment, the same on every replica."""

    segment_id: int
    offset_bytes: int
    length_bytes: int
    checksum: int

    @property
    def stored_bytes(self) -> int:
        """What the payload takes of the log."""
        return self.length_bytes


class StripeLocation(NamedTuple):
    """A range of a stripe's data."""

    group_id: int
    stripe_offset_bytes: int
    chunk_bytes: int
    data_bytes: int
    start_bytes: int
    length_bytes: int

    @property
    def stored_bytes(self) -> int:
        """What the extent takes of the stripe's data."""
        return self.length_bytes


class Lz4Location(NamedTuple):
    """A range of a stripe's data that holds an extent as one LZ4 block."""

    group_id: int
    stripe_offset_bytes: int
    chunk_bytes: int
    data_bytes: int
    start_bytes: int
    length_bytes: int
    """Of the extent."""
    stored_bytes: int
    """Of the block."""


Location = JournalLocation | StripeLocation | Lz4Location


def key(address: ids.ExtentAddress) -> bytes:
    """Index key of an extent."""
    return TABLE + ADDRESS.pack(address)


def address_of(location_key: bytes) -> ids.ExtentAddress:
    """Extent address in an index key made by ``key``."""
    return ids.ExtentAddress(ADDRESS.unpack_from(location_key, len(TABLE))[0])


def is_location_key(candidate: bytes) -> bool:
    """Whether an index key belongs to the L2P."""
    return len(candidate) == len(TABLE) + ADDRESS.size and candidate[:1] == TABLE


def pack(location: Location) -> bytes:
    """Encode a location."""
    if isinstance(location, JournalLocation):
        return JOURNAL.pack(JOURNAL_KIND, *location)
    if isinstance(location, Lz4Location):
        return LZ4.pack(LZ4_KIND, *location)
    return STRIPE.pack(STRIPE_KIND, *location)


def unpack(value: bytes) -> Location:
    """Decode a location. Raises IndexCorruptError."""
    try:
        if value[:1] == bytes([JOURNAL_KIND]):
            return JournalLocation(*JOURNAL.unpack(value)[1:])
        if value[:1] == bytes([STRIPE_KIND]):
            return StripeLocation(*STRIPE.unpack(value)[1:])
        if value[:1] == bytes([LZ4_KIND]):
            return Lz4Location(*LZ4.unpack(value)[1:])
    except struct.error as exc:
        raise errors.IndexCorruptError(
            f"an L2P entry of {len(value)} bytes does not decode; run `couchestor recover`"
        ) from exc
    raise errors.IndexCorruptError(
        f"an L2P entry has the unknown kind {value[:1]!r}; run `couchestor recover`"
    )
