"""POST /bucket/key?uploads."""

from __future__ import annotations

from typing import Final

from couchestor_domain import objects
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.operations import locks, new_object, object_headers
from couchestor_gateway.protocol import s3_error, tags, xml_writing

_TYPES: Final = {
    "crc32": ("COMPOSITE", "FULL_OBJECT"),
    "crc32c": ("COMPOSITE", "FULL_OBJECT"),
    "crc64nvme": ("FULL_OBJECT",),
    "sha1": ("COMPOSITE",),
    "sha256": ("COMPOSITE",),
}
"""Allowed checksum types of each algorithm, the default first."""


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Start an upload; its headers and metadata are fixed now."""
    headers = request.headers
    algorithm, kind = _checksum(
        headers.get("x-amz-checksum-algorithm", "").lower(),
        headers.get("x-amz-checksum-type", "").upper(),
    )
    # As S3: what nobody signed for could be gone on with by nobody.
    initiator = request.account()
    new = new_object.of_request(request)
    put = objects.PutRequest(
        bucket=request.bucket,
        key=request.key,
        headers=object_headers.standard(headers),
        metadata=object_headers.metadata(headers),
        tags=tags.of_header(headers.get("x-amz-tagging")),
        owner=new.owner,
        acl=new.acl,
        bucket_owner=request.bucket_record.owner,
        initiator=initiator,
        lock=locks.of_write(request),
    )
    upload = await request.uploads.create_upload(
        put, checksum_algorithm=algorithm, checksum_type=kind
    )
    xml = xml_writing.Document("InitiateMultipartUploadResult")
    xml.text("Bucket", request.bucket).text("Key", request.key)
    xml.text("UploadId", upload.upload_id)
    answer: dict[str, str] = {}
    if algorithm:
        answer["x-amz-checksum-algorithm"] = algorithm.upper()
        answer["x-amz-checksum-type"] = kind
    return responses.document(xml.finish(), headers=answer)


def _checksum(algorithm: str, kind: str) -> tuple[str, str]:
    if not algorithm:
        if kind:
            raise s3_error.make(
                "InvalidRequest", "x-amz-checksum-type needs x-amz-checksum-algorithm"
            )
        return "", ""
    allowed = _TYPES.get(algorithm)
    if allowed is None:
        raise s3_error.make("InvalidRequest", "Checksum algorithm provided is unsupported.")
    if not kind:
        return algorithm, allowed[0]
    if kind not in allowed:
        raise s3_error.make(
            "InvalidRequest",
            f"The {kind} checksum type cannot be used with the {algorithm} checksum algorithm.",
        )
    return algorithm, kind
