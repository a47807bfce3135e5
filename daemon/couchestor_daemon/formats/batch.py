"""A batch: the unit of the replicated log. Payloads of small writes travel with the mutations.

    offset  bytes  field                                     at a 4 KiB boundary of the zone
    0       8      magic "CSTBATCH"
    8       2      version (2)
    10      2      zero
    12      4      total bytes on media, a multiple of 4 KiB
    16      8      segment id
    24      8      sequence
    32      8      previous sequence: the batch this one was committed after
    40      4      payload bytes
    44      4      mutation bytes
    48      8      XXH3-64 of payloads and mutations, seeded
    56      8      XXH3-64 of bytes 0-55, seeded and tied to the offset in the zone
    64      p      payloads, back to back
    64+p    n      mutations: (op u8, key bytes u16, value bytes u32, key, value) ...
                   zero padding to the next 4 KiB

The seed is drawn per segment and kept in its zone header, so bytes a client uploads cannot pose as
a batch. The checksum of the header is tied to where the batch stands, so a write that a device
put in another place of the same zone cannot pose as the batch that was there (version 1 was not
tied to it and stays readable). Mutations are physical (keys and values of the index): replay needs
no decisions.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import xxhash

from couchestor_domain import units

MAGIC: Final = b"CSTBATCH"
VERSION: Final = 2
VERSION_WITHOUT_PLACE: Final = 1
HEADER: Final = struct.Struct("<8sHHIQQQIIQQ")
HEADER_BYTES: Final = HEADER.size
UNSIGNED_BYTES: Final = HEADER_BYTES - 8
MUTATION: Final = struct.Struct("<BHI")
PUT: Final = 1
DELETE: Final = 2
assert HEADER_BYTES == 64, HEADER_BYTES

Mutation = tuple[bytes, bytes | None]
"""Index key and its new value, or None for a deletion."""


class BatchHeader(NamedTuple):
    """A batch header whose own checksum verified."""

    total_bytes: int
    segment_id: int
    sequence: int
    previous: int
    payload_bytes: int
    mutation_bytes: int
    body_checksum: int


def pack_mutations(mutations: Iterable[Mutation]) -> bytes:
    """Encode mutations in order."""
    out = bytearray()
    for key, value in mutations:
        if value is None:
            out += MUTATION.pack(DELETE, len(key), 0)
            out += key
        else:
            out += MUTATION.pack(PUT, len(key), len(value))
            out += key
            out += value
    return bytes(out)


def unpack_mutations(data: memoryview) -> Iterator[Mutation]:
    """Decode verified mutation bytes."""
    position = 0
    while position < len(data):
        op, key_bytes, value_bytes = MUTATION.unpack_from(data, position)
        position += MUTATION.size
        key = bytes(data[position : position + key_bytes])
        position += key_bytes
        if op == DELETE:
            yield key, None
        else:
            yield key, bytes(data[position : position + value_bytes])
            position += value_bytes


def total_bytes(payload_bytes: int, mutation_bytes: int) -> int:
    """Bytes a batch takes on media."""
    return units.align_up(HEADER_BYTES + payload_bytes + mutation_bytes, units.BLOCK_BYTES)


def pack_into(
    out: memoryview,
    *,
    segment_id: int,
    sequence: int,
    previous: int,
    payloads: Sequence[bytes | memoryview],
    mutations: bytes,
    seed: int,
    offset_bytes: int,
) -> int:
    """Write the batch for ``offset_bytes`` of its zones at the start of ``out``; return its total
    bytes."""
    position = HEADER_BYTES
    for payload in payloads:
        out[position : position + len(payload)] = payload
        position += len(payload)
    payload_bytes = position - HEADER_BYTES
    out[position : position + len(mutations)] = mutations
    position += len(mutations)
    total = units.align_up(position, units.BLOCK_BYTES)
    out[position:total] = bytes(total - position)
    body_checksum = xxhash.xxh3_64_intdigest(out[HEADER_BYTES:position], seed=seed)
    fields = (
        MAGIC, VERSION, 0, total, segment_id, sequence, previous,
        payload_bytes, len(mutations), body_checksum,
    )  # fmt: skip
    HEADER.pack_into(out, 0, *fields, 0)
    signed = xxhash.xxh3_64_intdigest(out[:UNSIGNED_BYTES], seed=seed ^ offset_bytes)
    HEADER.pack_into(out, 0, *fields, signed)
    return total


def unpack_header(data: memoryview, *, seed: int, offset_bytes: int) -> BatchHeader | None:
    """The header at the start of ``data``, read at ``offset_bytes`` of a zone, when its own
    checksum verifies."""
    if len(data) < HEADER_BYTES or bytes(data[:8]) != MAGIC:
        return None
    (_, version, _, total, segment_id, sequence, previous, payload_bytes, mutation_bytes,
     body_checksum, signed) = HEADER.unpack_from(data)  # fmt: skip
    if version not in (VERSION, VERSION_WITHOUT_PLACE):
        return None
    place = offset_bytes if version == VERSION else 0
    if xxhash.xxh3_64_intdigest(data[:UNSIGNED_BYTES], seed=seed ^ place) != signed:
        return None
    return BatchHeader(
        total, segment_id, sequence, previous, payload_bytes, mutation_bytes, body_checksum
    )


def body_verifies(header: BatchHeader, data: memoryview, *, seed: int) -> bool:
    """Whether payloads and mutations behind the header are what was written."""
    end = HEADER_BYTES + header.payload_bytes + header.mutation_bytes
    if len(data) < end:
        return False
    return bool(xxhash.xxh3_64_intdigest(data[HEADER_BYTES:end], seed=seed) == header.body_checksum)


def mutations_of(header: BatchHeader, data: memoryview) -> memoryview:
    """The mutation bytes of a verified batch."""
    start = HEADER_BYTES + header.payload_bytes
    return data[start : start + header.mutation_bytes]
