"""DELETE /bucket?publicAccessBlock."""

from __future__ import annotations

import dataclasses

from couchestor_domain import access
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Keep nothing from the public but what ACLs do not grant it."""

    def change(rules: access.BucketAccess) -> access.BucketAccess:
        return dataclasses.replace(rules, public_access=None)

    await request.buckets.change_access(
        bucket=request.bucket, change=change, bucket_owner=request.bucket_record.owner
    )
    return responses.Reply(204)
