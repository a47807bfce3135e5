"""GET /bucket?tagging."""

from __future__ import annotations

from couchestor_domain import objects
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses


async def run(request: s3_request.S3Request) -> responses.Reply:
    """The tags of a bucket; NoSuchTagSet if it has none."""
    stored = await request.buckets.get_setting(bucket=request.bucket, setting=objects.Setting.TAGS)
    return responses.document(stored)
