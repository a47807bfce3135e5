"""Records about buckets, objects and uploads that the gateway and the data plane exchange."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from couchestor_domain import access as access_control
from couchestor_domain import locking, notices
from couchestor_domain.ids import Extent

EMPTY_MAP: Final[Mapping[str, str]] = MappingProxyType({})
NULL_VERSION: Final = "null"
"""Version id of objects in a bucket without versioning."""


def empty_map() -> Mapping[str, str]:
    """For defaults of fields."""
    # dataclasses before Python 3.12 take the unhashable proxy for a mutable default.
    return EMPTY_MAP


class Setting(enum.Enum):
    """What a bucket may have beside its objects. Kept as the gateway wrote it."""

    TAGS = "tags"
    CORS = "cors"
    NOTIFICATIONS = "notifications"
    LOGGING = "logging"


RECORDED_SETTINGS: Final = frozenset({Setting.CORS, Setting.NOTIFICATIONS, Setting.LOGGING})
"""Those that stand in the bucket's record, because requests that use the bucket ask for them."""

_NO_SETTINGS: Final[Mapping[Setting, bytes]] = MappingProxyType({})


def _no_settings() -> Mapping[Setting, bytes]:
    return _NO_SETTINGS


class Versioning(enum.Enum):
    """What a bucket does with the version before when a key is written again."""

    NEVER = ""
    """It is gone, and always was."""
    ENABLED = "Enabled"
    """It stays, under its id."""
    SUSPENDED = "Suspended"
    """It stays if it has an id; what is written has none and replaces what has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketRecord:
    """A bucket as listed."""

    name: str
    owner: str
    created_ns: int
    region: str
    versioning: Versioning = Versioning.NEVER
    access: access_control.BucketAccess = access_control.PRIVATE
    has_lifecycle: bool = False
    """Whether it has rules by which what it holds expires."""
    object_lock: locking.BucketLock | None = None
    """None: its versions cannot be locked."""
    settings: Mapping[Setting, bytes] = field(default_factory=_no_settings)
    """Those of ``RECORDED_SETTINGS`` that it has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartRecord:
    """One part of a multipart object or of an upload under way."""

    number: int
    """1 to 10,000."""
    size_bytes: int
    etag: str
    """MD5 of the part, hexadecimal, without quotes."""
    modified_ns: int
    checksums: Mapping[str, str] = field(default_factory=empty_map)
    extents: tuple[Extent, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectRecord:
    """One immutable object version. Its bytes are the extents' bytes, in order."""

    bucket: str
    key: str
    version_id: str = NULL_VERSION
    is_named: bool = False
    """Whether answers name the version: its bucket has, or once had, versioning enabled."""
    is_latest: bool = True
    is_delete_marker: bool = False
    """It has no content: in its place the key counts as deleted."""
    order: int = 0
    """Grows from each version of a key to the next; 0 where versioning was never enabled."""
    size_bytes: int
    etag: str
    """Without quotes: MD5 hexadecimal, or ``<md5 of part md5s>-<part count>``."""
    modified_ns: int
    """Wall clock at commit, nanoseconds since the Unix epoch, UTC."""
    headers: Mapping[str, str] = field(default_factory=empty_map)
    """Standard headers kept with the object, names in lower case (content-type, ...)."""
    metadata: Mapping[str, str] = field(default_factory=empty_map)
    """User metadata, names lower-case without the ``x-amz-meta-`` prefix."""
    tags: Mapping[str, str] = field(default_factory=empty_map)
    """By key; they change without the version becoming another."""
    checksums: Mapping[str, str] = field(default_factory=empty_map)
    """Algorithm in lower case (crc32, crc32c, crc64nvme, sha1, sha256) -> base64 value."""
    checksum_type: str = ""
    """``FULL_OBJECT``, ``COMPOSITE`` or empty when no checksum is stored."""
    part_count: int = 0
    """0 for an object that was not uploaded in parts."""
    part_sizes_bytes: tuple[int, ...] = ()
    """Sizes of the parts in order, empty when ``part_count`` is 0."""
    part_checksums: tuple[Mapping[str, str], ...] = ()
    """Checksums of the parts in order, empty when no part has any."""
    owner: str = ""
    acl: access_control.Acl | None = None
    """As ``owner``, it changes without the version becoming another."""
    lock: locking.VersionLock = locking.NO_LOCK
    """What keeps it from being removed; it changes without the version becoming another."""
    extents: tuple[Extent, ...] = ()
    places: object = field(default=None, compare=False, repr=False)
    """The store's own note of where the bytes were when it looked the version up, so that reading
    it goes on when another version replaces it meanwhile. None: looked up again at each read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteConditions:
    """Preconditions of a write, evaluated atomically with it."""

    if_match: str | None = None
    """An ETag without quotes, or ``*``: the key must exist and match. Missing key: NoSuchKey; of a
    delete it holds then."""
    if_none_match: str | None = None
    """``*``: the key must not exist; an ETag: the current one must differ."""


NO_CONDITIONS: Final = WriteConditions()


@dataclass(frozen=True, slots=True, kw_only=True)
class PutRequest:
    """Everything about an object but its bytes."""

    bucket: str
    key: str
    headers: Mapping[str, str] = field(default_factory=empty_map)
    metadata: Mapping[str, str] = field(default_factory=empty_map)
    tags: Mapping[str, str] = field(default_factory=empty_map)
    conditions: WriteConditions = NO_CONDITIONS
    owner: str = ""
    acl: access_control.Acl | None = None
    bucket_owner: str = ""
    """Whose bucket the caller was allowed to write to; one that is somebody else's by then counts
    as missing. Empty: not checked."""
    initiator: str = ""
    """Who starts an upload, where that is not its owner."""
    lock: locking.VersionLock = locking.NO_LOCK
    announcement: notices.Announcement | None = None
    """Who is to be told of the object, by the commit that makes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyDigests:
    """What was computed over a body's decoded bytes, after every check the client asked for."""

    etag: str
    """MD5 hexadecimal."""
    checksums: Mapping[str, str] = field(default_factory=empty_map)


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadRecord:
    """A multipart upload under way."""

    upload_id: str
    """Opaque, URL-safe, at most 64 characters."""
    bucket: str
    key: str
    initiated_ns: int
    headers: Mapping[str, str] = field(default_factory=empty_map)
    metadata: Mapping[str, str] = field(default_factory=empty_map)
    tags: Mapping[str, str] = field(default_factory=empty_map)
    owner: str = ""
    acl: access_control.Acl | None = None
    initiator: str = ""
    """Who may go on with it."""
    lock: locking.VersionLock = locking.NO_LOCK
    """Of what it becomes."""
    checksum_algorithm: str = ""
    checksum_type: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletedPart:
    """One line of a CompleteMultipartUpload request."""

    number: int
    etag: str
    """Without quotes."""
    checksums: Mapping[str, str] = field(default_factory=empty_map)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedObject:
    """What a client says the object of a CompleteMultipartUpload will be."""

    checksums: Mapping[str, str] = field(default_factory=empty_map)
    """Algorithm in lower case -> value, with the part count behind a composite one."""
    size_bytes: int | None = None


NOTHING_EXPECTED: Final = ExpectedObject()


@dataclass(frozen=True, slots=True, kw_only=True)
class Doomed:
    """What is to be deleted."""

    key: str
    version_id: str | None = None
    """This version for good; None: the key, whose versions stay where versioning was enabled."""
    bypasses_governance: bool = False
    """Whether that is done though it is retained in governance mode."""
    announcement: notices.Announcement | None = None
    """Who is to be told of the deletion, by the commit that makes it."""
    conditions: WriteConditions = NO_CONDITIONS


class Refusal(enum.Enum):
    """Why one of several deletes was not done."""

    LOCKED = "locked"
    PRECONDITION_FAILED = "precondition failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """What a delete did, as its answer tells."""

    version_id: str = ""
    """The version removed, or the delete marker made; empty: the bucket never had versioning."""
    is_delete_marker: bool = False
    """Whether that version is, or was, a delete marker."""
    refusal: Refusal | None = None
    """Why nothing was done; None: it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListQuery:
    """A page of a listing, protocol details already removed."""

    bucket: str
    prefix: str = ""
    delimiter: str = ""
    after: str = ""
    """Keys and common prefixes must sort bytewise (UTF-8) after this. A common prefix equal to it
    was already returned, so every key below that prefix is skipped."""
    limit: int = 1000
    """Keys plus common prefixes on the page, 0 to 1,000."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListPage:
    """Objects and common prefixes in one bytewise order; each sequence is itself ordered."""

    objects: Sequence[ObjectRecord] = ()
    common_prefixes: Sequence[str] = ()
    truncated: bool = False
    last: str = ""
    """The last key or common prefix on the page: ``after`` of the next query when truncated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionQuery:
    """A page of all versions of a bucket, by key, each key's newest version first."""

    bucket: str
    prefix: str = ""
    delimiter: str = ""
    key_marker: str = ""
    version_marker: str = ""
    """Go on with the key ``key_marker`` behind this version; empty: behind all of them."""
    limit: int = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionPage:
    """Versions, delete markers among them, and common prefixes of one page."""

    versions: Sequence[ObjectRecord] = ()
    common_prefixes: Sequence[str] = ()
    truncated: bool = False
    next_key_marker: str = ""
    next_version_marker: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadQuery:
    """A page of the uploads under way in a bucket, ordered by key, then by time of initiation."""

    bucket: str
    prefix: str = ""
    delimiter: str = ""
    key_marker: str = ""
    upload_id_marker: str = ""
    limit: int = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadPage:
    """Uploads and common prefixes of one page."""

    uploads: Sequence[UploadRecord] = ()
    common_prefixes: Sequence[str] = ()
    truncated: bool = False
    next_key_marker: str = ""
    next_upload_id_marker: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartPage:
    """Parts of one upload, by ascending number."""

    upload: UploadRecord
    parts: Sequence[PartRecord] = field(default_factory=tuple)
    truncated: bool = False
    next_part_marker: int = 0
