"""GET /bucket/key?attributes."""

from __future__ import annotations

from typing import Final

from couchestor_domain import objects
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.operations import versions
from couchestor_gateway.protocol import list_encoding, s3_error, timestamps, xml_writing

_HEADER: Final = "x-amz-object-attributes"
_ATTRIBUTES: Final = frozenset({"ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"})


async def run(request: s3_request.S3Request) -> responses.Reply:
    """What the client names about an object: ETag, checksum, parts, size, storage class."""
    record = await request.find_object(versions.named(request.query))
    wanted = _wanted(request)
    xml = xml_writing.Document("GetObjectAttributesResponse")
    if "ETag" in wanted:
        xml.text("ETag", record.etag)
    if "Checksum" in wanted and record.checksums:
        xml.open("Checksum")
        for algorithm, value in record.checksums.items():
            xml.text(f"Checksum{algorithm.upper()}", value)
        xml.text("ChecksumType", record.checksum_type).close("Checksum")
    if "ObjectParts" in wanted and record.part_count:
        _write_parts(xml, record, request)
    if "StorageClass" in wanted:
        xml.text("StorageClass", "STANDARD")
    if "ObjectSize" in wanted:
        xml.text("ObjectSize", record.size_bytes)
    headers = {"Last-Modified": timestamps.http_date(record.modified_ns)}
    return responses.document(xml.finish(), headers={**headers, **versions.of_record(record)})


def _wanted(request: s3_request.S3Request) -> set[str]:
    # Some clients send a list, others one header for each attribute.
    text = ",".join(value for name, value in request.headers.items() if name.lower() == _HEADER)
    names = {name.strip() for name in text.split(",") if name.strip()}
    if not names or names - _ATTRIBUTES:
        raise s3_error.make("InvalidArgument", "Invalid attribute name specified.")
    return names


def _write_parts(
    xml: xml_writing.Document, record: objects.ObjectRecord, request: s3_request.S3Request
) -> None:
    headers = request.headers
    limit = list_encoding.page_limit(headers, "x-amz-max-parts")
    marker = list_encoding.part_marker(headers, "x-amz-part-number-marker")
    sizes = record.part_sizes_bytes
    last = min(marker + limit, len(sizes))
    xml.open("ObjectParts").text("PartsCount", record.part_count)
    xml.text("PartNumberMarker", marker).text("MaxParts", limit)
    truncated = limit > 0 and last < len(sizes)
    xml.flag("IsTruncated", truncated)
    if truncated:
        xml.text("NextPartNumberMarker", last)
    for index in range(marker, last):
        xml.open("Part").text("PartNumber", index + 1).text("Size", sizes[index])
        if record.part_checksums:
            for algorithm, value in record.part_checksums[index].items():
                xml.text(f"Checksum{algorithm.upper()}", value)
        xml.close("Part")
    xml.close("ObjectParts")
