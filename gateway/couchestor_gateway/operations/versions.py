"""Numbers and ids that name one version or one part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from couchestor_domain import objects
from couchestor_gateway.protocol import s3_error

PART_NUMBER_MAX: Final = 10_000


def require_null(query: Mapping[str, str]) -> None:
    """Refuse every version id but ``null``: no bucket has versioning.

    Raises:
        S3Error: InvalidArgument for an empty or foreign version id.
    """
    version_id = query.get("versionId")
    if version_id is not None and version_id != objects.NULL_VERSION:
        raise s3_error.make(
            "InvalidArgument",
            "Invalid version id specified",
            ArgumentName="versionId",
            ArgumentValue=version_id,
        )


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
