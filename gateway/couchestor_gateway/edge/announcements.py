"""Who is to be told of what a request changes. Where nobody is, that costs a look at the bucket."""

from __future__ import annotations

import functools
import logging
from typing import Final

from couchestor_domain import notices, objects
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.ports import caller_context
from couchestor_gateway.protocol import notification_rules, s3_error

LOG: Final = logging.getLogger("couchestor.gateway")

_KEPT_COUNT: Final = 64
_NOBODY: Final = notification_rules.Rules(())


def of(
    request: s3_request.S3Request, *events: str, key: str | None = None
) -> notices.Announcement | None:
    """Who is to be told that one of the events happened to a key; None: nobody.

    Args:
        key: The request's own if None.
    """
    settings = request.bucket_record.settings
    if not settings:
        return None
    document = settings.get(objects.Setting.NOTIFICATIONS)
    if document is None:
        return None
    rules = _ready(document)
    name = request.key if key is None else key
    targets = request.notification_targets
    interests = {
        event: found
        for event in events
        if (found := tuple(each for each in rules.interests(event, name) if each.target in targets))
    }
    if not interests:
        return None
    return notices.Announcement(cause=_cause(request), interests=interests)


def _cause(request: s3_request.S3Request) -> notices.Cause:
    return notices.Cause(
        requester=request.caller or "",
        source_ip=request.source_ip() or "",
        request_id=caller_context.REQUEST_ID.get(),
        host_id=request.host_id,
        region=request.region,
        bucket_owner=request.bucket_record.owner,
    )


@functools.lru_cache(maxsize=_KEPT_COUNT)
def _ready(document: bytes) -> notification_rules.Rules:
    try:
        return notification_rules.Rules(notification_rules.parse(document))
    except s3_error.S3Error as exc:
        LOG.error("a notification configuration that cannot be read is ignored: %s", exc.message)
        return _NOBODY
