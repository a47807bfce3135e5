"""GET /bucket/key."""

from __future__ import annotations

from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.operations import stored_range
from couchestor_gateway.ports import object_store


async def run(request: s3_request.S3Request) -> responses.Reply:
    """The object or a range of it: short ones in one write, long ones streamed."""
    record, status, start, length, headers = await stored_range.select(request)
    if length == 0:
        return responses.Reply(status, headers)
    if length <= object_store.FETCH_BYTES_MAX:
        body = await request.objects.fetch(record, start_bytes=start, length_bytes=length)
        return responses.Reply(status, headers, body)
    pieces = request.objects.stream(record, start_bytes=start, length_bytes=length)
    # Asked for before 200 is said, so that an object that cannot be read is told to be.
    first = await anext(pieces)
    return responses.Reply(status, headers, first, stream=pieces, length_bytes=length)
