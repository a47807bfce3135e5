"""An S3 request as operations see it: its head, its body, and what its sender may do."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Final

from aiohttp import web

from couchestor_domain import errors
from couchestor_domain import objects as records
from couchestor_gateway.edge import (
    addressing,
    authority,
    request_body,
    request_facts,
    request_head,
)
from couchestor_gateway.ports import credentials, hashing, offloading
from couchestor_gateway.protocol import (
    chunked,
    digests,
    operation_needs,
    request_identity,
    s3_error,
    xml_reading,
)
from couchestor_gateway.protocol.operation_needs import Place

_STREAMING: Final = frozenset(
    {
        request_identity.PayloadKind.STREAMING_SIGNED,
        request_identity.PayloadKind.STREAMING_SIGNED_TRAILER,
        request_identity.PayloadKind.STREAMING_UNSIGNED_TRAILER,
    }
)

_NOTHING: Final = operation_needs.Need(Place.SERVICE)
_JUDGED_LATER: Final = (Place.OBJECT, Place.OWN_OBJECT, Place.KEYS)
"""Of what conditions of a policy ask what is not known before a version or a body is read."""


class S3Request(request_head.RequestHead):
    """One request with its stores."""

    __slots__ = (
        *("_body", "_bucket_record", "_need"),
        *("buckets", "found_bytes", "is_over_limit", "objects", "uploads"),
    )

    def __init__(
        self,
        raw: web.BaseRequest,
        *,
        target: addressing.Target,
        headers: Mapping[str, str],
        amz_names: Collection[str],
        query: Mapping[str, str],
        identity: request_identity.Identity,
        services: request_head.Services,
    ) -> None:
        super().__init__(
            raw,
            target=target,
            headers=headers,
            amz_names=amz_names,
            query=query,
            identity=identity,
            services=services,
        )
        self._body: request_body.RequestBody | None = None
        self._bucket_record: records.BucketRecord | None = None
        self._need = _NOTHING
        self.is_over_limit = False
        """Whether it is one more than its sender may send now."""
        self.found_bytes: int | None = None
        """Size of the version that ``find_object`` found."""
        self.buckets = services.buckets
        self.objects = services.objects
        self.uploads = services.uploads

    @property
    def offload(self) -> offloading.Offload:
        """Where long buffers are hashed."""
        return self._services.offload

    def shared_md5(self, size_bytes: int) -> hashing.SharedMd5 | None:
        """For a body of so many bytes at most; None if it is hashed by itself."""
        new = self._services.new_shared_md5
        return None if new is None or size_bytes <= request_body.OFFLOAD_BYTES else new()

    @property
    def body_bytes_max(self) -> int:
        """Longest body."""
        return self._services.body_bytes_max

    async def body(self, *, algorithms: tuple[str, ...] = ()) -> request_body.RequestBody:
        """The body as a BodySource; a client that waits for 100 Continue gets it now.

        Its length may be unknown before its last chunk, as ``Transfer-Encoding: chunked`` allows.

        Args:
            algorithms: Checksums to compute even if the client gives none.

        Raises:
            S3Error: MissingContentLength, EntityTooLarge, InvalidArgument for a bad length,
                InvalidDigest and the like for bad digest headers.
        """
        return await self._open(self.body_bytes_max, algorithms=algorithms, needs_length=False)

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
        if self.raw.body_exists:
            body = await self._open(
                xml_reading.DOCUMENT_BYTES_MAX,
                too_long_code="MaxMessageLengthExceeded",
                is_checksummed=is_checksummed,
            )
            content = await body.read_all()
        if required and not content:
            raise s3_error.make("MalformedXML")
        return content

    @property
    def received_bytes(self) -> int:
        """Bytes of the body taken from the connection so far."""
        return 0 if self._body is None else self._body.received_bytes

    @property
    def known_bucket(self) -> records.BucketRecord | None:
        """The same; None as long as it has not been looked at."""
        return self._bucket_record

    @property
    def bucket_record(self) -> records.BucketRecord:
        """The bucket as it was when ``authorize`` looked at it."""
        assert self._bucket_record is not None, "this operation names no bucket"
        return self._bucket_record

    async def authorize(self, need: operation_needs.Need) -> None:
        """Look the bucket up, and stop whoever may not do what an operation needs.

        What is needed of a version or an upload is judged by ``find_object`` and ``find_upload``,
        once that has been read, and what of keys in a body by the operation.

        Raises:
            NoSuchBucketError
            S3Error: AccessDenied, also where the bucket is not of the owner that is expected;
                SlowDown for requests beyond a limit.
        """
        if need.versioned is not None and "versionId" in self.query:
            need = need.versioned
        self._need = need
        place = need.place
        credential = self.identity.credential
        if credential is not None and credential.admit is not None:
            self._require_admission(credential.admit)
        if place is Place.SERVICE:
            self.account()
            if self.member is not None and not authority.may_use_service(
                self, need, request_facts.RequestFacts(self, None)
            ):
                raise s3_error.make("AccessDenied")
            return
        bucket = await self.buckets.get_bucket(self.bucket)
        self._bucket_record = bucket
        expected = self.headers.get("x-amz-expected-bucket-owner")
        if expected is not None and expected != bucket.owner:
            raise s3_error.make("AccessDenied")
        if bucket.access.policy is None and self.member is None:
            if not authority.by_lists(bucket, self.caller, need):
                raise s3_error.make("AccessDenied")
        elif place not in _JUDGED_LATER and not self.may_all(need):
            raise s3_error.make("AccessDenied")

    def _require_admission(self, admit: credentials.Admit) -> None:
        """Tell whoever has sent more than a limit allows when to come back. Raises S3Error."""
        seconds = admit()
        if seconds > 0:
            self.is_over_limit = True
            raise s3_error.make("SlowDown", RetryAfter=str(math.ceil(seconds)))

    def may(
        self,
        need: operation_needs.Need,
        *,
        bucket: records.BucketRecord | None = None,
        key: str | None = None,
        version_id: str | None = None,
        record: records.ObjectRecord | None = None,
        upload: records.UploadRecord | None = None,
        prefix: str | None = None,
        tags: Mapping[str, str] | None = None,
        lock: Mapping[str, str] | None = None,
        if_match: str | None = None,
    ) -> bool:
        """Whether the caller has what is needed, as far as it can be judged yet.

        Args:
            bucket: Of what it is needed; the request's own if None. So the key.
            version_id: The one that is needed by name.
            record: The version that it is needed of.
            upload: The upload that it is needed of.
            prefix: What a listing would be asked for.
            tags: Those that the request's body gives.
            lock: What the request's body locks, as headers would.
            if_match: The condition in the request's body; empty: none, whatever headers say.
        """
        bucket = bucket or self.bucket_record
        if bucket.access.policy is None and self.member is None:
            return authority.by_lists(bucket, self.caller, need, record=record, upload=upload)
        return authority.may(
            self,
            bucket,
            need,
            key=self.key if key is None else key,
            facts=request_facts.RequestFacts(
                self,
                bucket,
                record=record,
                version_id=version_id,
                prefix=prefix,
                tags=tags,
                lock=lock,
                if_match=if_match,
            ),
            record=record,
            upload=upload,
        )

    def may_all(
        self,
        need: operation_needs.Need,
        *,
        key: str | None = None,
        version_id: str | None = None,
        if_match: str | None = None,
    ) -> bool:
        """Whether the caller has what is needed, also for what else the request asks for."""
        if version_id is None:
            version_id = self.query.get("versionId")
        return self.may(need, key=key, version_id=version_id, if_match=if_match) and all(
            self.may(further, key=key, version_id=version_id, if_match=if_match)
            for asked, further in need.further
            if request_facts.asks_for(self, asked)
        )

    def require(self, need: operation_needs.Need) -> None:
        """Stop whoever has not what ``may`` judges. Raises S3Error: AccessDenied."""
        if not self.may(need):
            raise s3_error.make("AccessDenied")

    async def find_object(
        self,
        version_id: str | None = None,
        *,
        tags: Mapping[str, str] | None = None,
        lock: Mapping[str, str] | None = None,
    ) -> records.ObjectRecord:
        """The version that the request names, the current one by default, if the operation may
        have it.

        Args:
            tags: Those that the request's body gives it.
            lock: What the request's body locks, as headers would.

        Raises:
            NoSuchKeyError, NoSuchVersionError, DeleteMarkerError
            S3Error: AccessDenied, also for what is missing where the caller may not list.
        """
        record = await self.usable_object(
            self.bucket_record,
            self.key,
            version_id=version_id,
            need=self._need,
            tags=tags,
            lock=lock,
        )
        self.found_bytes = record.size_bytes
        return record

    async def usable_object(
        self,
        bucket: records.BucketRecord,
        key: str,
        *,
        version_id: str | None,
        need: operation_needs.Need,
        tags: Mapping[str, str] | None = None,
        lock: Mapping[str, str] | None = None,
    ) -> records.ObjectRecord:
        """A version in any bucket, if the caller has what is needed of it.

        Raises:
            As ``find_object``.
        """
        try:
            record = await self.objects.get_object(
                bucket=bucket.name, key=key, version_id=version_id
            )
        except (errors.NoSuchKeyError, errors.NoSuchVersionError, errors.DeleteMarkerError):
            # As S3: what there is not is told to those who could list what there is.
            facts = request_facts.RequestFacts(
                self, bucket, version_id=version_id, tags=tags, lock=lock
            )
            if not authority.is_denied(self, bucket, need, key=key, facts=facts) and self.may(
                operation_needs.FIND, bucket=bucket, prefix=key
            ):
                raise
            raise s3_error.make("AccessDenied") from None
        if not self.may(
            need,
            bucket=bucket,
            key=key,
            version_id=version_id,
            record=record,
            tags=tags,
            lock=lock,
        ):
            raise s3_error.make("AccessDenied")
        return record

    async def find_upload(self) -> records.UploadRecord:
        """The upload that the request names, if the caller may go on with it.

        Raises:
            NoSuchUploadError
            S3Error: AccessDenied.
        """
        upload = await self.uploads.get_upload(
            bucket=self.bucket, key=self.key, upload_id=self.query["uploadId"]
        )
        need, bucket = self._need, self.bucket_record
        # Whoever goes on with one is its initiator or the bucket's owner, whom a policy also has to
        # let write; the others are whom it lets, too.
        may = (
            self.may(need, upload=upload)
            if need.permission is None
            else authority.by_lists(bucket, self.caller, need, upload=upload)
        )
        if not may:
            raise s3_error.make("AccessDenied")
        return upload

    async def _open(
        self,
        limit_bytes: int,
        *,
        too_long_code: str = "EntityTooLarge",
        algorithms: tuple[str, ...] = (),
        is_checksummed: bool = True,
        needs_length: bool = True,
    ) -> request_body.RequestBody:
        headers, raw = self.headers, self.raw
        identity = self.identity
        streaming = identity.payload in _STREAMING
        length = headers.get("x-amz-decoded-content-length" if streaming else "content-length")
        # With neither header a request has no body, which is not what its sender meant.
        is_unknown = length is None and not streaming and "transfer-encoding" in headers
        if is_unknown and not needs_length:
            size_bytes = limit_bytes
        else:
            is_unknown = False
            size_bytes = request_body.announced_bytes(
                length, limit_bytes, too_long_code=too_long_code
            )
        decoder = None
        if streaming:
            decoder = chunked.ChunkedDecoder(identity, size_bytes, _trailer_names(headers))
        digester = digests.BodyDigester.from_headers(
            headers,
            identity,
            algorithms=algorithms,
            is_checksummed=is_checksummed,
            shared_md5=self.shared_md5(size_bytes),
        )
        if "expect" in headers and headers["expect"].lower() == "100-continue":
            request_body.invite(raw)
        self._body = request_body.RequestBody(
            raw.content,
            size_bytes=size_bytes,
            decoder=decoder,
            digester=digester,
            offload=self._services.offload,
            stall_seconds=self._services.stall_seconds,
            may_end_early=is_unknown,
        )
        return self._body


def _trailer_names(headers: Mapping[str, str]) -> tuple[str, ...]:
    announced = headers.get("x-amz-trailer", "")
    return tuple(name.strip().lower() for name in announced.split(",") if name.strip())
