"""The object store as the gateway needs it. The daemon implements these structurally.

Every method may raise ``errors.UnavailableError`` (a needed part is broken), and each write
``errors.OverloadedError``, ``errors.StoreFullError`` or ``errors.StoreReadOnlyError``.
A write that returns is durable: it survives power loss and the loss of any m devices, and every
later call, through any worker process of the node, sees it. A write that raises
or is cancelled has either taken effect whole or not at all.

``bucket_owner`` of a write names whose bucket the caller was allowed to write to: since then it may
have been deleted, and created again by somebody who allowed nothing. A bucket that is another
owner's counts as missing; empty: not checked.

An ``announcement`` says who is to be told of the change. That they are to be is durable exactly
when the change is: each is told at least once, however the node ends, unless too much waits to be
told. A change that turns out to be none is told to nobody.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Protocol

from couchestor_domain import access as access_control
from couchestor_domain import lifecycle, locking, notices, objects


class BodySource(Protocol):
    """A request body, decoded and verified while the store pulls it.

    The store calls ``readinto`` until it returns less than asked, or the announced size is
    reached, then ``finish`` exactly once before it commits anything.
    """

    @property
    def size_bytes(self) -> int:
        """Decoded length the client announced; the greatest possible one if it may end early."""
        ...

    @property
    def may_end_early(self) -> bool:
        """Whether the body may be shorter than ``size_bytes`` and whole nevertheless.

        So is a file in a form, what follows it is known only once it has come, and a body of HTTP
        chunks whose length nothing announces. The object is as long as what ``readinto`` gave.
        Elsewhere a body that ends early is truncated.
        """
        ...

    async def readinto(self, *views: memoryview) -> int:
        """Fill the views, one after the other, with the next decoded bytes.

        Give as many as there are: their bytes are hashed in one go, off the event loop.

        Returns:
            The length of all views, or less only at the end of the body.

        Raises:
            BodyTruncatedError, BodyTooLongError, DigestMismatchError: the body is wrong so far.
            ClientError: a chunk's signature or framing is wrong.
        """
        ...

    async def finish(self) -> objects.BodyDigests:
        """Consume what follows the last byte (trailers) and verify every digest.

        Raises:
            As ``readinto``.
        """
        ...


class BucketStore(Protocol):
    """Buckets."""

    async def create_bucket(
        self,
        *,
        name: str,
        owner: str,
        region: str,
        access: access_control.BucketAccess = access_control.PRIVATE,
        object_lock: locking.BucketLock | None = None,
    ) -> objects.BucketRecord:
        """Raises BucketAlreadyExistsError with ``context['owner']``, ``['access']``, ``['lock']``.

        Args:
            object_lock: A bucket that can lock versions has versioning enabled from the begin.
        """
        ...

    async def delete_bucket(self, *, name: str, bucket_owner: str = "") -> None:
        """Raises NoSuchBucketError, BucketNotEmptyError (objects, versions or uploads remain)."""
        ...

    async def get_bucket(self, name: str) -> objects.BucketRecord:
        """Raises NoSuchBucketError."""
        ...

    async def set_versioning(
        self, *, bucket: str, versioning: objects.Versioning, bucket_owner: str = ""
    ) -> None:
        """Enable or suspend versioning.

        Raises: NoSuchBucketError, InvalidBucketStateError (what can be locked is not replaced).
        """
        ...

    async def set_object_lock(
        self, *, bucket: str, lock: locking.BucketLock, bucket_owner: str = ""
    ) -> None:
        """Let versions be locked, for good, or replace how those are that ask for nothing.

        Raises: NoSuchBucketError, InvalidBucketStateError (versioning is not enabled).
        """
        ...

    async def change_access(
        self,
        *,
        bucket: str,
        change: Callable[[access_control.BucketAccess], access_control.BucketAccess],
        bucket_owner: str = "",
    ) -> None:
        """Replace who may use a bucket by what ``change`` makes of it, atomically.

        Args:
            change: Pure; called on another thread, perhaps more than once. A ClientError that it
                raises leaves all as it was.

        Raises NoSuchBucketError and whatever ``change`` raises.
        """
        ...

    async def get_setting(self, *, bucket: str, setting: objects.Setting) -> bytes:
        """A setting as it was put. Raises NoSuchBucketError, NoSuchSettingError."""
        ...

    async def put_setting(
        self,
        *,
        bucket: str,
        setting: objects.Setting,
        value: bytes | None,
        bucket_owner: str = "",
    ) -> None:
        """Set or, with None, remove a setting. Raises NoSuchBucketError."""
        ...

    async def get_lifecycle(self, bucket: str) -> lifecycle.Configuration | None:
        """The rules of a bucket's lifecycle; None if it has none. Raises NoSuchBucketError."""
        ...

    async def put_lifecycle(
        self,
        *,
        bucket: str,
        configuration: lifecycle.Configuration | None,
        bucket_owner: str = "",
    ) -> None:
        """Replace the rules or, with None, remove them. Raises NoSuchBucketError."""
        ...

    async def list_buckets(self) -> Sequence[objects.BucketRecord]:
        """All buckets, by name."""
        ...


class ObjectStore(Protocol):
    """Objects."""

    async def put_object(
        self, request: objects.PutRequest, body: BodySource
    ) -> objects.ObjectRecord:
        """Store a new version.

        Raises:
            NoSuchBucketError, NoSuchKeyError (If-Match on a missing key), PreconditionFailedError,
            InvalidBucketStateError (it is to be locked, which the bucket cannot do), and whatever
            ``body`` raises.
        """
        ...

    async def get_object(
        self, *, bucket: str, key: str, version_id: str | None = None
    ) -> objects.ObjectRecord:
        """A version, the current one by default.

        Raises:
            NoSuchBucketError, NoSuchVersionError.
            NoSuchKeyError: ``context['delete_marker']`` is the marker's id if there is one.
            DeleteMarkerError: that version is one.
        """
        ...

    async def set_tags(
        self,
        *,
        bucket: str,
        key: str,
        version_id: str | None,
        tags: Mapping[str, str],
        bucket_owner: str = "",
        announcement: notices.Announcement | None = None,
    ) -> objects.ObjectRecord:
        """Replace the tags of a version, the current one by default. Raises as ``get_object``."""
        ...

    async def set_acl(
        self,
        judged: objects.ObjectRecord,
        acl: access_control.Acl | None,
        *,
        announcement: notices.Announcement | None = None,
    ) -> None:
        """Replace the ACL of a version; its time stays.

        Args:
            judged: The version, whose ACL allowed that.

        Raises:
            As ``get_object``.
            VersionGoneError: another version has its place by now.
        """
        ...

    async def change_lock(
        self,
        *,
        bucket: str,
        key: str,
        version_id: str | None,
        change: Callable[[locking.VersionLock], locking.VersionLock],
        bucket_owner: str = "",
    ) -> objects.ObjectRecord:
        """Replace the lock of a version, the current one by default, atomically with removals.

        Args:
            change: As that of ``BucketStore.change_access``.

        Raises: as ``get_object``, InvalidBucketStateError (the bucket cannot lock), and whatever
            ``change`` raises.
        """
        ...

    async def fetch(
        self, record: objects.ObjectRecord, *, start_bytes: int, length_bytes: int
    ) -> bytes | memoryview:
        """A short range in one buffer (at most ``FETCH_BYTES_MAX``), verified.

        Raises:
            IntegrityError, UnavailableError: more shards or replicas lost than the coding allows.
        """
        ...

    def stream(
        self, record: objects.ObjectRecord, *, start_bytes: int, length_bytes: int
    ) -> AsyncIterator[bytes | memoryview]:
        """A range of any length as verified pieces of a few MiB at most.

        Each piece is valid until the next one is asked for. Raises as ``fetch``.
        """
        ...

    async def delete_object(
        self,
        *,
        bucket: str,
        key: str,
        conditions: objects.WriteConditions,
        version_id: str | None = None,
        owner: str = "",
        bucket_owner: str = "",
        bypasses_governance: bool = False,
        announcement: notices.Announcement | None = None,
    ) -> objects.Deletion:
        """Remove the key, hide it behind a delete marker, or remove one version for good.

        What is missing is no error, whatever the conditions.

        Args:
            owner: Of a delete marker.
            bypasses_governance: See ``locking.is_kept``.

        Raises: NoSuchBucketError, PreconditionFailedError, VersionLockedError.
        """
        ...

    async def delete_objects(
        self,
        *,
        bucket: str,
        doomed: Sequence[objects.Doomed],
        owner: str = "",
        bucket_owner: str = "",
    ) -> Sequence[objects.Deletion]:
        """The same for up to 1,000 keys or versions, in one commit; each ``refusal`` says which of
        them were not done, because they are locked or their conditions do not hold.

        Raises NoSuchBucketError.
        """
        ...

    async def list_versions(self, query: objects.VersionQuery) -> objects.VersionPage:
        """A page of all versions, by key, the newest of each first. Raises NoSuchBucketError."""
        ...

    async def list_objects(self, query: objects.ListQuery) -> objects.ListPage:
        """A page in bytewise order of UTF-8 keys. Raises NoSuchBucketError."""
        ...


class UploadStore(Protocol):
    """Multipart uploads."""

    async def create_upload(
        self, request: objects.PutRequest, *, checksum_algorithm: str, checksum_type: str
    ) -> objects.UploadRecord:
        """Raises NoSuchBucketError."""
        ...

    async def get_upload(self, *, bucket: str, key: str, upload_id: str) -> objects.UploadRecord:
        """Raises NoSuchBucketError, NoSuchUploadError."""
        ...

    async def put_part(
        self, upload: objects.UploadRecord, *, part_number: int, body: BodySource
    ) -> objects.PartRecord:
        """Store or replace a part. Raises NoSuchUploadError and whatever ``body`` raises."""
        ...

    async def list_parts(
        self, upload: objects.UploadRecord, *, after_part: int, limit: int
    ) -> objects.PartPage:
        """Parts numbered above ``after_part``. Raises NoSuchUploadError."""
        ...

    async def complete_upload(
        self,
        upload: objects.UploadRecord,
        *,
        parts: Sequence[objects.CompletedPart],
        conditions: objects.WriteConditions,
        expected: objects.ExpectedObject,
        announcement: notices.Announcement | None = None,
    ) -> objects.ObjectRecord:
        """Make the named parts one object; the others are dropped.

        Of a part named more than once in a row the last mention counts. Completing again with the
        same parts returns the same object (clients retry).

        Raises:
            NoSuchUploadError, InvalidPartError, InvalidPartOrderError, PartTooSmallError,
            DigestMismatchError (the object is not what is expected), PreconditionFailedError,
            NoSuchKeyError.
        """
        ...

    async def abort_upload(self, *, bucket: str, key: str, upload_id: str) -> None:
        """Raises NoSuchUploadError."""
        ...

    async def list_uploads(self, query: objects.UploadQuery) -> objects.UploadPage:
        """Raises NoSuchBucketError."""
        ...


FETCH_BYTES_MAX = 128 << 10
"""Longest range asked of ``ObjectStore.fetch``; longer ones are streamed."""
