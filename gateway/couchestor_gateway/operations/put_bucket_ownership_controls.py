"""PUT /bucket?ownershipControls."""

from __future__ import annotations

import dataclasses

from couchestor_domain import access
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.protocol import access_documents, s3_error


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Say who owns what is written; enforced only where the bucket's ACL is private."""
    ownership = access_documents.parse_ownership(await request.document(required=True))
    bucket = request.bucket_record

    def change(rules: access.BucketAccess) -> access.BucketAccess:
        changed = dataclasses.replace(rules, ownership=ownership)
        if not changed.has_acls and changed.acl is not None:
            raise s3_error.make("InvalidBucketAclWithObjectOwnership")
        return changed

    await request.buckets.change_access(
        bucket=request.bucket, change=change, bucket_owner=bucket.owner
    )
    return responses.Reply(200)
