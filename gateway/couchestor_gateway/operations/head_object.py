"""HEAD /bucket/key."""

from __future__ import annotations

from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.operations import stored_range


async def run(request: s3_request.S3Request) -> responses.Reply:
    """What GET would answer, without the bytes."""
    selection = await stored_range.select(request)
    return responses.Reply(selection.status, selection.headers, length_bytes=selection.length_bytes)
