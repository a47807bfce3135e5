"""GET /bucket?acl."""

from __future__ import annotations

from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.operations import acls


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Owner and grants of a bucket."""
    bucket = request.bucket_record
    return acls.answer(request, bucket.access.acl, owner=bucket.owner, version={})
