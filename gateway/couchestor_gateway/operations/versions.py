"""Numbers and ids that name one version or one part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from couchestor_domain import objects, version_ids
from couchestor_gateway.protocol import s3_error

PART_NUMBER_MAX: Final = 10_000


def named(query: Mapping[str, str]) -> str | None:
    """The version a request names; None for the current one.

    Raises:
        S3Error: InvalidArgument for what cannot be the id of a version.
    """
    version_id = query.get("versionId")
    if version_id is None or is_well_formed(version_id):
        return version_id
    raise s3_error.make(
        "InvalidArgument",
        "Invalid version id specified",
        ArgumentName="versionId",
        ArgumentValue=version_id,
    )


def judged(record: objects.ObjectRecord, version_id: str | None) -> str | None:
    """What names the version that was judged, not one that was written since.

    Args:
        version_id: As the request names it; None for the current one.
    """
    return record.version_id if record.is_named else version_id


def is_well_formed(version_id: str) -> bool:
    """Whether it can be the id of a version."""
    return version_id == objects.NULL_VERSION or version_ids.order_of(version_id) is not None


def of_record(record: objects.ObjectRecord) -> dict[str, str]:
    """The header that names a version, where its bucket has them."""
    return {"x-amz-version-id": record.version_id} if record.is_named else {}


def of_write(record: objects.ObjectRecord) -> dict[str, str]:
    """The header that names a version that was written: S3 names only those with an id."""
    return of_record(record) if record.version_id != objects.NULL_VERSION else {}


def of_deletion(deletion: objects.Deletion) -> dict[str, str]:
    """The headers of a delete's answer."""
    answer = {"x-amz-version-id": deletion.version_id} if deletion.version_id else {}
    if deletion.is_delete_marker:
        answer["x-amz-delete-marker"] = "true"
    return answer


def part_number(text: str) -> int:
    """A part number, 1 to ``PART_NUMBER_MAX``.

    Raises:
        S3Error: InvalidArgument.
    """
    if text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= PART_NUMBER_MAX:
        return int(text)
    raise s3_error.make(
        "InvalidArgument",
        f"Part number must be an integer between 1 and {PART_NUMBER_MAX}, inclusive",
        ArgumentName="partNumber",
        ArgumentValue=text,
    )
