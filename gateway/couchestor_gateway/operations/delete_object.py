"""DELETE /bucket/key."""

from __future__ import annotations

from couchestor_domain import notices
from couchestor_gateway.edge import announcements, responses
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.operations import delete_conditions, locks, versions
from couchestor_gateway.protocol import conditions, s3_error


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Remove the key or one version, on condition of its ETag; what is missing answers 204 too."""
    version_id = versions.named(request.query)
    asked = conditions.of_write(request.headers)
    if not await delete_conditions.may_set(request, asked, key=request.key, version_id=version_id):
        raise s3_error.make("AccessDenied")
    bucket_owner = request.bucket_record.owner
    deletion = await request.objects.delete_object(
        bucket=request.bucket,
        key=request.key,
        conditions=asked,
        version_id=version_id,
        owner=request.caller or bucket_owner,
        bucket_owner=bucket_owner,
        bypasses_governance=version_id is not None
        and locks.bypasses_governance(request, version_id=version_id),
        announcement=announcements.of(request, notices.REMOVED, notices.MARKED),
    )
    return responses.Reply(204, versions.of_deletion(deletion))
