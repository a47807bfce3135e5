"""DELETE /bucket?ownershipControls."""

from __future__ import annotations

import dataclasses

from couchestor_domain import access
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Leave what is written to its writers, as in a bucket that nothing was said of."""

    def change(rules: access.BucketAccess) -> access.BucketAccess:
        return dataclasses.replace(rules, ownership=access.Ownership.UNSET)

    await request.buckets.change_access(
        bucket=request.bucket, change=change, bucket_owner=request.bucket_record.owner
    )
    return responses.Reply(204)
