"""GET /bucket?list-type=2."""

from __future__ import annotations

from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.operations import listing
from couchestor_gateway.protocol import list_encoding, xml_writing


async def run(request: s3_request.S3Request) -> responses.Reply:
    """A page of keys; the continuation token stands for the last entry of the page before."""
    parameters = request.query
    encode = list_encoding.key_encoder(parameters)
    start_after = parameters.get("start-after", "")
    token = parameters.get("continuation-token")
    # An empty token is where some clients start.
    after = list_encoding.decode_token(token) if token else start_after
    query = listing.query(request.bucket, parameters, after=after)
    page = await request.objects.list_objects(query)
    truncated = page.truncated and query.limit > 0
    xml = xml_writing.Document("ListBucketResult")
    xml.text("Name", request.bucket).text("Prefix", encode(query.prefix))
    if query.delimiter:
        xml.text("Delimiter", encode(query.delimiter))
    xml.text("MaxKeys", query.limit)
    if parameters.get("encoding-type"):
        xml.text("EncodingType", "url")
    xml.text("KeyCount", len(page.objects) + len(page.common_prefixes))
    xml.flag("IsTruncated", truncated)
    if token is not None:
        xml.text("ContinuationToken", token)
    if truncated:
        xml.text("NextContinuationToken", list_encoding.encode_token(page.last))
    if start_after:
        xml.text("StartAfter", encode(start_after))
    with_owner = parameters.get("fetch-owner", "").lower() == "true"
    listing.write_contents(xml, page, encode, request=request, with_owner=with_owner)
    listing.write_prefixes(xml, page.common_prefixes, encode)
    return responses.document(xml.finish())
