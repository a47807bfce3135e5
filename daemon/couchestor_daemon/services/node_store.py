"""The node's object store: catalogue, log and stripes behind the gateway's ports."""

from __future__ import annotations

import asyncio
import functools
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeVar, cast

import xxhash

from couchestor_daemon.formats import l2p_record, media_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import (
    body_writer,
    commit_log,
    extent_reader,
    group_commit,
    notice_queue,
)
from couchestor_daemon.services.catalogue import (
    buckets,
    listing,
    uploads,
    version_listing,
    versions,
)
from couchestor_domain import access as access_control
from couchestor_domain import ids, notices, objects, version_ids

T = TypeVar("T")


class Clock(Protocol):
    """Wall clock."""

    def now_ns(self) -> int:
        """Nanoseconds since the Unix epoch."""
        ...


def lease_addresses(length_bytes: int) -> Callable[[index_port.IndexWriter], int]:
    """An operation body that takes ``length_bytes`` of never used logical addresses."""

    def apply(txn: index_port.IndexWriter) -> int:
        value = txn.get(media_records.ADDRESS_KEY)
        first = 1 << 20 if value is None else int(media_records.U64.unpack(value)[0])
        txn.put(media_records.ADDRESS_KEY, media_records.U64.pack(first + length_bytes))
        return first

    return apply


class AddressLease:
    """Logical addresses this process may hand out, taken from the index ``length_bytes`` at a time.

    Args:
        submit: Commits an operation through the group commit.
    """

    def __init__(
        self,
        submit: Callable[[commit_log.Operation], Awaitable[object]],
        *,
        length_bytes: int,
    ) -> None:
        self._submit = submit
        self._length_bytes = length_bytes
        self._next = 0
        self._end = 0
        self._renewing = asyncio.Lock()

    async def renew(self) -> None:
        """Take the next range of the node; what is left of the present one is never used.

        Raises:
            StoreFullError, StoreReadOnlyError: the log takes no commits now.
        """
        take = lease_addresses(self._length_bytes)
        operation = commit_log.Operation(apply=lambda txn, _: take(txn), uses_reserve=True)
        first = await self._submit(operation)
        assert isinstance(first, int), first
        self._next, self._end = first, first + self._length_bytes

    async def take(self, length_bytes: int) -> ids.ExtentAddress:
        """A fresh range.

        Raises:
            StoreFullError, StoreReadOnlyError: a new lease is needed and cannot be had.
        """
        assert length_bytes < self._length_bytes, length_bytes
        if self._next + length_bytes >= self._end:
            async with self._renewing:
                if self._next + length_bytes >= self._end:
                    await self.renew()
        address = self._next
        # An empty body still gets an address of its own.
        self._next = address + max(length_bytes, 1)
        return ids.ExtentAddress(address)


class NodeStore:
    """Implements BucketStore, ObjectStore and UploadStore of the gateway, structurally.

    Args:
        part_bytes_min: Smallest part of an upload that is not its last one.
        draw_upload_id: Gives ids that nobody can guess.
        draw_random: Gives what makes ids of versions so.
        notices_max: Notices that may wait for one target.
    """

    def __init__(
        self,
        *,
        index: index_port.IndexStore,
        commits: group_commit.GroupCommit,
        bodies: body_writer.BodyWriter,
        extents: extent_reader.ExtentReader,
        clock: Clock,
        part_bytes_min: int = uploads.PART_BYTES_MIN,
        draw_upload_id: Callable[[], str] = lambda: secrets.token_urlsafe(24),
        draw_random: versions.DrawRandom = lambda: secrets.token_bytes(version_ids.RANDOM_BYTES),
        notices_max: int = notice_queue.WAITING_MAX,
    ) -> None:
        self._index = index
        self._commits = commits
        self._bodies = bodies
        self._extents = extents
        self._clock = clock
        self._part_bytes_min = part_bytes_min
        self._draw_upload_id = draw_upload_id
        self._draw_random = draw_random
        self._notices = notice_queue.NoticeQueue(clock.now_ns, waiting_max=notices_max)

    # -- buckets --------------------------------------------------------------------------------

    async def create_bucket(
        self,
        *,
        name: str,
        owner: str,
        region: str,
        access: access_control.BucketAccess = access_control.PRIVATE,
    ) -> objects.BucketRecord:
        now_ns = self._clock.now_ns()
        return await self._change(
            lambda txn, _: buckets.create_bucket(
                txn, name=name, owner=owner, region=region, now_ns=now_ns, access=access
            )
        )

    async def delete_bucket(self, *, name: str, bucket_owner: str = "") -> None:
        await self._change(
            lambda txn, _: buckets.delete_bucket(txn, name, owner=bucket_owner), uses_reserve=True
        )

    async def get_bucket(self, name: str) -> objects.BucketRecord:
        with self._index.read() as reader:
            return buckets.get_bucket(reader, name)

    async def set_versioning(
        self, *, bucket: str, versioning: objects.Versioning, bucket_owner: str = ""
    ) -> None:
        await self._change(
            lambda txn, _: buckets.set_versioning(txn, bucket, versioning, owner=bucket_owner),
            uses_reserve=True,
        )

    async def change_access(
        self,
        *,
        bucket: str,
        change: Callable[[access_control.BucketAccess], access_control.BucketAccess],
        bucket_owner: str = "",
    ) -> None:
        await self._change(
            lambda txn, _: buckets.change_access(txn, bucket, change, owner=bucket_owner),
            uses_reserve=True,
        )

    async def get_setting(self, *, bucket: str, setting: objects.Setting) -> bytes:
        with self._index.read() as reader:
            return buckets.get_setting(reader, bucket, setting)

    async def put_setting(
        self,
        *,
        bucket: str,
        setting: objects.Setting,
        value: bytes | None,
        bucket_owner: str = "",
    ) -> None:
        await self._change(
            lambda txn, _: buckets.put_setting(txn, bucket, setting, value, owner=bucket_owner),
            uses_reserve=True,
        )

    async def list_buckets(self) -> Sequence[objects.BucketRecord]:
        with self._index.read() as reader:
            return list(buckets.list_buckets(reader))

    # -- objects --------------------------------------------------------------------------------

    async def put_object(
        self, request: objects.PutRequest, body: body_writer.Body
    ) -> objects.ObjectRecord:
        written = await self._bodies.write(body)

        def apply(txn: index_port.IndexWriter, place: commit_log.Placement) -> objects.ObjectRecord:
            record = objects.ObjectRecord(
                bucket=request.bucket,
                key=request.key,
                size_bytes=written.extent.length_bytes,
                etag=written.digests.etag,
                modified_ns=self._clock.now_ns(),
                headers=request.headers,
                metadata=request.metadata,
                tags=request.tags,
                checksums=written.digests.checksums,
                checksum_type="FULL_OBJECT" if written.digests.checksums else "",
                owner=request.owner,
                acl=request.acl,
                extents=(written.extent,) if written.extent.length_bytes else (),
            )
            return versions.put_version(
                txn,
                record,
                request.conditions,
                self._locations(written, place),
                draw=self._draw_random,
                bucket_owner=request.bucket_owner,
            )

        told = self._notices.of_object(apply, request.announcement)
        return await self._change(told, written=written)

    async def get_object(
        self, *, bucket: str, key: str, version_id: str | None = None
    ) -> objects.ObjectRecord:
        with self._index.read() as reader:
            return versions.get_version(
                reader,
                bucket,
                key,
                version_id,
                locate=functools.partial(self._extents.locate, reader),
            )

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
        told = self._notices.of_object(
            lambda txn, _: versions.set_tags(
                txn, bucket, key, version_id, tags, bucket_owner=bucket_owner
            ),
            announcement,
            tells_size=False,
        )
        return await self._change(told, uses_reserve=True)

    async def set_acl(
        self,
        judged: objects.ObjectRecord,
        acl: access_control.Acl | None,
        *,
        announcement: notices.Announcement | None = None,
    ) -> None:
        def apply(txn: index_port.IndexWriter, _: commit_log.Placement) -> objects.ObjectRecord:
            versions.set_acl(txn, judged, acl)
            return judged

        told = self._notices.of_object(apply, announcement, tells_size=False)
        await self._change(told, uses_reserve=True)

    async def fetch(
        self, record: objects.ObjectRecord, *, start_bytes: int, length_bytes: int
    ) -> bytes | memoryview:
        # Copied: a piece is valid only until the next one is asked for.
        pieces = [
            bytes(piece)
            async for piece in self.stream(
                record, start_bytes=start_bytes, length_bytes=length_bytes
            )
        ]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def stream(
        self, record: objects.ObjectRecord, *, start_bytes: int, length_bytes: int
    ) -> AsyncIterator[bytes | memoryview]:
        return self._extents.pieces(
            record.extents,
            start_bytes=start_bytes,
            length_bytes=length_bytes,
            places=cast("extent_reader.Places | None", record.places),
        )

    async def delete_object(
        self,
        *,
        bucket: str,
        key: str,
        conditions: objects.WriteConditions,
        version_id: str | None = None,
        owner: str = "",
        bucket_owner: str = "",
        announcement: notices.Announcement | None = None,
    ) -> objects.Deletion:
        doomed = objects.Doomed(key=key, version_id=version_id, announcement=announcement)
        return await self._change(
            lambda txn, _: self._delete(
                txn, bucket, doomed, conditions, owner=owner, bucket_owner=bucket_owner
            ),
            uses_reserve=True,
        )

    async def delete_objects(
        self,
        *,
        bucket: str,
        doomed: Sequence[objects.Doomed],
        owner: str = "",
        bucket_owner: str = "",
    ) -> list[objects.Deletion]:
        none = objects.NO_CONDITIONS
        return await self._change(
            lambda txn, _: [
                self._delete(txn, bucket, each, none, owner=owner, bucket_owner=bucket_owner)
                for each in doomed
            ],
            uses_reserve=True,
        )

    def _delete(
        self,
        txn: index_port.IndexWriter,
        bucket: str,
        doomed: objects.Doomed,
        conditions: objects.WriteConditions,
        *,
        owner: str,
        bucket_owner: str,
    ) -> objects.Deletion:
        def delete() -> objects.Deletion:
            return versions.delete_version(
                txn,
                bucket,
                doomed.key,
                conditions,
                version_id=doomed.version_id,
                owner=owner,
                bucket_owner=bucket_owner,
                now_ns=self._clock.now_ns(),
                draw=self._draw_random,
            )

        return self._notices.deleting(txn, bucket, doomed, delete)

    async def list_objects(self, query: objects.ListQuery) -> objects.ListPage:
        with self._index.read() as reader:
            return listing.list_objects(reader, query)

    async def list_versions(self, query: objects.VersionQuery) -> objects.VersionPage:
        with self._index.read() as reader:
            return version_listing.list_versions(reader, query)

    # -- uploads --------------------------------------------------------------------------------

    async def create_upload(
        self, request: objects.PutRequest, *, checksum_algorithm: str, checksum_type: str
    ) -> objects.UploadRecord:
        upload = objects.UploadRecord(
            upload_id=self._draw_upload_id(),
            bucket=request.bucket,
            key=request.key,
            initiated_ns=self._clock.now_ns(),
            headers=request.headers,
            metadata=request.metadata,
            tags=request.tags,
            owner=request.owner,
            acl=request.acl,
            initiator=request.initiator or request.owner,
            checksum_algorithm=checksum_algorithm,
            checksum_type=checksum_type,
        )

        def apply(txn: index_port.IndexWriter, _: commit_log.Placement) -> objects.UploadRecord:
            uploads.create_upload(txn, upload, bucket_owner=request.bucket_owner)
            return upload

        return await self._change(apply)

    async def get_upload(self, *, bucket: str, key: str, upload_id: str) -> objects.UploadRecord:
        with self._index.read() as reader:
            return uploads.get_upload(reader, bucket, key, upload_id)

    async def put_part(
        self, upload: objects.UploadRecord, *, part_number: int, body: body_writer.Body
    ) -> objects.PartRecord:
        written = await self._bodies.write(body)

        def apply(txn: index_port.IndexWriter, place: commit_log.Placement) -> objects.PartRecord:
            part = objects.PartRecord(
                number=part_number,
                size_bytes=written.extent.length_bytes,
                etag=written.digests.etag,
                modified_ns=self._clock.now_ns(),
                checksums=written.digests.checksums,
                extents=(written.extent,) if written.extent.length_bytes else (),
            )
            uploads.put_part(txn, upload, part, self._locations(written, place))
            return part

        return await self._change(apply, written=written)

    async def list_parts(
        self, upload: objects.UploadRecord, *, after_part: int, limit: int
    ) -> objects.PartPage:
        with self._index.read() as reader:
            return uploads.list_parts(reader, upload, after_part=after_part, limit=limit)

    async def complete_upload(
        self,
        upload: objects.UploadRecord,
        *,
        parts: Sequence[objects.CompletedPart],
        conditions: objects.WriteConditions,
        expected: objects.ExpectedObject,
        announcement: notices.Announcement | None = None,
    ) -> objects.ObjectRecord:
        now_ns = self._clock.now_ns()
        told = self._notices.of_object(
            lambda txn, _: uploads.complete_upload(
                txn,
                upload,
                parts,
                conditions,
                expected=expected,
                now_ns=now_ns,
                draw=self._draw_random,
                min_part_bytes=self._part_bytes_min,
            ),
            announcement,
            unless=lambda reader: uploads.is_completed(reader, upload),
        )
        return await self._change(told, uses_reserve=True)

    async def abort_upload(self, *, bucket: str, key: str, upload_id: str) -> None:
        await self._change(
            lambda txn, _: uploads.abort_upload(txn, bucket, key, upload_id), uses_reserve=True
        )

    async def list_uploads(self, query: objects.UploadQuery) -> objects.UploadPage:
        with self._index.read() as reader:
            return uploads.list_uploads(reader, query)

    # -- inside ---------------------------------------------------------------------------------

    async def _change(
        self,
        apply: Callable[[index_port.IndexWriter, commit_log.Placement], T],
        *,
        written: body_writer.WrittenBody | None = None,
        uses_reserve: bool = False,
    ) -> T:
        """Commit a change; with a body, its rest as payload, and settled when that has ended."""
        operation = commit_log.Operation(apply=apply, uses_reserve=uses_reserve)
        if written is not None:
            operation.payload = memoryview(written.rest)
            if written.places:
                operation.on_end = functools.partial(self._bodies.settle, written)
        return await self._commits.submit(operation)  # type: ignore[return-value]

    @staticmethod
    def _locations(
        written: body_writer.WrittenBody, place: commit_log.Placement
    ) -> list[tuple[ids.ExtentAddress, l2p_record.Location]]:
        locations = list(written.locations)
        if written.rest:
            locations.append(
                (
                    written.rest_address,
                    l2p_record.JournalLocation(
                        place.segment_id,
                        place.offset_bytes,
                        place.length_bytes,
                        xxhash.xxh3_64_intdigest(written.rest),
                    ),
                )
            )
        return locations
