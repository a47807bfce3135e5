"""GET /bucket?versioning."""

from __future__ import annotations

from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.protocol import xml_writing


async def run(request: s3_request.S3Request) -> responses.Reply:
    """The empty configuration: versioning was never enabled."""
    await request.buckets.get_bucket(request.bucket)
    return responses.document(xml_writing.Document("VersioningConfiguration").finish())
