"""PUT /bucket/key?acl."""

from __future__ import annotations

from couchestor_domain import notices
from couchestor_gateway.edge import announcements, responses
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.operations import acls, new_object, versions


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Replace the ACL of a version, the current one by default."""
    bucket = request.bucket_record
    record = await request.find_object(versions.named(request.query))
    acl = await acls.given(request, owner=record.owner, bucket_owner=bucket.owner)
    new_object.require_unblocked(bucket.access, acl)
    await request.objects.set_acl(
        record, acl, announcement=announcements.of(request, notices.ACL_PUT)
    )
    return responses.Reply(200, versions.of_record(record))
