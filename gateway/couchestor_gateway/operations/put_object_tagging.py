"""PUT /bucket/key?tagging."""

from __future__ import annotations

from couchestor_domain import notices
from couchestor_gateway.edge import announcements, responses
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.operations import versions
from couchestor_gateway.protocol import tags, xml_reading


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Replace the tags of a version, the current one by default."""
    version_id = versions.named(request.query)
    pairs = xml_reading.tagging(
        await request.document(required=True), tags_max=tags.OBJECT_TAGS_MAX
    )
    given = tags.checked(pairs, count_max=tags.OBJECT_TAGS_MAX)
    judged = await request.find_object(version_id, tags=given)
    record = await request.objects.set_tags(
        bucket=request.bucket,
        key=request.key,
        version_id=versions.judged(judged, version_id),
        tags=given,
        bucket_owner=request.bucket_record.owner,
        announcement=announcements.of(request, notices.TAGS_PUT),
    )
    return responses.Reply(200, versions.of_record(record))
