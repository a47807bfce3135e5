"""DELETE /bucket/key?tagging."""

from __future__ import annotations

from couchestor_domain import notices, objects
from couchestor_gateway.edge import announcements, responses
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.operations import versions


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Leave a version, the current one by default, without tags."""
    version_id = versions.named(request.query)
    judged = await request.find_object(version_id)
    record = await request.objects.set_tags(
        bucket=request.bucket,
        key=request.key,
        version_id=versions.judged(judged, version_id),
        tags=objects.EMPTY_MAP,
        bucket_owner=request.bucket_record.owner,
        announcement=announcements.of(request, notices.TAGS_DELETED),
    )
    return responses.Reply(204, versions.of_record(record))
