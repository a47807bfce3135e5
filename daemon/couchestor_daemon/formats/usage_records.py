"""Index records about what buckets and tenants hold and may hold, and how their keys are made.

Table x of the index:

    x  "b", ns u64          usage of a bucket
    x  "t", tenant id       usage of all buckets of a tenant together

    +---------+-------+-----------+-------------+-----------------+-------------------+
    | version | flags | bytes u64 | objects u64 | bytes at most   | objects at most   |
    |         |       |           |             | u64, NO_LIMIT   | u64, NO_LIMIT     |
    +---------+-------+-----------+-------------+-----------------+-------------------+

Big-endian. The one flag is that of a bucket whose usage counts into its tenant's. Of a fixed length
because each write of an object changes one or two of them.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from couchestor_daemon.formats import media_records
from couchestor_domain import errors

TABLE: Final = b"x"
VERSION: Final = 1
NO_LIMIT: Final = 2**64 - 1
_BUCKET: Final = TABLE + b"b"
_TENANT: Final = TABLE + b"t"
_RECORD: Final = struct.Struct(">BBQQQQ")
_OF_TENANT: Final = 1
_UNLIMITED: Final = struct.pack(">QQ", NO_LIMIT, NO_LIMIT)
_LIMITS_OFFSET: Final = _RECORD.size - len(_UNLIMITED)


class Usage(NamedTuple):
    """What is held, and how much may be."""

    size_bytes: int = 0
    objects_count: int = 0
    size_bytes_max: int = NO_LIMIT
    objects_count_max: int = NO_LIMIT
    is_of_tenant: bool = False
    """Whether it is a bucket's and counts into the usage of its tenant."""

    @property
    def is_limited(self) -> bool:
        """Whether there is a quota."""
        return self.size_bytes_max != NO_LIMIT or self.objects_count_max != NO_LIMIT


def bucket(bucket_id: int) -> bytes:
    """Key of a bucket's usage."""
    return _BUCKET + media_records.U64.pack(bucket_id)


def tenant(tenant_id: str) -> bytes:
    """Key of a tenant's usage."""
    return _TENANT + tenant_id.encode()


def pack(usage: Usage) -> bytes:
    """Encode."""
    return _RECORD.pack(VERSION, _OF_TENANT if usage.is_of_tenant else 0, *usage[:4])


def unpack(value: bytes) -> Usage:
    """Decode. Raises IndexCorruptError."""
    if len(value) != _RECORD.size or value[0] != VERSION:
        raise errors.IndexCorruptError(
            f"the index holds a usage of an unknown version {value[:1]!r}; run `couchestor recover`"
        )
    _, flags, size_bytes, objects_count, bytes_max, count_max = _RECORD.unpack(value)
    return Usage(size_bytes, objects_count, bytes_max, count_max, bool(flags & _OF_TENANT))


def is_of_tenant(value: bytes) -> bool:
    """The flag of an encoded usage, which nearly every write looks at."""
    return value[1] & _OF_TENANT != 0


def is_limited(value: bytes) -> bool:
    """Whether there is a quota in an encoded usage."""
    return value[_LIMITS_OFFSET:] != _UNLIMITED


def shifted(value: bytes, size_bytes: int, objects_count: int) -> bytes:
    """One with so much more, or less; never below nothing. Raises IndexCorruptError."""
    usage = unpack(value)
    return _RECORD.pack(
        VERSION,
        value[1],
        max(usage[0] + size_bytes, 0),
        max(usage[1] + objects_count, 0),
        usage[2],
        usage[3],
    )
