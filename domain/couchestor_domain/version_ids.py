"""Ids of object versions: opaque to clients, sortable for the store.

    [order u64, big-endian][12 random bytes], as 32 characters of base32hex (RFC 4648, section 7)

The order is the wall clock of the commit in nanoseconds, raised where that is needed so that it
grows from each version of a key to the next. The random part keeps ids from being guessed.
"""

from __future__ import annotations

import base64
import binascii
import struct
from typing import Final

RANDOM_BYTES: Final = 12
_ORDER: Final = struct.Struct(">Q")
_ID_BYTES: Final = _ORDER.size + RANDOM_BYTES
_CHARACTERS_COUNT: Final = 32


def make(order: int, random: bytes) -> str:
    """The id of the version with this order; ``random`` has ``RANDOM_BYTES``."""
    assert len(random) == RANDOM_BYTES, len(random)
    return base64.b32hexencode(_ORDER.pack(order) + random).decode("ascii")


def order_of(version_id: str) -> int | None:
    """The order in an id that ``make`` made; None for what cannot be one."""
    if len(version_id) != _CHARACTERS_COUNT:
        return None
    try:
        raw = base64.b32hexdecode(version_id)
    except (binascii.Error, ValueError):
        return None
    return int(_ORDER.unpack_from(raw)[0]) if len(raw) == _ID_BYTES else None
