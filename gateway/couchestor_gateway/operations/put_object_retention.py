"""PUT /bucket/key?retention."""

from __future__ import annotations

import dataclasses

from couchestor_domain import locking
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.operations import locks
from couchestor_gateway.protocol import lock_documents, lock_headers, s3_error


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Say how long a version is kept; 200 means that no later removal gets past it."""
    document = await request.document(required=True)
    now_ns = request.now_ns()
    retention = lock_documents.parse_retention(document, now_ns=now_ns)
    bypasses = locks.bypasses_governance(request, version_id=request.query.get("versionId"))

    def change(lock: locking.VersionLock) -> locking.VersionLock:
        if not locking.may_become(
            lock.retention, retention, now_ns=now_ns, bypasses_governance=bypasses
        ):
            raise s3_error.make(
                "AccessDenied", "Access Denied because object protected by object lock."
            )
        return dataclasses.replace(lock, retention=retention)

    return await locks.change(request, change, told=lock_headers.of_retention(retention))
