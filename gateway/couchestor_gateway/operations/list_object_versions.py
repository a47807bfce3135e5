"""GET /bucket?versions."""

from __future__ import annotations

from couchestor_domain import objects
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.operations import listing
from couchestor_gateway.protocol import (
    list_encoding,
    permissions,
    s3_error,
    timestamps,
    xml_writing,
)


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Versions and delete markers by key, the newest of each first."""
    parameters = request.query
    encode = list_encoding.key_encoder(parameters)
    query = objects.VersionQuery(
        bucket=request.bucket,
        prefix=parameters.get("prefix", ""),
        delimiter=parameters.get("delimiter", ""),
        key_marker=parameters.get("key-marker", ""),
        version_marker=parameters.get("version-id-marker", ""),
        limit=list_encoding.page_limit(parameters, "max-keys"),
    )
    if query.version_marker and not query.key_marker:
        raise s3_error.make(
            "InvalidArgument", "A version-id marker cannot be specified without a key marker."
        )
    page = await request.objects.list_versions(query)
    xml = xml_writing.Document("ListVersionsResult")
    xml.text("Name", request.bucket).text("Prefix", encode(query.prefix))
    xml.text("KeyMarker", encode(query.key_marker)).text("VersionIdMarker", query.version_marker)
    if page.truncated:
        xml.text("NextKeyMarker", encode(page.next_key_marker))
        if page.next_version_marker:
            xml.text("NextVersionIdMarker", page.next_version_marker)
    xml.text("MaxKeys", query.limit)
    if query.delimiter:
        xml.text("Delimiter", encode(query.delimiter))
    if parameters.get("encoding-type"):
        xml.text("EncodingType", "url")
    xml.flag("IsTruncated", page.truncated)
    for record in page.versions:
        kind = "DeleteMarker" if record.is_delete_marker else "Version"
        xml.open(kind).text("Key", encode(record.key)).text("VersionId", record.version_id)
        xml.flag("IsLatest", record.is_latest)
        xml.text("LastModified", timestamps.iso8601(record.modified_ns))
        if not record.is_delete_marker:
            xml.text("ETag", f'"{record.etag}"').text("Size", record.size_bytes)
        owner = permissions.owner_of(request.bucket_record, record)
        xml.owner(owner, request.display_name(owner))
        if not record.is_delete_marker:
            xml.text("StorageClass", "STANDARD")
        xml.close(kind)
    listing.write_prefixes(xml, page.common_prefixes, encode)
    return responses.document(xml.finish())
