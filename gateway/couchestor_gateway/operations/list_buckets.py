"""GET / : the caller's buckets."""

from __future__ import annotations

from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.protocol import list_encoding, timestamps, xml_writing

_PAGE_LIMIT_MAX = 10_000


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Buckets by name, filtered by ``prefix`` and paged by ``max-buckets``."""
    query = request.query
    prefix = query.get("prefix", "")
    token = query.get("continuation-token", "")
    after = list_encoding.decode_token(token) if token else ""
    limit = _PAGE_LIMIT_MAX
    if "max-buckets" in query:
        limit = max(1, list_encoding.page_limit(query, "max-buckets"))
    found = [
        bucket
        for bucket in await request.buckets.list_buckets()
        if bucket.owner == request.owner and bucket.name.startswith(prefix) and bucket.name > after
    ]
    page = found[:limit]
    xml = xml_writing.Document("ListAllMyBucketsResult")
    xml.owner(request.owner).open("Buckets")
    for bucket in page:
        xml.open("Bucket").text("Name", bucket.name)
        xml.text("CreationDate", timestamps.iso8601(bucket.created_ns)).close("Bucket")
    xml.close("Buckets")
    if prefix:
        xml.text("Prefix", prefix)
    if len(found) > len(page):
        xml.text("ContinuationToken", list_encoding.encode_token(page[-1].name))
    return responses.document(xml.finish())
