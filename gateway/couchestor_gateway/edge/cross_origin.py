"""Requests that browsers make for pages of other sites: preflights, and what lets answers in.

What a bucket's configuration was made into is kept while there is room. Requests without an
``Origin`` come by here at the cost of one look at their headers.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from typing import Final

from couchestor_domain import errors, objects
from couchestor_gateway.edge import addressing, responses
from couchestor_gateway.ports import object_store
from couchestor_gateway.protocol import cors, s3_error

LOG: Final = logging.getLogger("couchestor.gateway")
PREFLIGHT: Final = "Preflight"
"""What a preflight counts as."""

_VARY: Final = "Origin, Access-Control-Request-Headers, Access-Control-Request-Method"
_METHOD: Final = "Access-Control-Request-Method"
_HEADERS: Final = "Access-Control-Request-Headers"
_KEPT_COUNT: Final = 32
"""Configurations kept ready; what is made of one may be a dozen times its length."""
_NOBODY: Final = cors.Rules(())


async def preflight(
    headers: Mapping[str, str], target: addressing.Target, buckets: object_store.BucketStore
) -> responses.Reply:
    """The answer to OPTIONS, which browsers send unsigned before a request to another site.

    Args:
        headers: Case-insensitive.

    Raises:
        NoSuchBucketError
        S3Error: BadRequest for what is no preflight, AccessForbidden.
    """
    origin, method = headers.get("Origin"), headers.get(_METHOD)
    if not origin:
        raise s3_error.make("BadRequest", "Insufficient information. Origin request header needed.")
    if method not in cors.METHODS:
        raise s3_error.make(
            "BadRequest", f"Invalid Access-Control-Request-Method: {(method or 'null')[:64]}"
        )
    where = {"Method": method, "ResourceType": "OBJECT" if target.key else "BUCKET"}
    rules = None
    if target.bucket:
        rules = rules_of(await buckets.get_bucket(target.bucket))
    if rules is None:
        raise s3_error.make("AccessForbidden", **where)
    answers = rules.answer(origin, method, headers.get(_HEADERS, ""))
    if not answers:
        raise s3_error.make(
            "AccessForbidden",
            # As S3 spells it.
            "CORSResponse: This CORS request is not allowed. This is usually because the evalution"
            " of Origin, request method / Access-Control-Request-Method or"
            " Access-Control-Request-Headers are not whitelisted by the resource's CORS spec.",
            **where,
        )
    answers["Vary"] = _VARY
    return responses.Reply(200, answers)


async def let_in(
    reply: responses.Reply,
    *,
    method: str,
    headers: Mapping[str, str],
    target: addressing.Target,
    buckets: object_store.BucketStore,
) -> None:
    """Give an answer, an error's too, what a browser asks for before a page may see it.

    Args:
        headers: Those of a request with an ``Origin``, case-insensitive.
    """
    if not target.bucket:
        return
    try:
        rules = rules_of(await buckets.get_bucket(target.bucket))
    except errors.CouchestorError:
        return  # The answer says as much.
    if rules is None:
        return
    reply.headers["Vary"] = _VARY
    reply.headers.update(
        rules.answer(
            headers.get("Origin", ""), headers.get(_METHOD) or method, headers.get(_HEADERS, "")
        )
    )


def rules_of(bucket: objects.BucketRecord) -> cors.Rules | None:
    """The rules of a bucket; None if it has none."""
    document = bucket.settings.get(objects.Setting.CORS)
    return None if document is None else _ready(document)


@functools.lru_cache(maxsize=_KEPT_COUNT)
def _ready(document: bytes) -> cors.Rules:
    try:
        return cors.Rules(cors.parse(document))
    except s3_error.S3Error as exc:
        LOG.error("rules for other sites that cannot be read let nobody in: %s", exc.message)
        return _NOBODY
