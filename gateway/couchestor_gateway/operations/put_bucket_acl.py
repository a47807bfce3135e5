"""PUT /bucket?acl."""

from __future__ import annotations

import dataclasses

from couchestor_domain import access
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.operations import acls, new_object
from couchestor_gateway.protocol import s3_error


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Replace the ACL of a bucket; 200 means that every later request is judged by it."""
    owner = request.bucket_record.owner
    acl = await acls.given(request, owner=owner, bucket_owner=None)

    def change(rules: access.BucketAccess) -> access.BucketAccess:
        if not rules.has_acls:
            raise s3_error.make("AccessControlListNotSupported")
        new_object.require_unblocked(rules, acl)
        return dataclasses.replace(rules, acl=acl)

    await request.buckets.change_access(bucket=request.bucket, change=change, bucket_owner=owner)
    return responses.Reply(200)
