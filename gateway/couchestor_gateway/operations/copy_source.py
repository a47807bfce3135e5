"""The object a copy reads from, and its bytes as the body of a write."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Final

from couchestor_domain import access, errors, objects
from couchestor_gateway.edge import addressing, request_body
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.operations import versions
from couchestor_gateway.ports import offloading
from couchestor_gateway.protocol import conditions, digests, s3_error

_HEADER: Final = "x-amz-copy-source"


async def find(request: s3_request.S3Request) -> objects.ObjectRecord:
    """The source's version, if the caller may read it; ``x-amz-copy-source-if-*`` checked.

    Raises:
        S3Error: InvalidArgument, AccessDenied, PreconditionFailed.
        NoSuchBucketError, NoSuchKeyError
    """
    text = request.headers[_HEADER]
    path, _, raw_query = text.partition("?")
    version_id = versions.named(addressing.parse_query(raw_query))
    bucket, _, key = addressing.decode(path).removeprefix("/").partition("/")
    if not bucket or not key:
        raise s3_error.make(
            "InvalidArgument",
            "Copy Source must mention the source bucket and key",
            **{
                "ArgumentName": _HEADER,
                "ArgumentValue": text,
            },
        )
    source = request.bucket_record
    if bucket != request.bucket:
        source = await request.buckets.get_bucket(bucket)
    expected = request.headers.get("x-amz-source-expected-bucket-owner")
    if expected is not None and expected != source.owner:
        raise s3_error.make("AccessDenied")
    record = await request.readable_object(
        source, key, version_id=version_id, permission=access.Permission.READ
    )
    conditions.check_copy_source(request.headers, etag=record.etag, modified_ns=record.modified_ns)
    return record


def is_version_named(request: s3_request.S3Request) -> bool:
    """Whether the source is one version, not whatever is current."""
    raw_query = request.headers[_HEADER].partition("?")[2]
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
        digester=digests.BodyDigester(tuple(algorithms)),
        offload=request.offload,
    )
