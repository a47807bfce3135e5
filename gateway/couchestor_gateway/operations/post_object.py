"""POST /bucket: an HTML form with a file."""

from __future__ import annotations

import urllib.parse
from typing import Final

from couchestor_domain import notices, objects
from couchestor_gateway.edge import announcements, form_request, responses
from couchestor_gateway.operations import (
    expiration_header,
    locks,
    new_object,
    object_headers,
    versions,
)
from couchestor_gateway.protocol import post_fields, xml_writing

NAME: Final = "PostObject"


async def run(request: form_request.FormRequest) -> responses.Reply:
    """Store the file; a success is durable."""
    headers = request.headers
    new = new_object.of_request(request)
    put = objects.PutRequest(
        bucket=request.bucket,
        key=request.key,
        headers=object_headers.standard(headers),
        metadata=object_headers.metadata(headers),
        tags=request.written_tags(),
        owner=new.owner,
        acl=new.acl,
        bucket_owner=request.bucket_record.owner,
        lock=locks.of_write(request),
        announcement=announcements.of(request, notices.CREATED_POST),
    )
    record = await request.objects.put_object(put, await request.body())
    place = post_fields.ascii_url(request.location().rstrip("/"))
    location = f"{place}/{urllib.parse.quote(request.key)}"
    answer = object_headers.of_checksums(record.checksums, record.checksum_type)
    answer["ETag"] = f'"{record.etag}"'
    answer["Location"] = location
    answer.update(versions.of_write(record))
    await expiration_header.add(answer, request, record)
    url = post_fields.success_url(
        request.fields, bucket=request.bucket, key=request.key, etag=record.etag
    )
    if url is not None:
        answer["Location"] = url
        return responses.Reply(303, answer)
    status = post_fields.success_status(request.fields)
    if status != 201:
        return responses.Reply(status, answer)
    xml = xml_writing.Document("PostResponse", namespace="")
    xml.text("Location", location).text("Bucket", request.bucket).text("Key", request.key)
    xml.text("ETag", answer["ETag"])
    answer["Content-Type"] = responses.XML
    return responses.Reply(status, answer, xml.finish())
