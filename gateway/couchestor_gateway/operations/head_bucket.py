"""HEAD /bucket."""

from __future__ import annotations

from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses


async def run(request: s3_request.S3Request) -> responses.Reply:
    """200 when the bucket exists and is the caller's."""
    bucket = await request.buckets.get_bucket(request.bucket)
    return responses.Reply(200, {"x-amz-bucket-region": bucket.region})
