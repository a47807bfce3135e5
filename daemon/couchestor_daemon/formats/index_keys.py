"""Every table of the index and how its keys are made.

The index is one ordered keyspace; the first byte of a key names the table. Integers in keys are
big-endian so that they sort. "ns" is a namespace: a u64 drawn from one counter, never reused.

    b  name                                   bucket: its ns, owner, ...
    a  ns, name                               a setting of a bucket
    o  ns, key part                           current version of an object (see key_space)
    h  ns, key part                           list id (u64) of a key's other versions
    e  list id u64, age u64                   one of those, delete markers too, newest first
    q  parts id u64, page u32                 parts of a completed object with many of them
    u  ns, key part                           list id (u64) of a key's uploads (see key_space)
    w  list id u64, initiated ns u64, id      uploads of one key, oldest first; no value
    i  upload id                              upload under way
    v  parts id u64, number u16               part of an upload under way
    c  upload id                              completed upload, while the version it became exists
    l  "g" or "s", id u64                     live bytes (u64) of a group or log segment
    p  extent address u64                     L2P (formats.l2p_record)
    y  kind, ...                              tenants, users, access keys (formats.identity_records)
    x  kind, ...                              usage and quotas (formats.usage_records)
    n t                                       notices that wait, and their totals
                                              (formats.notice_records)
    s g k z d r m                             segments, groups, checkpoints, zones, devices,
                                              repair queue, meta (formats.media_records)

S3 keys run to 1,024 bytes, index keys to 511, and the order must stay that of the whole keys. In
tables o, h and u a key of at most ``KEY_PART_BYTES`` is one entry; of a longer one the first
``KEY_PART_BYTES`` and ``CHILD_MARK`` name an entry that holds the namespace of the rest. The mark
makes that entry sort after the key that ends there and before every other key.
"""

from __future__ import annotations

import struct
from typing import Final

from couchestor_daemon.formats import (
    identity_records,
    l2p_record,
    media_records,
    usage_records,
)
from couchestor_daemon.ports import index as index_port

BUCKETS: Final = b"b"
SETTINGS: Final = b"a"
OBJECTS: Final = b"o"
HISTORY_KEYS: Final = b"h"
HISTORY: Final = b"e"
OBJECT_PARTS: Final = b"q"
UPLOAD_KEYS: Final = b"u"
UPLOAD_LISTS: Final = b"w"
UPLOADS: Final = b"i"
UPLOAD_PARTS: Final = b"v"
COMPLETED: Final = b"c"
LIVE_BYTES: Final = b"l"
NOTICES: Final = b"n"
NOTICE_TOTALS: Final = b"t"

TABLES: Final = (
    *(
        BUCKETS,
        SETTINGS,
        OBJECTS,
        HISTORY_KEYS,
        HISTORY,
        OBJECT_PARTS,
        UPLOAD_KEYS,
        UPLOAD_LISTS,
        UPLOADS,
        UPLOAD_PARTS,
    ),
    *(NOTICES, NOTICE_TOTALS),
    *(COMPLETED, LIVE_BYTES, l2p_record.TABLE, media_records.SEGMENTS, media_records.GROUPS),
    *(media_records.CHECKPOINTS, media_records.ZONES, media_records.DEVICES),
    *(media_records.REPAIRS, media_records.META, identity_records.TABLE),
    usage_records.TABLE,
)
assert len(set(TABLES)) == len(TABLES), TABLES

NAMESPACE_KEY: Final = media_records.META + b"namespace"
"""Last namespace drawn (u64); also numbers parts ids and list ids."""

U64: Final = media_records.U64
_ORDER_MAX: Final = 2**64 - 1
_PAGE: Final = struct.Struct(">1sQI")
_PART: Final = struct.Struct(">1sQH")

KEY_PART_BYTES: Final = 480
CHILD_MARK: Final = b"\x01"
assert 1 + U64.size + KEY_PART_BYTES + len(CHILD_MARK) <= index_port.KEY_BYTES_MAX


def bucket(name: str) -> bytes:
    """Key of a bucket."""
    return BUCKETS + name.encode()


def namespace(table: bytes, number: int) -> bytes:
    """What every key of a namespace, parts id or list id starts with."""
    return table + U64.pack(number)


def namespace_stop(table: bytes, number: int) -> bytes:
    """First possible key behind ``namespace(table, number)``."""
    return table + U64.pack(number + 1)


def setting(bucket_id: int, name: str) -> bytes:
    """Key of a setting of a bucket."""
    return SETTINGS + U64.pack(bucket_id) + name.encode()


def history_entry(list_id: int, order: int) -> bytes:
    """Key of a version that is not current; the age is what its order lacks to the largest."""
    return HISTORY + U64.pack(list_id) + U64.pack(_ORDER_MAX - order)


def object_parts(parts_id: int, page_index: int) -> bytes:
    """Key of one page of a completed object's parts."""
    return _PAGE.pack(OBJECT_PARTS, parts_id, page_index)


def upload(upload_id: str) -> bytes:
    """Key of an upload under way."""
    return UPLOADS + upload_id.encode()


def upload_entry(list_id: int, initiated_ns: int, upload_id: str) -> bytes:
    """Key of an upload in the list of its object key."""
    return UPLOAD_LISTS + U64.pack(list_id) + U64.pack(initiated_ns) + upload_id.encode()


def upload_of_entry(key: bytes) -> str:
    """Upload id in a key made by ``upload_entry``."""
    return key[1 + 2 * U64.size :].decode()


def initiated_of_entry(key: bytes) -> int:
    """Time of initiation in a key made by ``upload_entry``, in nanoseconds."""
    return int(U64.unpack_from(key, 1 + U64.size)[0])


def upload_part(parts_id: int, number: int) -> bytes:
    """Key of a part of an upload under way."""
    return _PART.pack(UPLOAD_PARTS, parts_id, number)


def completed(upload_id: str) -> bytes:
    """Key of a completed upload."""
    return COMPLETED + upload_id.encode()


def group_live(group_id: int) -> bytes:
    """Key of a stripe group's live bytes."""
    return LIVE_BYTES + b"g" + U64.pack(group_id)


def segment_live(segment_id: int) -> bytes:
    """Key of a log segment's live bytes."""
    return LIVE_BYTES + b"s" + U64.pack(segment_id)
