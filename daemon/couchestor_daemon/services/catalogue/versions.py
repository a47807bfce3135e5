"""Object versions: at most one current version a key, and its history (``history``).

What a write or a delete without a version id does, by the versioning of the bucket:

               the current version is    a null version in the history    what is new
    never      removed                   (there is none)                  "null", or nothing
    enabled    kept in the history       stays                            an id, or a marker so
    suspended  removed if it is "null",  removed                          "null", or a marker "null"
               kept else
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Final

from couchestor_daemon.formats import (
    access_records,
    index_keys,
    index_records,
    l2p_record,
    lock_records,
)
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services.catalogue import (
    buckets,
    history,
    key_space,
    l2p,
    usage,
    version_locks,
    version_parts,
    write_conditions,
)
from couchestor_domain import errors, ids, objects, version_ids

INLINE_PARTS_MAX: Final = 16
"""Parts an object's own record holds; more of them, or parts with checksums, are stored apart, so
that listings and conditional writes stay cheap."""
PAGE_PARTS_COUNT: Final = 128


DrawRandom = Callable[[], bytes]
"""``version_ids.RANDOM_BYTES`` that nobody can guess."""


def put_version(
    txn: index_port.IndexWriter,
    record: objects.ObjectRecord,
    conditions: objects.WriteConditions,
    locations: Sequence[tuple[ids.ExtentAddress, l2p_record.Location]],
    parts: Sequence[objects.PartRecord] = (),
    *,
    draw: DrawRandom,
    upload_id: str = "",
    bucket_owner: str = "",
) -> objects.ObjectRecord:
    """Make ``record`` the current version of its key; the one before is dropped, or kept.

    Returns:
        The record with the id it got.

    Args:
        locations: Where the fresh extents lie; empty for parts that are mapped already.
        parts: The parts of a multipart object, whose extents, in order, are the record's.
        upload_id: The upload it was completed from.
        bucket_owner: See ``buckets.find``.

    Raises:
        NoSuchBucketError, NoSuchKeyError (If-Match on a missing key), PreconditionFailedError,
        QuotaExceededError.
        InvalidBucketStateError: it is to be locked, which the bucket cannot do.
    """
    bucket = buckets.find(txn, record.bucket, owner=bucket_owner)
    record = version_locks.of_new(bucket, record)
    bucket_id = bucket.bucket_id
    key = record.key.encode()
    old = find(txn, bucket_id, key)
    write_conditions.check_put(old, record, conditions)
    usage.require_room(
        txn,
        bucket,
        record.bucket,
        size_bytes=record.size_bytes,
        replaced=lambda: _replaced(txn, bucket, key, old),
    )
    order = _make_way(txn, bucket, key, old, now_ns=record.modified_ns)
    if is_named(bucket):
        record = dataclasses.replace(
            record, version_id=_new_id(bucket, order, draw), is_named=True, order=order
        )
    # An object's own record has no room for the checksums of its parts.
    stored_apart = len(parts) > INLINE_PARTS_MAX or bool(record.part_checksums)
    parts_id = key_space.new_namespace(txn) if stored_apart else 0
    stored = index_records.Object(
        version_id=record.version_id,
        size_bytes=record.size_bytes,
        etag=record.etag,
        modified_ns=record.modified_ns,
        headers=dict(record.headers),
        metadata=dict(record.metadata),
        tags=dict(record.tags),
        checksums=dict(record.checksums),
        checksum_type=record.checksum_type,
        owner=record.owner,
        part_count=record.part_count,
        part_sizes_bytes=() if stored_apart else tuple(record.part_sizes_bytes),
        extents=()
        if stored_apart
        else tuple((extent.address, extent.length_bytes) for extent in record.extents),
        parts_id=parts_id,
        upload_id=upload_id,
        order=order,
        acl=access_records.acl_to_stored(record.acl),
        lock=lock_records.lock_to_stored(record.lock),
    )
    if stored_apart:
        for page_index, start in enumerate(range(0, len(parts), PAGE_PARTS_COUNT)):
            page = index_records.PartPage(
                tuple(
                    index_records.part_to_stored(part)
                    for part in parts[start : start + PAGE_PARTS_COUNT]
                )
            )
            txn.put(index_keys.object_parts(parts_id, page_index), index_records.pack(page))
    key_space.put(txn, index_keys.OBJECTS, bucket_id, key, index_records.pack(stored))
    l2p.insert_all(txn, locations)
    usage.add(txn, bucket, size_bytes=record.size_bytes, objects_count=1)
    return record


def get_version(
    reader: index_port.IndexReader,
    bucket: str,
    key: str,
    version_id: str | None = None,
    *,
    locate: Callable[[Sequence[ids.Extent]], object] | None = None,
) -> objects.ObjectRecord:
    """A version, the current one by default, with every part size and extent.

    Args:
        locate: Gives the record's ``places``.

    Raises:
        NoSuchBucketError, NoSuchVersionError.
        NoSuchKeyError: the ``context`` names the delete marker, if there is one.
        DeleteMarkerError: it is one.
    """
    found = buckets.find(reader, bucket)
    stored, is_latest = find_version(reader, found, bucket, key, version_id)
    return index_records.object_to_domain(
        bucket,
        key,
        stored,
        version_parts.of(reader, stored),
        is_named=is_named(found),
        is_latest=is_latest,
        locate=locate,
    )


def find_version(
    reader: index_port.IndexReader,
    found: index_records.Bucket,
    bucket: str,
    key: str,
    version_id: str | None,
) -> tuple[index_records.Object, bool]:
    """A version, and whether it is the current one. Raises as ``get_version``."""
    name = key.encode()
    stored = find(reader, found.bucket_id, name)
    is_latest = stored is not None
    if version_id is None:
        if stored is None:
            marker = history.newest(reader, found.bucket_id, name) if is_named(found) else None
            raise write_conditions.no_such_key(bucket, key, marker)
    elif stored is None or stored.version_id != version_id:
        is_latest = False
        stored = history.find(reader, found.bucket_id, name, version_id) if name else None
        if stored is None:
            raise errors.NoSuchVersionError(
                f"key {key} in bucket {bucket} has no version {version_id}",
                bucket=bucket,
                key=key,
                version_id=version_id,
            )
        if stored.is_delete_marker:
            raise errors.DeleteMarkerError(
                f"version {version_id} of key {key} in bucket {bucket} is a delete marker",
                bucket=bucket,
                key=key,
                version_id=version_id,
                modified_ns=stored.modified_ns,
            )
    return stored, is_latest


def delete_version(
    txn: index_port.IndexWriter,
    bucket: str,
    key: str,
    conditions: objects.WriteConditions,
    *,
    version_id: str | None = None,
    owner: str = "",
    bucket_owner: str = "",
    now_ns: int,
    draw: DrawRandom,
    bypasses_governance: bool = False,
) -> objects.Deletion:
    """Remove a key, or hide it behind a delete marker; or remove one version for good.

    A version that does not exist is no error.

    Args:
        owner: Of a delete marker.
        bucket_owner: See ``buckets.find``.
        bypasses_governance: See ``locking.is_kept``.

    Raises:
        NoSuchBucketError, PreconditionFailedError (see ``write_conditions.check_delete``).
        VersionLockedError: the version may not be removed yet.
    """
    found = buckets.find(txn, bucket, owner=bucket_owner)
    name = key.encode()
    current = find(txn, found.bucket_id, name)
    if version_id is not None:
        check = version_locks.RemovalCheck(bucket, key, now_ns, bypasses_governance)
        return _delete_one(txn, found, (bucket, key), current, version_id, conditions, check)
    if conditions != objects.NO_CONDITIONS:
        latest = current
        if latest is None and is_named(found):
            latest = history.newest(txn, found.bucket_id, name)
        write_conditions.check_delete(latest, conditions, bucket, key)
        if latest is None and conditions.if_match is not None:
            # A marker would be something that the same delete, sent again, does not fit.
            return objects.Deletion()
    if not is_named(found):
        if current is not None:
            version_parts.drop(txn, found, current)
            key_space.delete(txn, index_keys.OBJECTS, found.bucket_id, name)
        return objects.Deletion()
    order = _make_way(txn, found, name, current, now_ns=now_ns)
    if current is not None:
        key_space.delete(txn, index_keys.OBJECTS, found.bucket_id, name)
    marker = index_records.marker(
        version_id=_new_id(found, order, draw), order=order, modified_ns=now_ns, owner=owner
    )
    history.add(txn, found.bucket_id, name, marker)
    return objects.Deletion(version_id=marker.version_id, is_delete_marker=True)


def _delete_one(
    txn: index_port.IndexWriter,
    bucket: index_records.Bucket,
    place: tuple[str, str],
    current: index_records.Object | None,
    version_id: str,
    conditions: objects.WriteConditions,
    check_lock: version_locks.RemovalCheck,
) -> objects.Deletion:
    """Remove one version for good; the newest that is left becomes the current one."""
    name = place[1].encode()
    if current is not None and current.version_id == version_id:
        write_conditions.check_delete(current, conditions, *place)
        check_lock(current)
        version_parts.drop(txn, bucket, current)
        key_space.delete(txn, index_keys.OBJECTS, bucket.bucket_id, name)
        gone = current
        current = None
    else:
        old = history.find(txn, bucket.bucket_id, name, version_id) if name else None
        write_conditions.check_delete(old, conditions, *place)
        if old is None:
            return objects.Deletion(version_id=version_id if is_named(bucket) else "")
        check_lock(old)
        version_parts.drop(txn, bucket, old)
        history.remove(txn, bucket.bucket_id, name, old)
        gone = old
    if current is None:
        left = history.newest(txn, bucket.bucket_id, name)
        if left is not None and not left.is_delete_marker:
            history.remove(txn, bucket.bucket_id, name, left)
            value = index_records.pack(left)
            key_space.put(txn, index_keys.OBJECTS, bucket.bucket_id, name, value)
    return objects.Deletion(
        version_id=version_id if is_named(bucket) else "", is_delete_marker=gone.is_delete_marker
    )


def _make_way(
    txn: index_port.IndexWriter,
    bucket: index_records.Bucket,
    key: bytes,
    current: index_records.Object | None,
    *,
    now_ns: int,
) -> int:
    """Drop or keep what the new version of a key replaces; the order of the new one.

    The entry of the current version is left to be overwritten or deleted.
    """
    if not is_named(bucket):
        if current is not None:
            version_parts.drop(txn, bucket, current)
        return 0
    newest = current or history.newest(txn, bucket.bucket_id, key)
    order = now_ns if newest is None else max(now_ns, history.order_of(newest) + 1)
    keeps_null = bucket.versioning == objects.Versioning.ENABLED.value
    if current is not None and (keeps_null or current.version_id != objects.NULL_VERSION):
        history.add(txn, bucket.bucket_id, key, current)
    elif current is not None:
        version_parts.drop(txn, bucket, current)
    if not keeps_null:
        null = history.find(txn, bucket.bucket_id, key, objects.NULL_VERSION)
        if null is not None:
            version_parts.drop(txn, bucket, null)
            history.remove(txn, bucket.bucket_id, key, null)
    return order


def _replaced(
    reader: index_port.IndexReader,
    bucket: index_records.Bucket,
    key: bytes,
    current: index_records.Object | None,
) -> list[index_records.Object]:
    """What ``_make_way`` drops for a new version."""
    if not is_named(bucket):
        return [] if current is None else [current]
    if bucket.versioning == objects.Versioning.ENABLED.value:
        return []
    null = history.find(reader, bucket.bucket_id, key, objects.NULL_VERSION)
    return [
        old for old in (current, null) if old is not None and old.version_id == objects.NULL_VERSION
    ]


def is_named(bucket: index_records.Bucket) -> bool:
    """Whether answers name versions: the bucket has, or once had, versioning enabled."""
    return bucket.versioning != objects.Versioning.NEVER.value


def _new_id(bucket: index_records.Bucket, order: int, draw: DrawRandom) -> str:
    if bucket.versioning == objects.Versioning.ENABLED.value:
        return version_ids.make(order, draw())
    return objects.NULL_VERSION


def find(reader: index_port.IndexReader, bucket_id: int, key: bytes) -> index_records.Object | None:
    """The stored current version."""
    if not key:
        return None
    value = key_space.get(reader, index_keys.OBJECTS, bucket_id, key)
    return None if value is None else index_records.unpack(index_records.Object, value)
