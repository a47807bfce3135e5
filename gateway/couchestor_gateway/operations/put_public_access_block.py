"""PUT /bucket?publicAccessBlock."""

from __future__ import annotations

import dataclasses

from couchestor_domain import access
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.protocol import access_documents


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Keep the public from a bucket; what let it in before stays, and is ignored where asked."""
    block = access_documents.parse_block(await request.document(required=True))

    def change(rules: access.BucketAccess) -> access.BucketAccess:
        return dataclasses.replace(rules, public_access=block)

    await request.buckets.change_access(
        bucket=request.bucket, change=change, bucket_owner=request.bucket_record.owner
    )
    return responses.Reply(200)
