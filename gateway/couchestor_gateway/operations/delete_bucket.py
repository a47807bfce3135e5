"""DELETE /bucket."""

from __future__ import annotations

import contextlib

from couchestor_domain import errors, objects
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Remove a bucket without objects; uploads that were never completed go with it, as on AWS."""
    bucket = request.bucket
    # Asked first, so that a refused request does not cost a client its uploads.
    page = await request.objects.list_objects(objects.ListQuery(bucket=bucket, limit=1))
    if page.objects:
        raise errors.BucketNotEmptyError(f"bucket {bucket} still has objects", bucket=bucket)
    while True:
        under_way = await request.uploads.list_uploads(objects.UploadQuery(bucket=bucket))
        for upload in under_way.uploads:
            with contextlib.suppress(errors.NoSuchUploadError):
                await request.uploads.abort_upload(
                    bucket=bucket, key=upload.key, upload_id=upload.upload_id
                )
        if not under_way.truncated:
            break
    await request.buckets.delete_bucket(name=bucket, bucket_owner=request.bucket_record.owner)
    return responses.Reply(204)
