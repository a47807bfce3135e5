"""Multipart uploads: parts under way, completion, abortion."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
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
    key_space,
    l2p,
    part_checksums,
    upload_listing,
    versions,
)
from couchestor_domain import errors, ids, objects, units

PART_BYTES_MIN: Final = 5 * units.MIB

list_uploads = upload_listing.list_uploads


def create_upload(
    txn: index_port.IndexWriter, upload: objects.UploadRecord, *, bucket_owner: str = ""
) -> None:
    """Raises NoSuchBucketError, see ``buckets.find``."""
    bucket_id = buckets.find(txn, upload.bucket, owner=bucket_owner).bucket_id
    key = upload.key.encode()
    value = key_space.get(txn, index_keys.UPLOAD_KEYS, bucket_id, key)
    if value is None:
        value = index_keys.U64.pack(key_space.new_namespace(txn))
        key_space.put(txn, index_keys.UPLOAD_KEYS, bucket_id, key, value)
    (list_id,) = index_keys.U64.unpack(value)
    stored = index_records.Upload(
        bucket=upload.bucket,
        key=upload.key,
        initiated_ns=upload.initiated_ns,
        headers=dict(upload.headers),
        metadata=dict(upload.metadata),
        tags=dict(upload.tags),
        owner=upload.owner,
        acl=access_records.acl_to_stored(upload.acl),
        initiator=upload.initiator,
        lock=lock_records.lock_to_stored(upload.lock),
        checksum_algorithm=upload.checksum_algorithm,
        checksum_type=upload.checksum_type,
        bucket_id=bucket_id,
        list_id=list_id,
        parts_id=key_space.new_namespace(txn),
    )
    txn.put(index_keys.upload(upload.upload_id), index_records.pack(stored))
    txn.put(index_keys.upload_entry(list_id, upload.initiated_ns, upload.upload_id), b"")


def get_upload(
    reader: index_port.IndexReader, bucket: str, key: str, upload_id: str
) -> objects.UploadRecord:
    """An upload under way, or completed and not yet overwritten (so that a retry gets through).

    Raises:
        NoSuchBucketError, NoSuchUploadError.
    """
    buckets.find(reader, bucket)
    done = _completed(reader, bucket, key, upload_id)
    if done is not None:
        return objects.UploadRecord(
            upload_id=upload_id,
            bucket=bucket,
            key=key,
            initiated_ns=done.initiated_ns,
            initiator=done.initiator,
        )
    return index_records.upload_to_domain(upload_id, _find(reader, bucket, key, upload_id))


def put_part(
    txn: index_port.IndexWriter,
    upload: objects.UploadRecord,
    part: objects.PartRecord,
    locations: Sequence[tuple[ids.ExtentAddress, l2p_record.Location]],
) -> None:
    """Store a part, dropping an earlier one of the same number. Raises NoSuchUploadError."""
    stored = _find(txn, upload.bucket, upload.key, upload.upload_id)
    key = index_keys.upload_part(stored.parts_id, part.number)
    value = txn.get(key)
    if value is not None:
        old = index_records.unpack(index_records.Part, value)
        l2p.punch_all(txn, index_records.extents(old.extents))
    txn.put(key, index_records.pack(index_records.part_to_stored(part)))
    l2p.insert_all(txn, locations)


def list_parts(
    reader: index_port.IndexReader,
    upload: objects.UploadRecord,
    *,
    after_part: int,
    limit: int,
) -> objects.PartPage:
    """Parts numbered above ``after_part``. Raises NoSuchUploadError."""
    stored = _find(reader, upload.bucket, upload.key, upload.upload_id)
    parts: list[objects.PartRecord] = []
    truncated = False
    for part in _parts(reader, stored, after_part=after_part) if limit > 0 else ():
        if len(parts) == limit:
            truncated = True
            break
        parts.append(part)
    return objects.PartPage(
        upload=index_records.upload_to_domain(upload.upload_id, stored),
        parts=parts,
        truncated=truncated,
        next_part_marker=parts[-1].number if parts else 0,
    )


def complete_upload(
    txn: index_port.IndexWriter,
    upload: objects.UploadRecord,
    completed: Sequence[objects.CompletedPart],
    conditions: objects.WriteConditions,
    *,
    now_ns: int,
    draw: versions.DrawRandom,
    expected: objects.ExpectedObject = objects.NOTHING_EXPECTED,
    min_part_bytes: int = PART_BYTES_MIN,
) -> objects.ObjectRecord:
    """Make the named parts the current version; parts not named are dropped.

    Again with the same parts while that version exists: the same record, nothing written.

    Raises:
        NoSuchUploadError, InvalidPartOrderError, InvalidPartError, PartTooSmallError,
        DigestMismatchError, NoSuchKeyError, PreconditionFailedError.
    """
    asked = _digest(completed)
    done = _completed(txn, upload.bucket, upload.key, upload.upload_id)
    if done is not None and done.asked == asked:
        there = versions.get_version(txn, upload.bucket, upload.key, done.version_id)
        _require(there, expected)
        return there
    stored = _find(txn, upload.bucket, upload.key, upload.upload_id)
    held = {part.number: part for part in _parts(txn, stored)}
    chosen = _choose(held, completed, min_part_bytes=min_part_bytes)
    checksums = part_checksums.of_object(stored.checksum_algorithm, stored.checksum_type, chosen)
    record = objects.ObjectRecord(
        bucket=upload.bucket,
        key=upload.key,
        size_bytes=sum(part.size_bytes for part in chosen),
        etag=part_checksums.etag(chosen),
        modified_ns=now_ns,
        headers=stored.headers,
        metadata=stored.metadata,
        tags=stored.tags,
        checksums=checksums,
        checksum_type=stored.checksum_type if checksums else "",
        part_count=len(chosen),
        part_sizes_bytes=tuple(part.size_bytes for part in chosen),
        part_checksums=part_checksums.of_parts(chosen),
        owner=stored.owner,
        acl=access_records.acl_to_domain(stored.acl),
        lock=lock_records.lock_to_domain(stored.lock),
        extents=tuple(extent for part in chosen for extent in part.extents),
    )
    _require(record, expected)
    # Its conditions are the last check, so it must also be the first to write.
    record = versions.put_version(
        txn, record, conditions, locations=(), parts=chosen, draw=draw, upload_id=upload.upload_id
    )
    named = {part.number for part in chosen}
    unused = [part for number, part in held.items() if number not in named]
    _remove(txn, upload.upload_id, stored, held, unused=unused)
    receipt = index_records.Completed(
        bucket=upload.bucket,
        key=upload.key,
        initiated_ns=stored.initiated_ns,
        asked=asked,
        version_id=record.version_id,
        initiator=stored.initiator or stored.owner,
    )
    txn.put(index_keys.completed(upload.upload_id), index_records.pack(receipt))
    return record


def abort_upload(txn: index_port.IndexWriter, bucket: str, key: str, upload_id: str) -> None:
    """Drop an upload and its parts. Raises NoSuchBucketError, NoSuchUploadError."""
    buckets.find(txn, bucket)
    stored = _find(txn, bucket, key, upload_id)
    held = {part.number: part for part in _parts(txn, stored)}
    _remove(txn, upload_id, stored, held, unused=list(held.values()))


def _choose(
    held: dict[int, objects.PartRecord],
    completed: Sequence[objects.CompletedPart],
    *,
    min_part_bytes: int,
) -> list[objects.PartRecord]:
    """The parts a completion names, checked."""
    numbers = [part.number for part in completed]
    if any(later < earlier for earlier, later in itertools.pairwise(numbers)):
        raise errors.InvalidPartOrderError("the parts are not named in ascending order")
    if not completed:
        raise errors.InvalidPartError("a completion must name at least one part")
    chosen: list[objects.PartRecord] = []
    # Clients that sent a part twice may name both answers; as on S3 the last one counts.
    for wanted in {part.number: part for part in completed}.values():
        part = held.get(wanted.number)
        if part is None or part.etag != wanted.etag:
            raise errors.InvalidPartError(
                f"part {wanted.number} was not uploaded, or with another ETag", part=wanted.number
            )
        for algorithm, value in wanted.checksums.items():
            if part.checksums.get(algorithm) != value:
                raise errors.InvalidPartError(
                    f"part {wanted.number} was uploaded with another {algorithm} checksum",
                    part=wanted.number,
                )
        chosen.append(part)
    for part in chosen[:-1]:
        if part.size_bytes < min_part_bytes:
            raise errors.PartTooSmallError(
                f"part {part.number} has {part.size_bytes} bytes; every part but the last needs "
                f"{min_part_bytes}",
                part=part.number,
                size_bytes=part.size_bytes,
                size_bytes_min=min_part_bytes,
                etag=part.etag,
            )
    return chosen


def _require(record: objects.ObjectRecord, expected: objects.ExpectedObject) -> None:
    if expected.size_bytes is not None and expected.size_bytes != record.size_bytes:
        raise errors.DigestMismatchError(
            f"the parts have {record.size_bytes} bytes, not {expected.size_bytes}", digest="size"
        )
    for algorithm, value in expected.checksums.items():
        if record.checksums.get(algorithm) != value:
            raise errors.DigestMismatchError(
                f"the {algorithm.upper()} checksum given is not that of the object",
                digest=algorithm,
            )


def _remove(
    txn: index_port.IndexWriter,
    upload_id: str,
    stored: index_records.Upload,
    held: dict[int, objects.PartRecord],
    *,
    unused: Sequence[objects.PartRecord],
) -> None:
    """Forget an upload; the bytes of its ``unused`` parts with it."""
    l2p.punch_all(txn, (extent for part in unused for extent in part.extents))
    for number in held:
        txn.delete(index_keys.upload_part(stored.parts_id, number))
    txn.delete(index_keys.upload(upload_id))
    txn.delete(index_keys.upload_entry(stored.list_id, stored.initiated_ns, upload_id))
    if key_space.is_empty(txn, index_keys.UPLOAD_LISTS, stored.list_id):
        key = stored.key.encode()
        key_space.delete(txn, index_keys.UPLOAD_KEYS, stored.bucket_id, key)


def _find(
    reader: index_port.IndexReader, bucket: str, key: str, upload_id: str
) -> index_records.Upload:
    value = reader.get(index_keys.upload(upload_id))
    if value is not None:
        stored = index_records.unpack(index_records.Upload, value)
        if (stored.bucket, stored.key) == (bucket, key):
            return stored
    raise errors.NoSuchUploadError(
        f"there is no upload {upload_id} of key {key} in bucket {bucket}", upload_id=upload_id
    )


def is_completed(reader: index_port.IndexReader, upload: objects.UploadRecord) -> bool:
    """Whether an upload has become an object, so that completing it again changes nothing."""
    return _completed(reader, upload.bucket, upload.key, upload.upload_id) is not None


def _completed(
    reader: index_port.IndexReader, bucket: str, key: str, upload_id: str
) -> index_records.Completed | None:
    value = reader.get(index_keys.completed(upload_id))
    if value is None:
        return None
    done = index_records.unpack(index_records.Completed, value)
    return done if (done.bucket, done.key) == (bucket, key) else None


def _parts(
    reader: index_port.IndexReader, stored: index_records.Upload, *, after_part: int = 0
) -> Iterator[objects.PartRecord]:
    # A marker comes from the client and may be out of the range of part numbers.
    first = min(max(after_part, 0), 0xFFFF)
    start = index_keys.upload_part(stored.parts_id, first) + b"\x00"
    stop = index_keys.namespace_stop(index_keys.UPLOAD_PARTS, stored.parts_id)
    for _, value in reader.scan(start, stop):
        yield index_records.part_to_domain(index_records.unpack(index_records.Part, value))


def _digest(completed: Sequence[objects.CompletedPart]) -> bytes:
    digest = hashlib.sha256()
    for part in completed:
        digest.update(f"{part.number}:{part.etag}\n".encode())
    return digest.digest()
