"""PUT /bucket?cors."""

from __future__ import annotations

import functools

from couchestor_domain import objects
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.protocol import cors


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Replace a bucket's rules for other sites. Kept as the document that answers a question."""
    document = await request.document(required=True)
    stored = await request.offload(functools.partial(_checked, document))
    assert isinstance(stored, bytes), stored
    await request.buckets.put_setting(
        bucket=request.bucket,
        setting=objects.Setting.CORS,
        value=stored,
        bucket_owner=request.bucket_record.owner,
    )
    return responses.Reply(200)


def _checked(document: bytes) -> bytes:
    return cors.write(cors.parse(document))
