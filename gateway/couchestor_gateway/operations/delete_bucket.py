"""DELETE /bucket."""

from __future__ import annotations

from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Remove an empty bucket."""
    await request.buckets.delete_bucket(name=request.bucket)
    return responses.Reply(204)
