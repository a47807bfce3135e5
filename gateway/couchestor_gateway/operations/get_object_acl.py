"""GET /bucket/key?acl."""

from __future__ import annotations

from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.operations import acls, versions
from couchestor_gateway.protocol import permissions


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Owner and grants of a version, the current one by default."""
    record = await request.find_object(versions.named(request.query))
    owner = permissions.owner_of(request.bucket_record, record)
    return acls.answer(request, record.acl, owner=owner, version=versions.of_record(record))
