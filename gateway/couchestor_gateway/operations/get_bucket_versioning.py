"""GET /bucket?versioning."""

from __future__ import annotations

from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.protocol import xml_writing


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Whether versioning is enabled or suspended; an empty document if it never was."""
    bucket = await request.buckets.get_bucket(request.bucket)
    xml = xml_writing.Document("VersioningConfiguration")
    if bucket.versioning.value:
        xml.text("Status", bucket.versioning.value)
    return responses.document(xml.finish())
