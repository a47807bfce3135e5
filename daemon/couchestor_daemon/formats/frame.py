"""The frame every on-media structure starts with: trust nothing before it verifies.

    offset  bytes  field
    0       8      magic, one per kind of structure
    8       2      version of the payload's layout
    10      2      kind-specific flags
    12      4      payload length in bytes
    16      8      XXH3-64 of bytes 0-15 and the payload, seeded
    24      n      payload

All integers on media are little-endian.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

import xxhash

FRAME: Final = struct.Struct("<8sHHIQ")
PREFIX: Final = struct.Struct("<8sHHI")
FRAME_BYTES: Final = FRAME.size
assert FRAME_BYTES == 24, FRAME_BYTES


class Frame(NamedTuple):
    """A verified frame."""

    version: int
    flags: int
    payload: memoryview
    total_bytes: int


def pack(magic: bytes, *, version: int, payload: bytes, flags: int = 0, seed: int = 0) -> bytes:
    """Frame ``payload``."""
    prefix = PREFIX.pack(magic, version, flags, len(payload))
    digest = xxhash.xxh3_64(prefix, seed=seed)
    digest.update(payload)
    return prefix + struct.pack("<Q", digest.intdigest()) + payload


def pack_around(
    out: memoryview,
    magic: bytes,
    *,
    version: int,
    payload_bytes: int,
    flags: int = 0,
    seed: int = 0,
) -> int:
    """Frame the payload that already stands behind the frame's place at the start of ``out``.

    Returns:
        Length of frame and payload.
    """
    total = FRAME_BYTES + payload_bytes
    PREFIX.pack_into(out, 0, magic, version, flags, payload_bytes)
    digest = xxhash.xxh3_64(out[: PREFIX.size], seed=seed)
    digest.update(out[FRAME_BYTES:total])
    FRAME.pack_into(out, 0, magic, version, flags, payload_bytes, digest.intdigest())
    return total


def announced_bytes(magic: bytes, buffer: memoryview) -> int:
    """Total length the frame at the start of ``buffer`` claims, 0 when there is none.

    The claim is unverified: use it only to decide how much to read before ``unpack``.
    """
    if len(buffer) < FRAME_BYTES:
        return 0
    found, _, _, length, _ = FRAME.unpack_from(buffer)
    return FRAME_BYTES + int(length) if found == magic else 0


def unpack(magic: bytes, buffer: memoryview, *, seed: int = 0) -> Frame | None:
    """The frame at the start of ``buffer``, or None when it does not verify."""
    total = announced_bytes(magic, buffer)
    if total == 0 or total > len(buffer):
        return None
    _, version, flags, _, checksum = FRAME.unpack_from(buffer)
    payload = buffer[FRAME_BYTES:total]
    digest = xxhash.xxh3_64(buffer[: PREFIX.size], seed=seed)
    digest.update(payload)
    if digest.intdigest() != checksum:
        return None
    return Frame(version, flags, payload, total)
