"""GET /bucket?object-lock."""

from __future__ import annotations

from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.protocol import lock_documents, s3_error


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Whether versions can be locked; ObjectLockConfigurationNotFoundError if they cannot."""
    lock = request.bucket_record.object_lock
    if lock is None:
        raise s3_error.make("ObjectLockConfigurationNotFoundError", BucketName=request.bucket)
    return responses.document(lock_documents.write_configuration(lock))
