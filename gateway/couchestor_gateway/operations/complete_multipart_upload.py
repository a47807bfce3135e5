"""POST /bucket/key?uploadId."""

from __future__ import annotations

from collections.abc import Mapping

from couchestor_domain import notices, objects
from couchestor_gateway.edge import announcements, responses
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.operations import expiration_header, versions
from couchestor_gateway.protocol import conditions, digests, s3_error, xml_reading, xml_writing


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Make the named parts one object; repeating it answers the same."""
    document = await request.document(required=True, is_checksummed=False)
    parts = xml_reading.complete_multipart_upload(document)
    upload = await request.find_upload()
    record = await request.uploads.complete_upload(
        upload,
        parts=parts,
        conditions=conditions.of_write(request.headers),
        expected=_expected(request.headers, upload),
        announcement=announcements.of(request, notices.CREATED_UPLOAD),
    )
    xml = xml_writing.Document("CompleteMultipartUploadResult")
    xml.text("Location", request.location()).text("Bucket", request.bucket)
    xml.text("Key", request.key).text("ETag", f'"{record.etag}"')
    for algorithm, value in record.checksums.items():
        xml.text(f"Checksum{algorithm.upper()}", value)
    if record.checksums:
        xml.text("ChecksumType", record.checksum_type)
    answer = versions.of_write(record)
    await expiration_header.add(answer, request, record)
    return responses.document(xml.finish(), headers=answer)


def _expected(headers: Mapping[str, str], upload: objects.UploadRecord) -> objects.ExpectedObject:
    """Here the checksum headers speak of the object, not of the request's body."""
    kind = headers.get("x-amz-checksum-type", "").upper()
    if kind and upload.checksum_type and kind != upload.checksum_type:
        raise s3_error.make(
            "InvalidRequest",
            f"The upload was created using the {upload.checksum_type} checksum mode. The complete"
            " request must use the same checksum mode.",
        )
    size = headers.get("x-amz-mp-object-size")
    if size is not None and not (size.isascii() and size.isdigit() and len(size) < 20):
        raise s3_error.make("InvalidArgument", "x-amz-mp-object-size is not a number.")
    return objects.ExpectedObject(
        checksums=digests.given(headers), size_bytes=None if size is None else int(size)
    )
