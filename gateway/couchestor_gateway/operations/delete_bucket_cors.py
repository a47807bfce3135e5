"""DELETE /bucket?cors."""

from __future__ import annotations

from couchestor_domain import objects
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Let no other site in any more."""
    await request.buckets.put_setting(
        bucket=request.bucket,
        setting=objects.Setting.CORS,
        value=None,
        bucket_owner=request.bucket_record.owner,
    )
    return responses.Reply(204)
