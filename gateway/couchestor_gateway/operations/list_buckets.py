"""GET / : the caller's buckets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.protocol import list_encoding, s3_error, timestamps, xml_writing

_PAGE_LIMIT_MAX: Final = 10_000


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Buckets by name, filtered by ``prefix`` and ``bucket-region``, paged by ``max-buckets``."""
    owner = request.account()
    query = request.query
    prefix = query.get("prefix", "")
    token = query.get("continuation-token", "")
    after = list_encoding.decode_token(token) if token else ""
    region = query.get("bucket-region", "")
    limit = _limit(query)
    found = [
        bucket
        for bucket in await request.buckets.list_buckets()
        if bucket.owner == owner
        and bucket.name.startswith(prefix)
        and bucket.name > after
        and region in ("", bucket.region)
    ]
    page = found[:limit]
    xml = xml_writing.Document("ListAllMyBucketsResult")
    xml.owner(owner, request.display_name(owner)).open("Buckets")
    for bucket in page:
        xml.open("Bucket").text("Name", bucket.name)
        xml.text("CreationDate", timestamps.iso8601(bucket.created_ns)).close("Bucket")
    xml.close("Buckets")
    if prefix:
        xml.text("Prefix", prefix)
    if len(found) > len(page):
        xml.text("ContinuationToken", list_encoding.encode_token(page[-1].name))
    return responses.document(xml.finish())


def _limit(query: Mapping[str, str]) -> int:
    text = query.get("max-buckets", "")
    if not text:
        return _PAGE_LIMIT_MAX
    if text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= _PAGE_LIMIT_MAX:
        return int(text)
    raise s3_error.make(
        "InvalidArgument",
        f"Argument max-buckets must be an integer between 1 and {_PAGE_LIMIT_MAX}",
        ArgumentName="max-buckets",
        ArgumentValue=text,
    )
