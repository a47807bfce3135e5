"""POST /bucket?delete."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from couchestor_domain import notices, objects
from couchestor_gateway.edge import announcements, responses
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.operations import delete_conditions, locks, versions
from couchestor_gateway.protocol import object_keys, operation_needs, xml_reading, xml_writing

_REFUSED: Final = {
    objects.Refusal.LOCKED: (
        "AccessDenied",
        "Access Denied because object protected by object lock.",
    ),
    objects.Refusal.PRECONDITION_FAILED: (
        "PreconditionFailed",
        "At least one of the pre-conditions you specified did not hold",
    ),
}


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Remove up to 1,000 keys or versions in one commit; refusals are listed in the answer."""
    asked = xml_reading.delete(await request.document(required=True))
    owner = request.bucket_record.owner
    doomed: list[objects.Doomed] = []
    refused: list[tuple[xml_reading.DeleteItem, str, str]] = []
    may_delete = _judge(request)
    for item in asked.objects:
        if item.version_id and not versions.is_well_formed(item.version_id):
            refused.append((item, "NoSuchVersion", "The specified version does not exist."))
        elif len(item.key.encode()) > object_keys.BYTES_MAX:
            refused.append((item, "KeyTooLongError", "Your key is too long"))
        elif not may_delete(item) or not await delete_conditions.may_set(
            request, _conditions(item), key=item.key, version_id=item.version_id or None
        ):
            refused.append((item, "AccessDenied", "Access Denied"))
        else:
            version_id = item.version_id or None
            doomed.append(
                objects.Doomed(
                    key=item.key,
                    version_id=version_id,
                    bypasses_governance=version_id is not None
                    and locks.bypasses_governance(request, key=item.key, version_id=version_id),
                    announcement=announcements.of(
                        request, notices.REMOVED, notices.MARKED, key=item.key
                    ),
                    conditions=_conditions(item),
                )
            )
    xml = xml_writing.Document("DeleteResult")
    if doomed:
        done = await request.objects.delete_objects(
            bucket=request.bucket,
            doomed=doomed,
            owner=request.caller or owner,
            bucket_owner=owner,
        )
        for each, deletion in zip(doomed, done, strict=True):
            if deletion.refusal is not None:
                item = xml_reading.DeleteItem(each.key, each.version_id)
                refused.append((item, *_REFUSED[deletion.refusal]))
            elif not asked.quiet:
                _write_deleted(xml, each, deletion)
    for item, code, message in refused:
        xml.open("Error").text("Key", item.key)
        if item.version_id:
            xml.text("VersionId", item.version_id)
        xml.text("Code", code).text("Message", message).close("Error")
    return responses.document(xml.finish())


def _conditions(item: xml_reading.DeleteItem) -> objects.WriteConditions:
    if item.if_match is None:
        return objects.NO_CONDITIONS
    return objects.WriteConditions(if_match=item.if_match)


def _judge(request: s3_request.S3Request) -> Callable[[xml_reading.DeleteItem], bool]:
    """Whether the caller may delete a key, or a version of it.

    Where there is no policy the bucket alone says it, and whoever may delete nothing has been
    stopped already.
    """
    key_need, version_need = operation_needs.DELETE_KEY, operation_needs.DELETE_VERSION
    if request.bucket_record.access.policy is None and request.member is None:
        deletes_versions = request.may(version_need)
        return lambda item: not item.version_id or deletes_versions
    return lambda item: request.may_all(
        version_need if item.version_id else key_need,
        key=item.key,
        version_id=item.version_id or None,
        if_match=item.if_match or "",
    )


def _write_deleted(
    xml: xml_writing.Document, doomed: objects.Doomed, deletion: objects.Deletion
) -> None:
    xml.open("Deleted").text("Key", doomed.key)
    if doomed.version_id is not None:
        xml.text("VersionId", doomed.version_id)
    if deletion.is_delete_marker:
        xml.flag("DeleteMarker", True).text("DeleteMarkerVersionId", deletion.version_id)
    xml.close("Deleted")
