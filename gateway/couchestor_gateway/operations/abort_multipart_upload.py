"""DELETE /bucket/key?uploadId."""

from __future__ import annotations

from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Forget an upload and its parts."""
    upload = await request.find_upload()
    await request.uploads.abort_upload(
        bucket=request.bucket, key=request.key, upload_id=upload.upload_id
    )
    return responses.Reply(204)
