"""PUT /bucket/key?partNumber&uploadId."""

from __future__ import annotations

from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.operations import object_headers, versions
from couchestor_gateway.protocol import digests, s3_error


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Store or replace one part."""
    number = versions.part_number(request.query.get("partNumber", ""))
    upload = await request.find_upload()
    wanted = upload.checksum_algorithm
    given = digests.announced(request.headers)
    if wanted and given and wanted not in given:
        raise s3_error.make(
            "InvalidRequest",
            f"Checksum Type mismatch occurred, expected checksum Type: {wanted}, actual checksum"
            f" Type: {given[0]}",
        )
    # The object's checksum comes from its parts', so a part gets one even if the client has none.
    body = await request.body(algorithms=(wanted,) if wanted else ())
    part = await request.uploads.put_part(upload, part_number=number, body=body)
    answer = object_headers.of_checksums(part.checksums, "")
    answer["ETag"] = f'"{part.etag}"'
    return responses.Reply(200, answer)
