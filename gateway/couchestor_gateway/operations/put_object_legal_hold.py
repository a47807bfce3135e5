"""PUT /bucket/key?legal-hold."""

from __future__ import annotations

import dataclasses

from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.operations import locks
from couchestor_gateway.protocol import lock_documents, lock_headers


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Hold a version, or let it go; 200 means that no later removal gets past it."""
    hold = lock_documents.parse_legal_hold(await request.document(required=True))
    return await locks.change(
        request,
        lambda lock: dataclasses.replace(lock, legal_hold=hold),
        told=lock_headers.of_legal_hold(hold),
    )
