"""DELETE /bucket?lifecycle."""

from __future__ import annotations

from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Let nothing in a bucket expire any more."""
    await request.buckets.put_lifecycle(
        bucket=request.bucket, configuration=None, bucket_owner=request.bucket_record.owner
    )
    return responses.Reply(204)
