"""POST /bucket/key?uploadId."""

from __future__ import annotations

from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.protocol import conditions, xml_reading, xml_writing


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Make the named parts one object; repeating it answers the same."""
    parts = xml_reading.complete_multipart_upload(await request.document(required=True))
    upload = await request.uploads.get_upload(
        bucket=request.bucket, key=request.key, upload_id=request.query["uploadId"]
    )
    record = await request.uploads.complete_upload(
        upload, parts=parts, conditions=conditions.of_write(request.headers)
    )
    xml = xml_writing.Document("CompleteMultipartUploadResult")
    xml.text("Location", request.location()).text("Bucket", request.bucket)
    xml.text("Key", request.key).text("ETag", f'"{record.etag}"')
    for algorithm, value in record.checksums.items():
        xml.text(f"Checksum{algorithm.upper()}", value)
    if record.checksums:
        xml.text("ChecksumType", record.checksum_type)
    return responses.document(xml.finish())
