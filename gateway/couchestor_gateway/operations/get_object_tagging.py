"""GET /bucket/key?tagging."""

from __future__ import annotations

from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.operations import versions
from couchestor_gateway.protocol import tags


async def run(request: s3_request.S3Request) -> responses.Reply:
    """The tags of a version, the current one by default; an empty set if it has none."""
    record = await request.find_object(versions.named(request.query))
    return responses.document(tags.document(record.tags), headers=versions.of_record(record))
