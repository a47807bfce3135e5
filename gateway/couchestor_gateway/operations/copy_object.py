"""PUT /bucket/key with x-amz-copy-source."""

from __future__ import annotations

from typing import Final

from couchestor_domain import notices, objects, units
from couchestor_gateway.edge import announcements, responses
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.operations import (
    copy_source,
    expiration_header,
    locks,
    new_object,
    object_headers,
    versions,
)
from couchestor_gateway.protocol import (
    conditions,
    digests,
    s3_error,
    tags,
    timestamps,
    xml_writing,
)

COPY_BYTES_MAX: Final = 5 * units.GIB

_CHANGING: Final = ("x-amz-storage-class", "x-amz-checksum-algorithm")
"""Headers that name what is new about the copy, beside its metadata."""


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Copy an object; onto itself only when something about it changes."""
    headers = request.headers
    directive = headers.get("x-amz-metadata-directive", "COPY").upper()
    if directive not in ("COPY", "REPLACE"):
        raise s3_error.make("InvalidArgument", "Unknown metadata directive.")
    if "x-amz-copy-source-range" in headers:
        raise s3_error.make(
            "InvalidRequest", "Only a part of an upload can be copied from a range of its source."
        )
    tagging = headers.get("x-amz-tagging-directive", "COPY").upper()
    if tagging not in ("COPY", "REPLACE"):
        raise s3_error.make("InvalidArgument", "Unknown tagging directive.")
    replaced_tags = tags.of_header(headers.get("x-amz-tagging"))
    new = new_object.of_request(request)
    source = await copy_source.find(request, with_tags=tagging == "COPY")
    is_itself = (source.bucket, source.key) == (request.bucket, request.key)
    # A version that is named is brought back by copying it over the newer ones.
    is_changed = (
        directive == "REPLACE"
        or any(headers.get(name) for name in _CHANGING)
        or copy_source.is_version_named(request)
    )
    if is_itself and not is_changed:
        raise s3_error.make(
            "InvalidRequest",
            "This copy request is illegal because it is trying to copy an object to itself without"
            " changing the object's metadata, storage class, website redirect location or"
            " encryption attributes.",
        )
    if source.size_bytes > COPY_BYTES_MAX:
        raise s3_error.make(
            "InvalidRequest",
            f"The specified copy source is larger than the maximum allowable size for a copy"
            f" source: {COPY_BYTES_MAX}",
        )
    replaced_headers = object_headers.standard(headers)
    replace = directive == "REPLACE"
    put = objects.PutRequest(
        bucket=request.bucket,
        key=request.key,
        headers=replaced_headers if replace else source.headers,
        metadata=object_headers.metadata(headers) if replace else source.metadata,
        tags=replaced_tags if tagging == "REPLACE" else source.tags,
        conditions=conditions.of_write(headers),
        owner=new.owner,
        acl=new.acl,
        bucket_owner=request.bucket_record.owner,
        lock=locks.of_write(request),
        announcement=announcements.of(request, notices.CREATED_COPY),
    )
    asked = headers.get("x-amz-checksum-algorithm", "").lower()
    if asked and asked not in digests.ALGORITHMS:
        raise s3_error.make("InvalidRequest", "Checksum algorithm provided is unsupported.")
    body = copy_source.body(
        request,
        source,
        start_bytes=0,
        length_bytes=source.size_bytes,
        algorithms=(asked,) if asked else tuple(source.checksums),
    )
    record = await request.objects.put_object(put, body)
    xml = xml_writing.Document("CopyObjectResult")
    xml.text("LastModified", timestamps.iso8601(record.modified_ns))
    xml.text("ETag", f'"{record.etag}"')
    for algorithm, value in record.checksums.items():
        xml.text(f"Checksum{algorithm.upper()}", value)
    if record.checksums:
        xml.text("ChecksumType", record.checksum_type)
    answer = {**versions.of_write(record), **copy_source.version_header(source)}
    await expiration_header.add(answer, request, record)
    return responses.document(xml.finish(), headers=answer)
