"""GET /bucket?ownershipControls."""

from __future__ import annotations

from couchestor_domain import access
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.protocol import access_documents, s3_error


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Who owns what is written; OwnershipControlsNotFoundError where nothing was said."""
    ownership = request.bucket_record.access.ownership
    if ownership is access.Ownership.UNSET:
        raise s3_error.make("OwnershipControlsNotFoundError", BucketName=request.bucket)
    return responses.document(access_documents.write_ownership(ownership))
