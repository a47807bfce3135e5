"""GET /bucket?uploads."""

from __future__ import annotations

from couchestor_domain import objects
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.operations import listing
from couchestor_gateway.protocol import list_encoding, timestamps, xml_writing


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Uploads under way, by key and time of initiation."""
    parameters = request.query
    encode = list_encoding.key_encoder(parameters)
    key_marker = parameters.get("key-marker", "")
    # AWS ignores an upload-id marker that comes without a key marker.
    upload_marker = parameters.get("upload-id-marker", "") if key_marker else ""
    query = objects.UploadQuery(
        bucket=request.bucket,
        prefix=parameters.get("prefix", ""),
        delimiter=parameters.get("delimiter", ""),
        key_marker=key_marker,
        upload_id_marker=upload_marker,
        limit=list_encoding.page_limit(parameters, "max-uploads"),
    )
    page = await request.uploads.list_uploads(query)
    xml = xml_writing.Document("ListMultipartUploadsResult")
    xml.text("Bucket", request.bucket).text("KeyMarker", encode(key_marker))
    xml.text("UploadIdMarker", upload_marker)
    if page.truncated:
        xml.text("NextKeyMarker", encode(page.next_key_marker))
        xml.text("NextUploadIdMarker", page.next_upload_id_marker)
    xml.text("Prefix", encode(query.prefix))
    if query.delimiter:
        xml.text("Delimiter", encode(query.delimiter))
    if parameters.get("encoding-type"):
        xml.text("EncodingType", "url")
    xml.text("MaxUploads", query.limit).flag("IsTruncated", page.truncated)
    for upload in page.uploads:
        xml.open("Upload").text("Key", encode(upload.key)).text("UploadId", upload.upload_id)
        initiator = upload.initiator
        xml.owner(initiator, request.display_name(initiator), name="Initiator")
        xml.owner(upload.owner, request.display_name(upload.owner))
        xml.text("StorageClass", "STANDARD")
        xml.text("Initiated", timestamps.iso8601(upload.initiated_ns))
        if upload.checksum_algorithm:
            xml.text("ChecksumAlgorithm", upload.checksum_algorithm.upper())
            xml.text("ChecksumType", upload.checksum_type)
        xml.close("Upload")
    listing.write_prefixes(xml, page.common_prefixes, encode)
    return responses.document(xml.finish())
