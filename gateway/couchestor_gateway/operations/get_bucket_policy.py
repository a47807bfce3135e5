"""GET /bucket?policy."""

from __future__ import annotations

from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.operations import bucket_owner
from couchestor_gateway.protocol import s3_error


async def run(request: s3_request.S3Request) -> responses.Reply:
    """The policy of a bucket as it was put; NoSuchBucketPolicy if it has none."""
    bucket_owner.require(request)
    document = request.bucket_record.access.policy
    if document is None:
        raise s3_error.make("NoSuchBucketPolicy", BucketName=request.bucket)
    return responses.Reply(200, {"Content-Type": "application/json"}, document.encode())
