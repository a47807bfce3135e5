"""The multipart uploads of a node's object store."""

from __future__ import annotations

from collections.abc import Sequence

from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import body_writer, commit_log, node_changes
from couchestor_daemon.services.catalogue import uploads
from couchestor_domain import notices, objects


class NodeUploads(node_changes.NodeChanges):
    """Implements UploadStore of the gateway, structurally."""

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
            lock=request.lock,
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
