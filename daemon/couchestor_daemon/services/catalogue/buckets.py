"""Buckets."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from couchestor_daemon.formats import (
    access_records,
    index_keys,
    index_records,
    lock_records,
    media_records,
)
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services.catalogue import key_space, usage
from couchestor_domain import access as access_control
from couchestor_domain import errors, locking, objects

_KEPT_COUNT: Final = 1024
"""Buckets kept decoded, by their stored bytes: each request looks one up, some twice."""


def create_bucket(
    txn: index_port.IndexWriter,
    *,
    name: str,
    owner: str,
    region: str,
    now_ns: int,
    access: access_control.BucketAccess = access_control.PRIVATE,
    object_lock: locking.BucketLock | None = None,
) -> objects.BucketRecord:
    """Raises BucketAlreadyExistsError with ``context['owner']``, ``['access']``, ``['lock']``.

    Args:
        object_lock: A bucket that can lock versions keeps all of them from the begin.
    """
    key = index_keys.bucket(name)
    value = txn.get(key)
    if value is not None:
        existing = _to_domain(name, decoded(value))
        raise errors.BucketAlreadyExistsError(
            f"bucket {name} exists already",
            bucket=name,
            owner=existing.owner,
            access=existing.access,
            lock=existing.object_lock,
        )
    stored = index_records.Bucket(
        bucket_id=key_space.new_namespace(txn),
        owner=owner,
        created_ns=now_ns,
        region=region,
        versioning=(
            objects.Versioning.NEVER if object_lock is None else objects.Versioning.ENABLED
        ).value,
        object_lock=lock_records.bucket_to_stored(object_lock),
    )
    stored = _with_access(stored, access)
    txn.put(key, index_records.pack(stored))
    usage.begin_bucket(txn, stored)
    return _to_domain(name, stored)


def delete_bucket(txn: index_port.IndexWriter, name: str, *, owner: str = "") -> None:
    """Raises NoSuchBucketError, BucketNotEmptyError (objects or uploads remain)."""
    bucket_id = find(txn, name, owner=owner).bucket_id
    for table, what in (
        (index_keys.OBJECTS, "objects"),
        (index_keys.HISTORY_KEYS, "versions of objects"),
        (index_keys.UPLOAD_KEYS, "multipart uploads under way"),
    ):
        if not key_space.is_empty(txn, table, bucket_id):
            raise errors.BucketNotEmptyError(f"bucket {name} still has {what}", bucket=name)
    for key, _ in list(txn.scan(*_settings_range(bucket_id))):
        txn.delete(key)
    usage.end_bucket(txn, bucket_id)
    txn.delete(index_keys.bucket(name))


def get_bucket(reader: index_port.IndexReader, name: str) -> objects.BucketRecord:
    """Raises NoSuchBucketError."""
    return _to_domain(name, find(reader, name))


def set_versioning(
    txn: index_port.IndexWriter, name: str, versioning: objects.Versioning, *, owner: str = ""
) -> None:
    """Enable or suspend versioning.

    Raises:
        NoSuchBucketError
        InvalidBucketStateError: what can be locked must not be replaced.
    """
    assert versioning is not objects.Versioning.NEVER, "what was enabled leaves traces"
    stored = find(txn, name, owner=owner)
    if stored.object_lock is not None and versioning is not objects.Versioning.ENABLED:
        raise errors.InvalidBucketStateError(
            "An Object Lock configuration is present on this bucket, so the versioning state"
            " cannot be changed.",
            bucket=name,
        )
    changed = msgspec.structs.replace(stored, versioning=versioning.value)
    txn.put(index_keys.bucket(name), index_records.pack(changed))


def set_object_lock(
    txn: index_port.IndexWriter, name: str, lock: locking.BucketLock, *, owner: str = ""
) -> None:
    """Let versions of a bucket be locked, or replace how those are that say nothing.

    Raises:
        NoSuchBucketError
        InvalidBucketStateError: the bucket does not keep all versions.
    """
    stored = find(txn, name, owner=owner)
    if stored.versioning != objects.Versioning.ENABLED.value:
        raise errors.InvalidBucketStateError(
            "Versioning must be 'Enabled' on the bucket to apply a Object Lock configuration",
            bucket=name,
        )
    changed = msgspec.structs.replace(stored, object_lock=lock_records.bucket_to_stored(lock))
    txn.put(index_keys.bucket(name), index_records.pack(changed))


def change_access(
    txn: index_port.IndexWriter,
    name: str,
    change: Callable[[access_control.BucketAccess], access_control.BucketAccess],
    *,
    owner: str = "",
) -> None:
    """Replace who may use a bucket by what ``change`` makes of it.

    Raises NoSuchBucketError and whatever ``change`` raises.
    """
    stored = find(txn, name, owner=owner)
    changed = _with_access(stored, change(_to_domain(name, stored).access))
    txn.put(index_keys.bucket(name), index_records.pack(changed))


def get_setting(reader: index_port.IndexReader, name: str, setting: objects.Setting) -> bytes:
    """A setting as it was put. Raises NoSuchBucketError, NoSuchSettingError."""
    stored = find(reader, name)
    if setting in objects.RECORDED_SETTINGS:
        value = dict(stored.settings).get(setting.value)
    else:
        value = reader.get(index_keys.setting(stored.bucket_id, setting.value))
    if value is None:
        raise errors.NoSuchSettingError(
            f"bucket {name} has no {setting.value}", bucket=name, setting=setting.value
        )
    return value


def put_setting(
    txn: index_port.IndexWriter,
    name: str,
    setting: objects.Setting,
    value: bytes | None,
    *,
    owner: str = "",
) -> None:
    """Set or, with None, remove a setting. Raises NoSuchBucketError."""
    stored = find(txn, name, owner=owner)
    if setting in objects.RECORDED_SETTINGS:
        settings = dict(stored.settings)
        settings.pop(setting.value, None)
        if value is not None:
            settings[setting.value] = value
        changed = msgspec.structs.replace(stored, settings=tuple(sorted(settings.items())))
        txn.put(index_keys.bucket(name), index_records.pack(changed))
        return
    key = index_keys.setting(stored.bucket_id, setting.value)
    if value is None:
        txn.delete(key)
    else:
        txn.put(key, value)


def list_buckets(reader: index_port.IndexReader) -> Iterator[objects.BucketRecord]:
    """All buckets, by name."""
    for key, value in reader.scan(*media_records.table_range(index_keys.BUCKETS)):
        yield _to_domain(key[1:].decode(), index_records.unpack(index_records.Bucket, value))


def find(reader: index_port.IndexReader, name: str, *, owner: str = "") -> index_records.Bucket:
    """The stored bucket.

    Args:
        owner: Whose it was when the caller was allowed to use it. It may have been deleted since,
            and created again by somebody who allowed nothing. Empty: not checked.

    Raises:
        NoSuchBucketError: also when the bucket is another owner's.
    """
    value = reader.get(index_keys.bucket(name))
    if value is not None:
        stored = decoded(value)
        if not owner or stored.owner == owner:
            return stored
    raise errors.NoSuchBucketError(f"there is no bucket {name}", bucket=name)


def _with_access(
    stored: index_records.Bucket, access: access_control.BucketAccess
) -> index_records.Bucket:
    return msgspec.structs.replace(
        stored,
        acl=access_records.acl_to_stored(access.acl),
        ownership=access.ownership.value,
        public_access=access_records.block_to_stored(access.public_access),
        policy=access.policy,
    )


def _settings_range(bucket_id: int) -> tuple[bytes, bytes]:
    return (
        index_keys.namespace(index_keys.SETTINGS, bucket_id),
        index_keys.namespace_stop(index_keys.SETTINGS, bucket_id),
    )


def _settings(stored: index_records.Bucket) -> dict[str, Mapping[objects.Setting, bytes]]:
    """The settings of a record that has any; one of a later release is nobody's here."""
    if not stored.settings:
        return {}
    known = {setting.value: setting for setting in objects.RECORDED_SETTINGS}
    found = {known[name]: value for name, value in stored.settings if name in known}
    return {"settings": MappingProxyType(found)}


@functools.lru_cache(maxsize=_KEPT_COUNT)
def decoded(value: bytes) -> index_records.Bucket:
    """A stored bucket from its record."""
    return index_records.unpack(index_records.Bucket, value)


@functools.lru_cache(maxsize=_KEPT_COUNT)
def _to_domain(name: str, stored: index_records.Bucket) -> objects.BucketRecord:
    return objects.BucketRecord(
        name=name,
        owner=stored.owner,
        created_ns=stored.created_ns,
        region=stored.region,
        versioning=objects.Versioning(stored.versioning),
        access=access_control.BucketAccess(
            acl=access_records.acl_to_domain(stored.acl),
            ownership=access_control.Ownership(stored.ownership),
            public_access=access_records.block_to_domain(stored.public_access),
            policy=stored.policy,
        ),
        has_lifecycle=stored.has_lifecycle,
        object_lock=lock_records.bucket_to_domain(stored.object_lock),
        **_settings(stored),
    )
