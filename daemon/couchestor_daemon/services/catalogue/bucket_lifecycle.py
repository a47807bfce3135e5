"""The rules of buckets' lifecycles.

They stand beside the bucket's record, which only says that there are some: every request reads the
record, and a thousand rules would make each of them slower.
"""

from __future__ import annotations

import functools
from typing import Final

import msgspec

from couchestor_daemon.formats import index_keys, index_records, lifecycle_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services.catalogue import buckets
from couchestor_domain import errors, lifecycle

_NAME: Final = "lifecycle"
"""Of the setting."""
_KEPT_COUNT: Final = 32
"""Configurations kept decoded, by their stored bytes."""


def put(
    txn: index_port.IndexWriter,
    name: str,
    configuration: lifecycle.Configuration | None,
    *,
    owner: str = "",
) -> None:
    """Replace the rules of a bucket or, with None, remove them.

    Args:
        owner: See ``buckets.find``.

    Raises:
        NoSuchBucketError
    """
    stored = buckets.find(txn, name, owner=owner)
    key = index_keys.setting(stored.bucket_id, _NAME)
    if configuration is not None:
        txn.put(key, lifecycle_records.pack(configuration))
    elif stored.has_lifecycle:
        txn.delete(key)
    if stored.has_lifecycle != (configuration is not None):
        changed = msgspec.structs.replace(stored, has_lifecycle=configuration is not None)
        txn.put(index_keys.bucket(name), index_records.pack(changed))


def get(reader: index_port.IndexReader, name: str) -> lifecycle.Configuration | None:
    """The rules of a bucket; None if it has none. Raises NoSuchBucketError, IndexCorruptError."""
    return of_bucket(reader, buckets.find(reader, name))


def of_bucket(
    reader: index_port.IndexReader, bucket: index_records.Bucket
) -> lifecycle.Configuration | None:
    """The rules of a bucket whose record has been read. Raises IndexCorruptError."""
    if not bucket.has_lifecycle:
        return None
    value = reader.get(index_keys.setting(bucket.bucket_id, _NAME))
    if value is None:
        raise errors.IndexCorruptError(
            f"the index lacks the lifecycle of bucket {bucket.bucket_id}; run `couchestor recover`"
        )
    return _decoded(value)


@functools.lru_cache(maxsize=_KEPT_COUNT)
def _decoded(value: bytes) -> lifecycle.Configuration:
    return lifecycle_records.unpack(value)
