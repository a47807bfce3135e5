"""The node's object store: catalogue, log and stripes behind the gateway's ports."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import cast

from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import (
    body_writer,
    commit_log,
    extent_reader,
    node_buckets,
    node_uploads,
)
from couchestor_daemon.services.catalogue import (
    listing,
    version_attributes,
    version_listing,
    versions,
)
from couchestor_domain import access as access_control
from couchestor_domain import errors, locking, notices, objects


class NodeStore(node_buckets.NodeBuckets, node_uploads.NodeUploads):
    """Implements BucketStore, ObjectStore and UploadStore of the gateway, structurally."""

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
                lock=request.lock,
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
            lambda txn, _: version_attributes.set_tags(
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
            version_attributes.set_acl(txn, judged, acl)
            return judged

        told = self._notices.of_object(apply, announcement, tells_size=False)
        await self._change(told, uses_reserve=True)

    async def change_lock(
        self,
        *,
        bucket: str,
        key: str,
        version_id: str | None,
        change: Callable[[locking.VersionLock], locking.VersionLock],
        bucket_owner: str = "",
    ) -> objects.ObjectRecord:
        return await self._change(
            lambda txn, _: version_attributes.change_lock(
                txn, bucket, key, version_id, change, bucket_owner=bucket_owner
            ),
            uses_reserve=True,
        )

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
        bypasses_governance: bool = False,
        announcement: notices.Announcement | None = None,
    ) -> objects.Deletion:
        doomed = objects.Doomed(
            key=key,
            version_id=version_id,
            bypasses_governance=bypasses_governance,
            announcement=announcement,
            conditions=conditions,
        )
        return await self._change(
            lambda txn, _: self._delete(
                txn, bucket, doomed, owner=owner, bucket_owner=bucket_owner
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
        return await self._change(
            lambda txn, _: [
                self._delete_or_refuse(txn, bucket, each, owner=owner, bucket_owner=bucket_owner)
                for each in doomed
            ],
            uses_reserve=True,
        )

    def _delete_or_refuse(
        self,
        txn: index_port.IndexWriter,
        bucket: str,
        doomed: objects.Doomed,
        *,
        owner: str,
        bucket_owner: str,
    ) -> objects.Deletion:
        """Among several, one that may not be done does not keep the others."""
        try:
            return self._delete(txn, bucket, doomed, owner=owner, bucket_owner=bucket_owner)
        except errors.VersionLockedError:
            refusal = objects.Refusal.LOCKED
        except errors.PreconditionFailedError:
            refusal = objects.Refusal.PRECONDITION_FAILED
        return objects.Deletion(version_id=doomed.version_id or "", refusal=refusal)

    def _delete(
        self,
        txn: index_port.IndexWriter,
        bucket: str,
        doomed: objects.Doomed,
        *,
        owner: str,
        bucket_owner: str,
    ) -> objects.Deletion:
        def delete() -> objects.Deletion:
            return versions.delete_version(
                txn,
                bucket,
                doomed.key,
                doomed.conditions,
                version_id=doomed.version_id,
                owner=owner,
                bucket_owner=bucket_owner,
                now_ns=self._clock.now_ns(),
                draw=self._draw_random,
                bypasses_governance=doomed.bypasses_governance,
            )

        return self._notices.deleting(txn, bucket, doomed, delete)

    async def list_objects(self, query: objects.ListQuery) -> objects.ListPage:
        with self._index.read() as reader:
            return listing.list_objects(reader, query)

    async def list_versions(self, query: objects.VersionQuery) -> objects.VersionPage:
        with self._index.read() as reader:
            return version_listing.list_versions(reader, query)
