"""What changes about a version without it becoming another: tags, ACL, lock."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from couchestor_daemon.formats import access_records, index_keys, index_records, lock_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services.catalogue import (
    buckets,
    history,
    key_space,
    version_locks,
    versions,
)
from couchestor_domain import access, errors, locking, objects


def set_tags(
    txn: index_port.IndexWriter,
    bucket: str,
    key: str,
    version_id: str | None,
    tags: Mapping[str, str],
    *,
    bucket_owner: str = "",
) -> objects.ObjectRecord:
    """Replace the tags of a version, the current one by default.

    Returns:
        The version, without sizes and extents of parts that are stored apart.

    Raises:
        As ``get_version``.
    """
    found = buckets.find(txn, bucket, owner=bucket_owner)
    stored, is_current = versions.find_version(txn, found, bucket, key, version_id)
    stored = msgspec.structs.replace(stored, tags=dict(tags))
    _put_again(txn, found, key, stored, is_current=is_current)
    return index_records.object_to_domain(
        bucket, key, stored, is_named=versions.is_named(found), is_latest=is_current
    )


def set_acl(
    txn: index_port.IndexWriter, judged: objects.ObjectRecord, acl: access.Acl | None
) -> None:
    """Replace the ACL of a version.

    Args:
        judged: The version whose ACL allowed that.

    Raises:
        NoSuchBucketError, NoSuchKeyError, NoSuchVersionError.
        VersionGoneError: another version has its place by now, whose owner allowed nothing.
    """
    found = buckets.find(txn, judged.bucket)
    stored, is_current = versions.find_version(
        txn, found, judged.bucket, judged.key, judged.version_id
    )
    if (stored.owner, stored.modified_ns) != (judged.owner, judged.modified_ns):
        raise errors.VersionGoneError(
            f"key {judged.key} in bucket {judged.bucket} was written while its access control list"
            " was being replaced; try again",
            bucket=judged.bucket,
            key=judged.key,
        )
    stored = msgspec.structs.replace(stored, acl=access_records.acl_to_stored(acl))
    _put_again(txn, found, judged.key, stored, is_current=is_current)


def change_lock(
    txn: index_port.IndexWriter,
    bucket: str,
    key: str,
    version_id: str | None,
    change: Callable[[locking.VersionLock], locking.VersionLock],
    *,
    bucket_owner: str = "",
) -> objects.ObjectRecord:
    """Replace the lock of a version, the current one by default, by what ``change`` makes of it.

    Returns:
        As ``set_tags``.

    Raises:
        As ``versions.get_version``, and whatever ``change`` raises.
        InvalidBucketStateError: the bucket cannot lock.
    """
    found = buckets.find(txn, bucket, owner=bucket_owner)
    if found.object_lock is None:
        raise version_locks.cannot_lock(bucket)
    stored, is_current = versions.find_version(txn, found, bucket, key, version_id)
    lock = change(lock_records.lock_to_domain(stored.lock))
    stored = msgspec.structs.replace(stored, lock=lock_records.lock_to_stored(lock))
    _put_again(txn, found, key, stored, is_current=is_current)
    return index_records.object_to_domain(
        bucket, key, stored, is_named=versions.is_named(found), is_latest=is_current
    )


def _put_again(
    txn: index_port.IndexWriter,
    bucket: index_records.Bucket,
    key: str,
    changed: index_records.Object,
    *,
    is_current: bool,
) -> None:
    """Store a version that is there already, changed."""
    if is_current:
        value = index_records.pack(changed)
        key_space.put(txn, index_keys.OBJECTS, bucket.bucket_id, key.encode(), value)
    else:
        history.add(txn, bucket.bucket_id, key.encode(), changed)
