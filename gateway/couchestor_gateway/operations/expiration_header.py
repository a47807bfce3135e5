"""Headers that tell when an object expires, and by which rule."""

from __future__ import annotations

import urllib.parse
from typing import Final

from couchestor_domain import errors, lifecycle, objects
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.protocol import timestamps

TRANSITION_MINIMUM: Final = "x-amz-transition-default-minimum-object-size"
TRANSITION_MINIMA: Final = ("all_storage_classes_128K", "varies_by_storage_class")


async def add(
    answer: dict[str, str], request: s3_request.S3Request, record: objects.ObjectRecord
) -> None:
    """Tell the day on which the current version of a key expires, if a rule of its bucket says so.

    It goes by real days, whatever days a node for tests has.
    """
    if not request.bucket_record.has_lifecycle or not record.is_latest:
        return
    try:
        configuration = await request.buckets.get_lifecycle(request.bucket)
    except errors.NoSuchBucketError:
        return  # What was asked for has been done, and is gone with its bucket since.
    if configuration is None:
        return
    due = lifecycle.current_due(
        lifecycle.enabled(configuration.rules),
        record.key,
        lifecycle.Version(record.size_bytes, record.modified_ns, record.tags),
    )
    if due is not None:
        rule_id = urllib.parse.quote(due.rule_id, errors="replace")
        date = timestamps.http_date(due.at_ns)
        answer["x-amz-expiration"] = f'expiry-date="{date}", rule-id="{rule_id}"'


def of_configuration(configuration: lifecycle.Configuration) -> dict[str, str]:
    """The header that goes with a configuration."""
    return {TRANSITION_MINIMUM: configuration.transition_minimum or TRANSITION_MINIMA[0]}
