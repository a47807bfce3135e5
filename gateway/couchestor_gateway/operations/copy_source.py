"""The object a copy reads from, and its bytes as the body of a write."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from couchestor_domain import errors, objects
from couchestor_gateway.edge import addressing, copy_header, request_body
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.operations import versions
from couchestor_gateway.ports import offloading
from couchestor_gateway.protocol import conditions, digests, operation_needs, s3_error


async def find(request: s3_request.S3Request, *, with_tags: bool = False) -> objects.ObjectRecord:
    """The source's version, if the caller may read it; ``x-amz-copy-source-if-*`` checked.

    Args:
        with_tags: Whether its tags are copied, too.

    Raises:
        S3Error: InvalidArgument, AccessDenied, PreconditionFailed.
        NoSuchBucketError, NoSuchKeyError
    """
    text = request.headers[copy_header.NAME]
    bucket, key, raw_query = copy_header.parse(text)
    version_id = versions.named(addressing.parse_query(raw_query))
    if not bucket or not key:
        raise s3_error.make(
            "InvalidArgument",
            "Copy Source must mention the source bucket and key",
            **{
                "ArgumentName": copy_header.NAME,
                "ArgumentValue": text,
            },
        )
    source = request.bucket_record
    if bucket != request.bucket:
        source = await request.buckets.get_bucket(bucket)
    expected = request.headers.get("x-amz-source-expected-bucket-owner")
    if expected is not None and expected != source.owner:
        raise s3_error.make("AccessDenied")
    record = await request.usable_object(
        source,
        key,
        version_id=version_id,
        need=_of_version(operation_needs.READ_SOURCE, version_id),
    )
    if with_tags and record.tags:
        _require_tags(request, source, record, version_id)
    conditions.check_copy_source(request.headers, etag=record.etag, modified_ns=record.modified_ns)
    return record


def _require_tags(
    request: s3_request.S3Request,
    source: objects.BucketRecord,
    record: objects.ObjectRecord,
    version_id: str | None,
) -> None:
    """Stop whoever may copy an object, but not with its tags."""
    need = _of_version(operation_needs.COPY_TAGS, version_id)
    may_read = request.may(
        need, bucket=source, key=record.key, version_id=version_id, record=record
    )
    if not may_read or not request.may(operation_needs.WRITE_TAGS):
        raise s3_error.make("AccessDenied")


def _of_version(need: operation_needs.Need, version_id: str | None) -> operation_needs.Need:
    return need if version_id is None or need.versioned is None else need.versioned


def is_version_named(request: s3_request.S3Request) -> bool:
    """Whether the source is one version, not whatever is current."""
    raw_query = copy_header.parse(request.headers[copy_header.NAME]).raw_query
    return "versionId" in addressing.parse_query(raw_query)


def version_header(source: objects.ObjectRecord) -> dict[str, str]:
    """The header that names the version that was copied."""
    return {"x-amz-copy-source-version-id": source.version_id} if source.is_named else {}


class StoredBody:
    """A stored range as a ``BodySource``; digests are computed anew over what was read."""

    may_end_early = False

    def __init__(
        self,
        pieces: AsyncIterator[bytes | memoryview],
        *,
        size_bytes: int,
        digester: digests.BodyDigester,
        offload: offloading.Offload,
    ) -> None:
        self._pieces = pieces
        self.size_bytes = size_bytes
        self._left_bytes = size_bytes
        self._digester = digester
        self._offload = offload
        self._rest = memoryview(b"")

    async def readinto(self, *views: memoryview) -> int:
        """See ``BodySource.readinto``."""
        filled = [view[: await self._fill(view)] for view in views]
        await request_body.digest(self._digester, filled, self._offload)
        return sum(map(len, filled))

    async def _fill(self, view: memoryview) -> int:
        wanted = min(len(view), self._left_bytes)
        filled = 0
        while filled < wanted:
            if not self._rest:
                try:
                    self._rest = memoryview(await anext(self._pieces))
                except StopAsyncIteration as exc:
                    raise errors.BodyTruncatedError("the copy's source ended early") from exc
                continue
            piece = self._rest[: wanted - filled]
            view[filled : filled + len(piece)] = piece
            filled += len(piece)
            self._rest = self._rest[len(piece) :]
        self._left_bytes -= filled
        return filled

    async def finish(self) -> objects.BodyDigests:
        """See ``BodySource.finish``."""
        if self._left_bytes:
            raise errors.BodyTruncatedError("the copy's source was not read to its end")
        return self._digester.finish({})


def body(
    request: s3_request.S3Request,
    record: objects.ObjectRecord,
    *,
    start_bytes: int,
    length_bytes: int,
    algorithms: Mapping[str, str] | tuple[str, ...],
) -> StoredBody:
    """A range of ``record`` as the body of a write, with the given checksums computed."""
    return StoredBody(
        request.objects.stream(record, start_bytes=start_bytes, length_bytes=length_bytes),
        size_bytes=length_bytes,
        digester=digests.BodyDigester(
            tuple(algorithms), shared_md5=request.shared_md5(length_bytes)
        ),
        offload=request.offload,
    )
