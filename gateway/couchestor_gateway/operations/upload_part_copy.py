"""PUT /bucket/key?partNumber&uploadId with x-amz-copy-source."""

from __future__ import annotations

from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.operations import copy_source, versions
from couchestor_gateway.protocol import ranges, s3_error, timestamps, xml_writing


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Store a part from a range of an existing object."""
    number = versions.part_number(request.query.get("partNumber", ""))
    upload = await request.find_upload()
    source = await copy_source.find(request)
    start, length = 0, source.size_bytes
    range_text = request.headers.get("x-amz-copy-source-range")
    if range_text is not None:
        start, length = ranges.parse_copy_source_range(range_text, source.size_bytes)
    if length > request.body_bytes_max:
        raise s3_error.make("EntityTooLarge")
    algorithm = upload.checksum_algorithm
    body = copy_source.body(
        request,
        source,
        start_bytes=start,
        length_bytes=length,
        algorithms=(algorithm,) if algorithm else (),
    )
    part = await request.uploads.put_part(upload, part_number=number, body=body)
    xml = xml_writing.Document("CopyPartResult")
    xml.text("LastModified", timestamps.iso8601(part.modified_ns))
    xml.text("ETag", f'"{part.etag}"')
    for name, value in part.checksums.items():
        xml.text(f"Checksum{name.upper()}", value)
    return responses.document(xml.finish(), headers=copy_source.version_header(source))
