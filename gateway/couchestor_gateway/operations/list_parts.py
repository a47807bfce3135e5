"""GET /bucket/key?uploadId."""

from __future__ import annotations

from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.protocol import list_encoding, timestamps, xml_writing


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Parts of an upload by number."""
    query = request.query
    limit = list_encoding.page_limit(query, "max-parts")
    # The client knows the key: without an encoding it is no reason to refuse the page.
    encode = list_encoding.key_encoder(query) if query.get("encoding-type") else str
    marker = list_encoding.part_marker(query, "part-number-marker")
    upload = await request.find_upload()
    page = await request.uploads.list_parts(upload, after_part=marker, limit=limit)
    xml = xml_writing.Document("ListPartsResult")
    xml.text("Bucket", request.bucket).text("Key", encode(request.key))
    xml.text("UploadId", upload.upload_id)
    initiator = upload.initiator
    xml.owner(initiator, request.display_name(initiator), name="Initiator")
    xml.owner(upload.owner, request.display_name(upload.owner))
    xml.text("StorageClass", "STANDARD").text("PartNumberMarker", marker)
    if page.truncated:
        xml.text("NextPartNumberMarker", page.next_part_marker)
    xml.text("MaxParts", limit).flag("IsTruncated", page.truncated)
    if upload.checksum_algorithm:
        xml.text("ChecksumAlgorithm", upload.checksum_algorithm.upper())
        xml.text("ChecksumType", upload.checksum_type)
    for part in page.parts:
        xml.open("Part").text("PartNumber", part.number)
        xml.text("LastModified", timestamps.iso8601(part.modified_ns))
        xml.text("ETag", f'"{part.etag}"').text("Size", part.size_bytes)
        for algorithm, value in part.checksums.items():
            xml.text(f"Checksum{algorithm.upper()}", value)
        xml.close("Part")
    return responses.document(xml.finish())
