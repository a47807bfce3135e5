"""An authenticated S3 request as operations see it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from aiohttp import web

from couchestor_gateway.edge import addressing, request_body
from couchestor_gateway.ports import object_store, offloading
from couchestor_gateway.protocol import chunked, digests, request_identity, s3_error, xml_reading

_STREAMING: Final = frozenset(
    {
        request_identity.PayloadKind.STREAMING_SIGNED,
        request_identity.PayloadKind.STREAMING_SIGNED_TRAILER,
        request_identity.PayloadKind.STREAMING_UNSIGNED_TRAILER,
    }
)


class S3Request:
    """One request with its stores. A plain slotted class: one is made per request."""

    __slots__ = (
        "_body",
        "_offload",
        "_raw",
        "_stall_seconds",
        "body_bytes_max",
        "bucket",
        "buckets",
        "headers",
        "identity",
        "key",
        "objects",
        "owner",
        "query",
        "region",
        "uploads",
    )

    def __init__(
        self,
        raw: web.BaseRequest,
        *,
        target: addressing.Target,
        headers: Mapping[str, str],
        query: Mapping[str, str],
        identity: request_identity.Identity,
        region: str,
        buckets: object_store.BucketStore,
        objects: object_store.ObjectStore,
        uploads: object_store.UploadStore,
        offload: offloading.Offload,
        stall_seconds: float,
        body_bytes_max: int,
    ) -> None:
        self._raw = raw
        self._offload = offload
        self._stall_seconds = stall_seconds
        self._body: request_body.RequestBody | None = None
        self.body_bytes_max = body_bytes_max
        self.bucket = target.bucket
        self.key = target.key
        self.query = query
        self.headers = headers
        """Case-insensitive."""
        self.identity = identity
        credential = identity.credential
        if credential is None:
            raise s3_error.make("AccessDenied")
        self.owner = credential.owner
        self.region = region
        self.buckets = buckets
        self.objects = objects
        self.uploads = uploads

    @property
    def offload(self) -> offloading.Offload:
        """Where long buffers are hashed."""
        return self._offload

    async def body(self, *, algorithms: tuple[str, ...] = ()) -> request_body.RequestBody:
        """The body as a BodySource; a client that waits for 100 Continue gets it now.

        Args:
            algorithms: Checksums to compute even if the client gives none.

        Raises:
            S3Error: MissingContentLength, EntityTooLarge, InvalidArgument for a bad length,
                InvalidDigest and the like for bad digest headers.
        """
        return await self._open(self.body_bytes_max, algorithms=algorithms)

    async def document(self, *, required: bool = False, is_checksummed: bool = True) -> bytes:
        """The whole body of a request that carries an XML document; empty when there is none.

        Args:
            required: Refuse an empty body.
            is_checksummed: False where the checksum headers do not speak of the document.

        Raises:
            S3Error: as ``body``, but MaxMessageLengthExceeded for a long one; MalformedXML when
                ``required`` and empty.
        """
        content = b""
        if self._raw.body_exists:
            body = await self._open(
                xml_reading.DOCUMENT_BYTES_MAX,
                too_long_code="MaxMessageLengthExceeded",
                is_checksummed=is_checksummed,
            )
            content = await body.read_all()
        if required and not content:
            raise s3_error.make("MalformedXML")
        return content

    def location(self) -> str:
        """The object's address as the client reached it."""
        raw = self._raw
        return f"{raw.scheme}://{raw.host}{raw.raw_path.partition('?')[0]}"

    @property
    def received_bytes(self) -> int:
        """Bytes of the body taken from the connection so far."""
        return 0 if self._body is None else self._body.received_bytes

    async def require_own_bucket(self, name: str) -> None:
        """Raises NoSuchBucketError, or AccessDenied when the bucket is someone else's."""
        bucket = await self.buckets.get_bucket(name)
        if bucket.owner != self.owner:
            raise s3_error.make("AccessDenied")
        expected = self.headers.get("x-amz-expected-bucket-owner")
        if expected is not None and expected != bucket.owner:
            raise s3_error.make("AccessDenied")

    async def _open(
        self,
        limit_bytes: int,
        *,
        too_long_code: str = "EntityTooLarge",
        algorithms: tuple[str, ...] = (),
        is_checksummed: bool = True,
    ) -> request_body.RequestBody:
        headers, raw = self.headers, self._raw
        identity = self.identity
        streaming = identity.payload in _STREAMING
        size_bytes = request_body.announced_bytes(
            headers.get("x-amz-decoded-content-length" if streaming else "content-length"),
            limit_bytes,
            too_long_code=too_long_code,
        )
        decoder = None
        if streaming:
            decoder = chunked.ChunkedDecoder(identity, size_bytes, _trailer_names(headers))
        digester = digests.BodyDigester.from_headers(
            headers, identity, algorithms=algorithms, is_checksummed=is_checksummed
        )
        if "expect" in headers and headers["expect"].lower() == "100-continue":
            request_body.invite(raw)
        self._body = request_body.RequestBody(
            raw.content,
            size_bytes=size_bytes,
            decoder=decoder,
            digester=digester,
            offload=self._offload,
            stall_seconds=self._stall_seconds,
        )
        return self._body


def _trailer_names(headers: Mapping[str, str]) -> tuple[str, ...]:
    announced = headers.get("x-amz-trailer", "")
    return tuple(name.strip().lower() for name in announced.split(",") if name.strip())
