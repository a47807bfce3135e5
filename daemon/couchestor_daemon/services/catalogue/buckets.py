"""Buckets."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from couchestor_daemon.formats import access_records, index_keys, index_records, media_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services.catalogue import key_space
from couchestor_domain import access as access_control
from couchestor_domain import errors, objects

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
) -> objects.BucketRecord:
    """Raises BucketAlreadyExistsError with ``context['owner']`` and ``context['access']``."""
    key = index_keys.bucket(name)
    value = txn.get(key)
    if value is not None:
        existing = _to_domain(name, _decoded(value))
        raise errors.BucketAlreadyExistsError(
            f"bucket {name} exists already",
            bucket=name,
            owner=existing.owner,
            access=existing.access,
        )
    stored = index_records.Bucket(
        bucket_id=key_space.new_namespace(txn), owner=owner, created_ns=now_ns, region=region
    )
    stored = _with_access(stored, access)
    txn.put(key, index_records.pack(stored))
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
    txn.delete(index_keys.bucket(name))


def get_bucket(reader: index_port.IndexReader, name: str) -> objects.BucketRecord:
    """Raises NoSuchBucketError."""
    return _to_domain(name, find(reader, name))


def set_versioning(
    txn: index_port.IndexWriter, name: str, versioning: objects.Versioning, *, owner: str = ""
) -> None:
    """Enable or suspend versioning. Raises NoSuchBucketError."""
    assert versioning is not objects.Versioning.NEVER, "what was enabled leaves traces"
    stored = find(txn, name, owner=owner)
    changed = msgspec.structs.replace(stored, versioning=versioning.value)
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
        stored = _decoded(value)
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
        access=access_control.BucketAccess(
            acl=access_records.acl_to_domain(stored.acl),
            ownership=access_control.Ownership(stored.ownership),
            public_access=access_records.block_to_domain(stored.public_access),
            policy=stored.policy,
        ),
        **_settings(stored),
    )
