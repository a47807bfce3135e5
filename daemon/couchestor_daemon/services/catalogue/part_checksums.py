"""ETag and checksums of a multipart object from those of its parts.

Source: Amazon S3 User Guide, "Checking object integrity": COMPOSITE is the algorithm over the
concatenated raw part checksums followed by the part count; FULL_OBJECT combines CRCs.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from awscrt import checksums as crt

from couchestor_domain import objects


def _crc32(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(4, "big")


def _crc32c(data: bytes) -> bytes:
    return int(crt.crc32c(data)).to_bytes(4, "big")


def _sha1(data: bytes) -> bytes:
    return hashlib.sha1(data, usedforsecurity=False).digest()


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


_COMPOSITE: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "crc32": _crc32,
    "crc32c": _crc32c,
    "sha1": _sha1,
    "sha256": _sha256,
}
_COMBINE: Final[Mapping[str, tuple[Callable[[int, int, int], int], int]]] = {
    "crc32": (crt.combine_crc32, 4),
    "crc32c": (crt.combine_crc32c, 4),
    "crc64nvme": (crt.combine_crc64nvme, 8),
}
"""CRC of a concatenation from both CRCs and the second length; bytes of a value."""


def etag(parts: Sequence[objects.PartRecord]) -> str:
    """MD5 of the parts' binary MD5s, and how many."""
    joined = b"".join(bytes.fromhex(part.etag) for part in parts)
    return f"{hashlib.md5(joined, usedforsecurity=False).hexdigest()}-{len(parts)}"


def of_parts(parts: Sequence[objects.PartRecord]) -> tuple[Mapping[str, str], ...]:
    """The parts' own checksums in order, or nothing when no part has any."""
    if not any(part.checksums for part in parts):
        return ()
    return tuple(part.checksums for part in parts)


def of_object(algorithm: str, kind: str, parts: Sequence[objects.PartRecord]) -> dict[str, str]:
    """The object's checksum, or nothing when a part has none or the kind does not exist.

    Args:
        algorithm: Lower case.
        kind: ``COMPOSITE`` or ``FULL_OBJECT``.
    """
    if not algorithm or any(algorithm not in part.checksums for part in parts):
        return {}
    raw = [base64.b64decode(part.checksums[algorithm]) for part in parts]
    if kind == "COMPOSITE" and algorithm in _COMPOSITE:
        value = base64.b64encode(_COMPOSITE[algorithm](b"".join(raw))).decode()
        return {algorithm: f"{value}-{len(parts)}"}
    if kind == "FULL_OBJECT" and algorithm in _COMBINE:
        combine, width_bytes = _COMBINE[algorithm]
        total = int.from_bytes(raw[0], "big")
        for part, piece in zip(parts[1:], raw[1:], strict=True):
            total = combine(total, int.from_bytes(piece, "big"), part.size_bytes)
        return {algorithm: base64.b64encode(total.to_bytes(width_bytes, "big")).decode()}
    return {}
