"""GET /bucket?publicAccessBlock."""

from __future__ import annotations

from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.protocol import access_documents, s3_error


async def run(request: s3_request.S3Request) -> responses.Reply:
    """What is kept from the public; NoSuchPublicAccessBlockConfiguration where nothing was said."""
    block = request.bucket_record.access.public_access
    if block is None:
        raise s3_error.make("NoSuchPublicAccessBlockConfiguration", BucketName=request.bucket)
    return responses.document(access_documents.write_block(block))
