"""PUT /bucket?tagging."""

from __future__ import annotations

from couchestor_domain import objects
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.protocol import tags, xml_reading


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Replace the tags of a bucket. Kept as the document that answers a question for them."""
    pairs = xml_reading.tagging(
        await request.document(required=True), tags_max=tags.BUCKET_TAGS_MAX
    )
    document = tags.document(tags.checked(pairs, count_max=tags.BUCKET_TAGS_MAX))
    await request.buckets.put_setting(
        bucket=request.bucket,
        setting=objects.Setting.TAGS,
        value=document,
        bucket_owner=request.bucket_record.owner,
    )
    return responses.Reply(204)
