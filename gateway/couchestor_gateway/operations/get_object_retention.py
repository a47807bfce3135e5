"""GET /bucket/key?retention."""

from __future__ import annotations

from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.operations import locks, versions
from couchestor_gateway.protocol import lock_documents, s3_error


async def run(request: s3_request.S3Request) -> responses.Reply:
    """How long a version is kept; NoSuchObjectLockConfiguration if nothing says so."""
    record = await request.find_object(versions.named(request.query))
    locks.require_lockable(request)
    if record.lock.retention is None:
        raise s3_error.make("NoSuchObjectLockConfiguration")
    return responses.document(
        lock_documents.write_retention(record.lock.retention), headers=versions.of_record(record)
    )
