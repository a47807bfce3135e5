"""POST /bucket?delete."""

from __future__ import annotations

from couchestor_domain import objects
from couchestor_gateway.edge import addressing, responses
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.protocol import xml_reading, xml_writing


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Remove up to 1,000 keys in one commit; per-key refusals are listed in the answer."""
    asked = xml_reading.delete(await request.document(required=True))
    doomed: list[str] = []
    refused: list[tuple[str, str, str]] = []
    for item in asked.objects:
        if item.version_id not in (None, "", objects.NULL_VERSION):
            refused.append((item.key, "NoSuchVersion", "The specified version does not exist."))
        elif len(item.key.encode()) > addressing.KEY_BYTES_MAX:
            refused.append((item.key, "KeyTooLongError", "Your key is too long"))
        else:
            doomed.append(item.key)
    if doomed:
        await request.objects.delete_objects(bucket=request.bucket, keys=doomed)
    xml = xml_writing.Document("DeleteResult")
    if not asked.quiet:
        for key in doomed:
            xml.open("Deleted").text("Key", key).close("Deleted")
    for key, code, message in refused:
        xml.open("Error").text("Key", key).text("Code", code)
        xml.text("Message", message).close("Error")
    return responses.document(xml.finish())
