"""DELETE /bucket?policy."""

from __future__ import annotations

import dataclasses

from couchestor_domain import access
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.operations import bucket_owner


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Leave a bucket without a policy."""
    bucket_owner.require(request)

    def change(rules: access.BucketAccess) -> access.BucketAccess:
        return dataclasses.replace(rules, policy=None)

    await request.buckets.change_access(
        bucket=request.bucket, change=change, bucket_owner=request.bucket_record.owner
    )
    return responses.Reply(204)
