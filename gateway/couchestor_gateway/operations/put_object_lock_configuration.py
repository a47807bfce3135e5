"""PUT /bucket?object-lock."""

from __future__ import annotations

from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.protocol import lock_documents


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Let versions be locked, for good, and say how those are that ask for no retention."""
    lock = lock_documents.parse_configuration(await request.document(required=True))
    await request.buckets.set_object_lock(
        bucket=request.bucket, lock=lock, bucket_owner=request.bucket_record.owner
    )
    return responses.Reply(200)
