"""Object versions: one current version a key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from couchestor_daemon.formats import index_keys, index_records, l2p_record
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services.catalogue import buckets, key_space, l2p
from couchestor_domain import errors, ids, objects

INLINE_PARTS_MAX: Final = 16
"""Parts an object's own record holds; more of them, or parts with checksums, are stored apart, so
that listings and conditional writes stay cheap."""
PAGE_PARTS_COUNT: Final = 128


def put_version(
    txn: index_port.IndexWriter,
    record: objects.ObjectRecord,
    conditions: objects.WriteConditions,
    locations: Sequence[tuple[ids.ExtentAddress, l2p_record.Location]],
    parts: Sequence[objects.PartRecord] = (),
    *,
    upload_id: str = "",
) -> None:
    """Make ``record`` the current version of its key and drop the one before.

    Args:
        locations: Where the fresh extents lie; empty for parts that are mapped already.
        parts: The parts of a multipart object, whose extents, in order, are the record's.
        upload_id: The upload it was completed from.

    Raises:
        NoSuchBucketError, NoSuchKeyError (If-Match on a missing key), PreconditionFailedError.
    """
    bucket_id = buckets.find(txn, record.bucket).bucket_id
    key = record.key.encode()
    old = find(txn, bucket_id, key)
    check_put(old, record, conditions)
    if old is not None:
        _drop(txn, old)
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


def get_version(reader: index_port.IndexReader, bucket: str, key: str) -> objects.ObjectRecord:
    """The current version with every part size and extent.

    Raises:
        NoSuchBucketError, NoSuchKeyError.
    """
    bucket_id = buckets.find(reader, bucket).bucket_id
    stored = find(reader, bucket_id, key.encode())
    if stored is None:
        raise _no_such_key(bucket, key)
    return index_records.object_to_domain(bucket, key, stored, _parts(reader, stored))


def delete_version(
    txn: index_port.IndexWriter, bucket: str, key: str, conditions: objects.WriteConditions
) -> bool:
    """Remove a key; True when it was there.

    Raises:
        NoSuchBucketError, PreconditionFailedError (also If-Match on a missing key).
    """
    bucket_id = buckets.find(txn, bucket).bucket_id
    old = find(txn, bucket_id, key.encode())
    if old is None and conditions.if_match is not None:
        raise _failed("If-Match", bucket, key)
    _check(old, conditions, bucket, key)
    if old is None:
        return False
    _drop(txn, old)
    return key_space.delete(txn, index_keys.OBJECTS, bucket_id, key.encode())


def find(reader: index_port.IndexReader, bucket_id: int, key: bytes) -> index_records.Object | None:
    """The stored current version."""
    if not key:
        return None
    value = key_space.get(reader, index_keys.OBJECTS, bucket_id, key)
    return None if value is None else index_records.unpack(index_records.Object, value)


def check_put(
    old: index_records.Object | None,
    record: objects.ObjectRecord,
    conditions: objects.WriteConditions,
) -> None:
    """Evaluate the conditions of a write. Raises NoSuchKeyError, PreconditionFailedError."""
    if old is None and conditions.if_match is not None:
        raise _no_such_key(record.bucket, record.key)
    _check(old, conditions, record.bucket, record.key)


def _check(
    old: index_records.Object | None, conditions: objects.WriteConditions, bucket: str, key: str
) -> None:
    if old is None:
        return
    if conditions.if_match is not None and conditions.if_match not in ("*", old.etag):
        raise _failed("If-Match", bucket, key)
    if conditions.if_none_match is not None and conditions.if_none_match in ("*", old.etag):
        raise _failed("If-None-Match", bucket, key)


def _drop(txn: index_port.IndexWriter, old: index_records.Object) -> None:
    """Remove everything an old version owns except its entry."""
    if old.parts_id:
        parts = _parts(txn, old)
        l2p.punch_all(
            txn, index_records.extents([extent for part in parts for extent in part.extents])
        )
        start = index_keys.namespace(index_keys.OBJECT_PARTS, old.parts_id)
        stop = index_keys.namespace_stop(index_keys.OBJECT_PARTS, old.parts_id)
        for key in [key for key, _ in txn.scan(start, stop)]:
            txn.delete(key)
    else:
        l2p.punch_all(txn, index_records.extents(old.extents))
    if old.upload_id:
        txn.delete(index_keys.completed(old.upload_id))


def _parts(
    reader: index_port.IndexReader, stored: index_records.Object
) -> list[index_records.Part]:
    if not stored.parts_id:
        return []
    start = index_keys.namespace(index_keys.OBJECT_PARTS, stored.parts_id)
    stop = index_keys.namespace_stop(index_keys.OBJECT_PARTS, stored.parts_id)
    parts = [
        part
        for _, value in reader.scan(start, stop)
        for part in index_records.unpack(index_records.PartPage, value).parts
    ]
    if len(parts) != stored.part_count:
        raise errors.IndexCorruptError(
            f"the index holds {len(parts)} of {stored.part_count} parts of an object; "
            "run `couchestor recover`"
        )
    return parts


def _no_such_key(bucket: str, key: str) -> errors.NoSuchKeyError:
    return errors.NoSuchKeyError(
        f"there is no key {key} in bucket {bucket}", bucket=bucket, key=key
    )


def _failed(condition: str, bucket: str, key: str) -> errors.PreconditionFailedError:
    return errors.PreconditionFailedError(
        f"{condition} does not hold for key {key} in bucket {bucket}",
        condition=condition,
        bucket=bucket,
        key=key,
    )
