"""POST /bucket: an HTML form with a file."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from typing import Final

from couchestor_domain import objects
from couchestor_gateway.edge import form_request, responses
from couchestor_gateway.operations import new_object, object_headers, versions
from couchestor_gateway.protocol import post_fields, s3_error, tags, xml_reading, xml_writing

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
        tags=_tags(request.fields),
        owner=new.owner,
        acl=new.acl,
        bucket_owner=request.bucket_record.owner,
    )
    record = await request.objects.put_object(put, await request.body())
    place = post_fields.ascii_url(request.location().rstrip("/"))
    location = f"{place}/{urllib.parse.quote(request.key)}"
    answer = object_headers.of_checksums(record.checksums, record.checksum_type)
    answer["ETag"] = f'"{record.etag}"'
    answer["Location"] = location
    answer.update(versions.of_write(record))
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


def _tags(fields: Mapping[str, str]) -> Mapping[str, str]:
    """The tags that a form gives, as a document or as the header of a PUT does."""
    document, header = fields.get("tagging"), fields.get("x-amz-tagging")
    if not document:
        return tags.of_header(header)
    if header:
        raise s3_error.make(
            "InvalidArgument",
            "Tags may be given in one field only, tagging or x-amz-tagging.",
            ArgumentName="tagging",
        )
    pairs = xml_reading.tagging(document.encode(), tags_max=tags.OBJECT_TAGS_MAX)
    return tags.checked(pairs, count_max=tags.OBJECT_TAGS_MAX)
