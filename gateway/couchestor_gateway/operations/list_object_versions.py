"""GET /bucket?versions: every current object as its null version."""

from __future__ import annotations

from couchestor_domain import objects
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.operations import listing
from couchestor_gateway.protocol import list_encoding, s3_error, timestamps, xml_writing


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Enough for tools that empty buckets; each key has exactly one version."""
    parameters = request.query
    encode = list_encoding.key_encoder(parameters)
    marker = parameters.get("key-marker", "")
    version_marker = parameters.get("version-id-marker", "")
    if version_marker and not marker:
        raise s3_error.make(
            "InvalidArgument", "A version-id marker cannot be specified without a key marker."
        )
    query = listing.query(request.bucket, parameters, after=marker)
    page = await request.objects.list_objects(query)
    truncated = page.truncated and query.limit > 0
    xml = xml_writing.Document("ListVersionsResult")
    xml.text("Name", request.bucket).text("Prefix", encode(query.prefix))
    xml.text("KeyMarker", encode(marker)).text("VersionIdMarker", version_marker)
    if truncated:
        xml.text("NextKeyMarker", encode(page.last))
        if page.objects and page.objects[-1].key == page.last:
            xml.text("NextVersionIdMarker", objects.NULL_VERSION)
    xml.text("MaxKeys", query.limit)
    if query.delimiter:
        xml.text("Delimiter", encode(query.delimiter))
    if parameters.get("encoding-type"):
        xml.text("EncodingType", "url")
    xml.flag("IsTruncated", truncated)
    for record in page.objects:
        xml.open("Version").text("Key", encode(record.key)).text("VersionId", record.version_id)
        xml.flag("IsLatest", True)
        xml.text("LastModified", timestamps.iso8601(record.modified_ns))
        xml.text("ETag", f'"{record.etag}"').text("Size", record.size_bytes)
        xml.owner(record.owner).text("StorageClass", "STANDARD").close("Version")
    listing.write_prefixes(xml, page.common_prefixes, encode)
    return responses.document(xml.finish())
