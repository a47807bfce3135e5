"""GET /bucket: the first version of listing."""

from __future__ import annotations

from collections.abc import Callable

from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.operations import listing
from couchestor_gateway.protocol import list_encoding, xml_writing


async def run(request: s3_request.S3Request) -> responses.Reply:
    """A page after ``marker``. NextMarker is given only with a delimiter, as AWS does."""
    parameters = request.query
    encode = list_encoding.key_encoder(parameters)
    query = listing.query(request.bucket, parameters, after=parameters.get("marker", ""))
    page = await request.objects.list_objects(query)
    truncated = page.truncated and query.limit > 0
    xml = xml_writing.Document("ListBucketResult")
    xml.text("Name", request.bucket).text("Prefix", _echoed(query.prefix, encode))
    xml.text("Marker", encode(query.after))
    if truncated and query.delimiter:
        xml.text("NextMarker", encode(page.last))
    xml.text("MaxKeys", query.limit)
    if query.delimiter:
        xml.text("Delimiter", encode(query.delimiter))
    if parameters.get("encoding-type"):
        xml.text("EncodingType", "url")
    xml.flag("IsTruncated", truncated)
    listing.write_contents(xml, page, encode, request=request, with_owner=True)
    listing.write_prefixes(xml, page.common_prefixes, encode)
    return responses.document(xml.finish())


def _echoed(prefix: str, encode: Callable[[str], str]) -> str:
    """The prefix as it came: boto3 decodes every other element of this listing, but not this one.

    Only what XML cannot hold is encoded, for clients that asked for it; others are refused.
    """
    return prefix if xml_writing.is_writable(prefix) else encode(prefix)
