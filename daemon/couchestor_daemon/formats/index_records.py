"""Index records about buckets, objects and uploads.

Every value is one version byte followed by a MessagePack array of the fields in order. A field is
only ever added at the end, with a default, so older values go on decoding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar, cast

import msgspec

from couchestor_daemon.formats import access_records, lock_records
from couchestor_domain import errors, ids, locking, objects

VERSION: Final = b"\x01"


class Bucket(msgspec.Struct, array_like=True, frozen=True):
    """A bucket."""

    bucket_id: int
    """Namespace of its keys: a bucket created again under the same name gets another one."""
    owner: str
    created_ns: int
    region: str
    versioning: str = ""
    """Value of ``objects.Versioning``."""
    acl: access_records.StoredAcl = None
    ownership: str = ""
    """Value of ``access.Ownership``."""
    public_access: int | None = None
    policy: str | None = None
    """The document as it was put."""
    has_lifecycle: bool = False
    """Whether there are rules for it (formats.lifecycle_records)."""
    object_lock: lock_records.StoredLock = None
    settings: tuple[tuple[str, bytes], ...] = ()
    """Values of ``objects.Setting`` that stand in the record, and what each was set to."""


class Part(msgspec.Struct, array_like=True, frozen=True):
    """A part of an upload or of a completed object."""

    number: int
    size_bytes: int
    etag: str
    modified_ns: int
    checksums: dict[str, str]
    extents: tuple[tuple[int, int], ...]


class PartPage(msgspec.Struct, array_like=True, frozen=True):
    """Consecutive parts of a completed object."""

    parts: tuple[Part, ...]


class Object(msgspec.Struct, array_like=True, frozen=True):
    """A version of a key."""

    version_id: str
    size_bytes: int
    etag: str
    modified_ns: int
    headers: dict[str, str]
    metadata: dict[str, str]
    checksums: dict[str, str]
    checksum_type: str
    owner: str
    part_count: int
    part_sizes_bytes: tuple[int, ...]
    extents: tuple[tuple[int, int], ...]
    parts_id: int
    """Where the parts are when they are not here; 0 when sizes and extents are here."""
    upload_id: str
    """Upload it was completed from, or empty."""
    order: int = 0
    """See ``objects.ObjectRecord``."""
    is_delete_marker: bool = False
    tags: dict[str, str] = {}
    acl: access_records.StoredAcl = None
    lock: lock_records.StoredLock = None


class Upload(msgspec.Struct, array_like=True, frozen=True):
    """An upload under way."""

    bucket: str
    key: str
    initiated_ns: int
    headers: dict[str, str]
    metadata: dict[str, str]
    owner: str
    checksum_algorithm: str
    checksum_type: str
    bucket_id: int
    list_id: int
    parts_id: int
    tags: dict[str, str] = {}
    acl: access_records.StoredAcl = None
    initiator: str = ""
    """Empty: its owner."""
    lock: lock_records.StoredLock = None


class Completed(msgspec.Struct, array_like=True, frozen=True):
    """A completed upload, so that a client's retry gets the same answer."""

    bucket: str
    key: str
    initiated_ns: int
    asked: bytes
    """Digest of the part list it was completed with."""
    version_id: str = objects.NULL_VERSION
    """What it became."""
    initiator: str = ""
    """Empty: only the bucket's owner."""


def marker(*, version_id: str, order: int, modified_ns: int, owner: str) -> Object:
    """A delete marker."""
    return Object(
        version_id=version_id,
        size_bytes=0,
        etag="",
        modified_ns=modified_ns,
        headers={},
        metadata={},
        checksums={},
        checksum_type="",
        owner=owner,
        part_count=0,
        part_sizes_bytes=(),
        extents=(),
        parts_id=0,
        upload_id="",
        order=order,
        is_delete_marker=True,
    )


Record = TypeVar("Record", bound=msgspec.Struct)
_ENCODER: Final = msgspec.msgpack.Encoder()


class _Decoders(dict[type[msgspec.Struct], msgspec.msgpack.Decoder[Any]]):
    """A ready decoder of each kind halves the cost of a point read's decode."""

    def __missing__(self, kind: type[msgspec.Struct]) -> msgspec.msgpack.Decoder[Any]:
        self[kind] = made = msgspec.msgpack.Decoder(kind)
        return made


_DECODERS: Final = _Decoders()


def pack(record: Record) -> bytes:
    """Encode any record of this module, or of another one written so."""
    return VERSION + _ENCODER.encode(record)


def unpack(kind: type[Record], value: bytes) -> Record:
    """Decode. Raises IndexCorruptError."""
    if value[:1] != VERSION:
        raise errors.IndexCorruptError(
            f"the index holds a {kind.__name__} of an unknown version {value[:1]!r}; "
            "run `couchestor recover`"
        )
    try:
        found = cast("Record", _DECODERS[kind].decode(memoryview(value)[1:]))
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise errors.IndexCorruptError(
            f"the index holds an undecodable {kind.__name__}: {exc}; run `couchestor recover`"
        ) from exc
    return found


def extents(stored: Sequence[tuple[int, int]]) -> tuple[ids.Extent, ...]:
    """Stored extents as the domain's."""
    return tuple(ids.Extent(ids.ExtentAddress(address), length) for address, length in stored)


def part_to_stored(part: objects.PartRecord) -> Part:
    """A part as it is stored."""
    return Part(
        number=part.number,
        size_bytes=part.size_bytes,
        etag=part.etag,
        modified_ns=part.modified_ns,
        checksums=dict(part.checksums),
        extents=tuple((extent.address, extent.length_bytes) for extent in part.extents),
    )


def part_to_domain(part: Part) -> objects.PartRecord:
    """A stored part as the domain's."""
    return objects.PartRecord(
        number=part.number,
        size_bytes=part.size_bytes,
        etag=part.etag,
        modified_ns=part.modified_ns,
        checksums=part.checksums,
        extents=extents(part.extents),
    )


def upload_to_domain(upload_id: str, upload: Upload) -> objects.UploadRecord:
    """A stored upload as the domain's."""
    return objects.UploadRecord(
        upload_id=upload_id,
        bucket=upload.bucket,
        key=upload.key,
        initiated_ns=upload.initiated_ns,
        headers=upload.headers,
        metadata=upload.metadata,
        tags=upload.tags,
        owner=upload.owner,
        acl=access_records.acl_to_domain(upload.acl),
        initiator=upload.initiator or upload.owner,
        lock=lock_records.lock_to_domain(upload.lock),
        checksum_algorithm=upload.checksum_algorithm,
        checksum_type=upload.checksum_type,
    )


def object_to_domain(
    bucket: str,
    key: str,
    stored: Object,
    parts: Sequence[Part] = (),
    *,
    is_named: bool = False,
    is_latest: bool = True,
    locate: Callable[[Sequence[ids.Extent]], object] | None = None,
) -> objects.ObjectRecord:
    """A stored version as the domain's; ``parts`` when they are stored apart and wanted.

    Args:
        locate: Gives the ``places`` of its extents. All at once: a record changed afterwards is
            copied field by field, which takes a tenth of a small read.
    """
    sizes = stored.part_sizes_bytes
    flat = stored.extents
    part_checksums: tuple[dict[str, str], ...] = ()
    if parts:
        if any(part.checksums for part in parts):
            part_checksums = tuple(part.checksums for part in parts)
        sizes = tuple(part.size_bytes for part in parts)
        flat = tuple(extent for part in parts for extent in part.extents)
    whole = extents(flat)
    return objects.ObjectRecord(
        bucket=bucket,
        key=key,
        version_id=stored.version_id,
        is_named=is_named,
        is_latest=is_latest,
        is_delete_marker=stored.is_delete_marker,
        order=stored.order,
        size_bytes=stored.size_bytes,
        etag=stored.etag,
        modified_ns=stored.modified_ns,
        headers=stored.headers,
        metadata=stored.metadata,
        tags=stored.tags,
        checksums=stored.checksums,
        checksum_type=stored.checksum_type,
        part_count=stored.part_count,
        part_sizes_bytes=sizes,
        part_checksums=part_checksums,
        owner=stored.owner,
        acl=None if stored.acl is None else access_records.acl_to_domain(stored.acl),
        lock=locking.NO_LOCK if stored.lock is None else lock_records.lock_to_domain(stored.lock),
        extents=whole,
        places=None if locate is None else locate(whole),
    )
