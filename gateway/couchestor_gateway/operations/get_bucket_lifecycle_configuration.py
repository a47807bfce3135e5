"""GET /bucket?lifecycle."""

from __future__ import annotations

from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.operations import expiration_header
from couchestor_gateway.protocol import lifecycle_document, s3_error


async def run(request: s3_request.S3Request) -> responses.Reply:
    """The rules of a bucket's lifecycle; NoSuchLifecycleConfiguration if it has none."""
    configuration = await request.buckets.get_lifecycle(request.bucket)
    if configuration is None:
        raise s3_error.make("NoSuchLifecycleConfiguration", BucketName=request.bucket)
    return responses.document(
        lifecycle_document.write(configuration),
        headers=expiration_header.of_configuration(configuration),
    )
