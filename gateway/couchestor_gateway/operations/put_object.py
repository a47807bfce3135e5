"""PUT /bucket/key."""

from __future__ import annotations

from couchestor_domain import notices, objects
from couchestor_gateway.edge import announcements, responses
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.operations import (
    expiration_header,
    locks,
    new_object,
    object_headers,
    versions,
)
from couchestor_gateway.protocol import conditions, tags


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Store the body; 200 means durable."""
    headers = request.headers
    new = new_object.of_request(request)
    put = objects.PutRequest(
        bucket=request.bucket,
        key=request.key,
        headers=object_headers.standard(headers),
        metadata=object_headers.metadata(headers),
        tags=tags.of_header(headers.get("x-amz-tagging")),
        conditions=conditions.of_write(headers),
        owner=new.owner,
        acl=new.acl,
        bucket_owner=request.bucket_record.owner,
        lock=locks.of_write(request),
        announcement=announcements.of(request, notices.CREATED_PUT),
    )
    record = await request.objects.put_object(put, await request.body())
    answer = object_headers.of_checksums(record.checksums, record.checksum_type)
    answer["ETag"] = f'"{record.etag}"'
    answer.update(versions.of_write(record))
    await expiration_header.add(answer, request, record)
    return responses.Reply(200, answer)
