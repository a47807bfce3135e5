"""Buckets."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Final

import msgspec

from couchestor_daemon.formats import index_keys, index_records, media_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services.catalogue import key_space
from couchestor_domain import errors, objects

_KEPT_COUNT: Final = 1024
"""Buckets kept decoded, by their stored bytes: each request looks one up, some twice."""


def create_bucket(
    txn: index_port.IndexWriter, *, name: str, owner: str, region: str, now_ns: int
) -> objects.BucketRecord:
    """Raises BucketAlreadyExistsError with ``context['owner']``."""
    key = index_keys.bucket(name)
    value = txn.get(key)
    if value is not None:
        existing = index_records.unpack(index_records.Bucket, value)
        raise errors.BucketAlreadyExistsError(
            f"bucket {name} exists already", bucket=name, owner=existing.owner
        )
    stored = index_records.Bucket(
        bucket_id=key_space.new_namespace(txn), owner=owner, created_ns=now_ns, region=region
    )
    txn.put(key, index_records.pack(stored))
    return _to_domain(name, stored)


def delete_bucket(txn: index_port.IndexWriter, name: str) -> None:
    """Raises NoSuchBucketError, BucketNotEmptyError (objects or uploads remain)."""
    bucket_id = find(txn, name).bucket_id
    for table, what in (
        (index_keys.OBJECTS, "objects"),
        (index_keys.HISTORY_KEYS, "versions of objects"),
        (index_keys.UPLOAD_KEYS, "multipart uploads under way"),
    ):
        if not key_space.is_empty(txn, table, bucket_id):
            raise errors.BucketNotEmptyError(f"bucket {name} still has {what}", bucket=name)
    for key, _ in list(txn.scan(*_settings_range(bucket_id))):
        txn.delete(key)
    txn.delete(index_keys.bucket(name))


def get_bucket(reader: index_port.IndexReader, name: str) -> objects.BucketRecord:
    """Raises NoSuchBucketError."""
    return _to_domain(name, find(reader, name))


def set_versioning(txn: index_port.IndexWriter, name: str, versioning: objects.Versioning) -> None:
    """Enable or suspend versioning. Raises NoSuchBucketError."""
    assert versioning is not objects.Versioning.NEVER, "what was enabled leaves traces"
    stored = find(txn, name)
    changed = msgspec.structs.replace(stored, versioning=versioning.value)
    txn.put(index_keys.bucket(name), index_records.pack(changed))


def get_setting(reader: index_port.IndexReader, name: str, setting: objects.Setting) -> bytes:
    """A setting as it was put. Raises NoSuchBucketError, NoSuchSettingError."""
    value = reader.get(index_keys.setting(find(reader, name).bucket_id, setting.value))
    if value is None:
        raise errors.NoSuchSettingError(
            f"bucket {name} has no {setting.value}", bucket=name, setting=setting.value
        )
    return value


def put_setting(
    txn: index_port.IndexWriter, name: str, setting: objects.Setting, value: bytes | None
) -> None:
    """Set or, with None, remove a setting. Raises NoSuchBucketError."""
    key = index_keys.setting(find(txn, name).bucket_id, setting.value)
    if value is None:
        txn.delete(key)
    else:
        txn.put(key, value)


def list_buckets(reader: index_port.IndexReader) -> Iterator[objects.BucketRecord]:
    """All buckets, by name."""
    for key, value in reader.scan(*media_records.table_range(index_keys.BUCKETS)):
        yield _to_domain(key[1:].decode(), index_records.unpack(index_records.Bucket, value))


def find(reader: index_port.IndexReader, name: str) -> index_records.Bucket:
    """The stored bucket. Raises NoSuchBucketError."""
    value = reader.get(index_keys.bucket(name))
    if value is None:
        raise errors.NoSuchBucketError(f"there is no bucket {name}", bucket=name)
    return _decoded(value)


def _settings_range(bucket_id: int) -> tuple[bytes, bytes]:
    return (
        index_keys.namespace(index_keys.SETTINGS, bucket_id),
        index_keys.namespace_stop(index_keys.SETTINGS, bucket_id),
    )


@functools.lru_cache(maxsize=_KEPT_COUNT)
def _decoded(value: bytes) -> index_records.Bucket:
    return index_records.unpack(index_records.Bucket, value)


@functools.lru_cache(maxsize=_KEPT_COUNT)
def _to_domain(name: str, stored: index_records.Bucket) -> objects.BucketRecord:
    return objects.BucketRecord(
        name=name,
        owner=stored.owner,
        created_ns=stored.created_ns,
        region=stored.region,
        versioning=objects.Versioning(stored.versioning),
    )
