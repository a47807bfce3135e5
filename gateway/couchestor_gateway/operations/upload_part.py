"""PUT /bucket/key?partNumber&uploadId."""

from __future__ import annotations

from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.operations import object_headers, versions


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Store or replace one part."""
    number = versions.part_number(request.query.get("partNumber", ""))
    upload = await request.uploads.get_upload(
        bucket=request.bucket, key=request.key, upload_id=request.query["uploadId"]
    )
    part = await request.uploads.put_part(upload, part_number=number, body=await request.body())
    answer = object_headers.of_checksums(part.checksums, "")
    answer["ETag"] = f'"{part.etag}"'
    return responses.Reply(200, answer)
