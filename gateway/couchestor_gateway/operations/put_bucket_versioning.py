"""PUT /bucket?versioning."""

from __future__ import annotations

from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.protocol import xml_reading


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Enable or suspend versioning; 200 means that every later write heeds it."""
    versioning = xml_reading.versioning_configuration(await request.document(required=True))
    await request.buckets.set_versioning(
        bucket=request.bucket,
        versioning=versioning,
        bucket_owner=request.bucket_record.owner,
    )
    return responses.Reply(200)
