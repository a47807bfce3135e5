"""GET /bucket?cors."""

from __future__ import annotations

from couchestor_domain import objects
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses


async def run(request: s3_request.S3Request) -> responses.Reply:
    """The rules for other sites; NoSuchCORSConfiguration if the bucket has none."""
    stored = await request.buckets.get_setting(bucket=request.bucket, setting=objects.Setting.CORS)
    return responses.document(stored)
