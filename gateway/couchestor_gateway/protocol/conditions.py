"""Conditional requests: reads and copy sources are judged here, writes by the object store."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from couchestor_domain import objects, units
from couchestor_gateway.protocol import s3_error, timestamps

_COPY_PREFIX: Final = "x-amz-copy-source-"
_RENEWING: Final = ("Cache-Control", "Expires")


class Outcome(enum.Enum):
    """What the conditions of a read say."""

    PROCEED = "proceed"
    NOT_MODIFIED = "not-modified"
    FAILED = "failed"


def evaluate(
    headers: Mapping[str, str], *, etag: str, modified_ns: int, prefix: str = ""
) -> Outcome:
    """Judge If-Match, If-None-Match, If-Modified-Since, If-Unmodified-Since in RFC 9110's order.

    If-Match overrides If-Unmodified-Since and If-None-Match overrides If-Modified-Since. Dates
    that do not parse are ignored.

    Args:
        headers: Names in lower case, or case-insensitive.
        etag: Of the existing object, without quotes.
        modified_ns: Of the existing object; compared by whole seconds.
        prefix: Put before each header's name.
    """
    match = headers.get(prefix + "if-match")
    none_match = headers.get(prefix + "if-none-match")
    unmodified_since = headers.get(prefix + "if-unmodified-since")
    modified_since = headers.get(prefix + "if-modified-since")
    modified_seconds = modified_ns // units.NS_PER_SECOND
    if match is not None:
        if not _matches(match, etag, weak=False):
            return Outcome.FAILED
    elif unmodified_since is not None:
        limit = timestamps.parse_http_date(unmodified_since)
        if limit is not None and modified_seconds > limit:
            return Outcome.FAILED
    if none_match is not None:
        if _matches(none_match, etag, weak=True):
            return Outcome.NOT_MODIFIED
    elif modified_since is not None:
        limit = timestamps.parse_http_date(modified_since)
        if limit is not None and modified_seconds <= limit:
            return Outcome.NOT_MODIFIED
    return Outcome.PROCEED


def check_read(
    headers: Mapping[str, str],
    *,
    etag: str,
    modified_ns: int,
    kept: Mapping[str, str] = objects.EMPTY_MAP,
) -> None:
    """Stop a GET or HEAD whose conditions do not hold.

    Args:
        headers: Names in lower case, or case-insensitive.
        etag: Of the existing object, without quotes.
        modified_ns: Of the existing object; compared by whole seconds.
        kept: Standard headers that 200 would carry, names in lower case.

    Raises:
        S3Error: NotModified (304; its ``extra`` holds ``ETag``, quoted, ``Last-Modified`` and, of
            ``kept``, what says how long a cache may trust its copy, for the response's headers) or
            PreconditionFailed (412).
    """
    outcome = evaluate(headers, etag=etag, modified_ns=modified_ns)
    if outcome is Outcome.PROCEED:
        return
    if outcome is Outcome.FAILED:
        raise s3_error.make("PreconditionFailed", Condition=_positive(headers, ""))
    extra = {"ETag": f'"{etag}"', "Last-Modified": timestamps.http_date(modified_ns)}
    for name in _RENEWING:
        value = kept.get(name.lower())
        if value:
            extra[name] = value
    raise s3_error.make("NotModified", **extra)


def is_range_wanted(headers: Mapping[str, str], *, etag: str, modified_ns: int) -> bool:
    """Whether ``Range`` counts: ``If-Range`` is absent, or names the very object there is.

    A client that resumes a download must not get the rest of another object (RFC 9110, 13.1.5):
    a weak ETag never fits, a date only when it is exactly Last-Modified.

    Args:
        headers: Names in lower case, or case-insensitive.
        etag: Of the existing object, without quotes.
        modified_ns: Of the existing object; compared by whole seconds.
    """
    validator = headers.get("if-range")
    if validator is None:
        return True
    seconds = timestamps.parse_http_date(validator)
    if seconds is not None:
        return seconds == modified_ns // units.NS_PER_SECOND
    return not validator.strip().startswith("W/") and unquoted(validator) == etag


def check_copy_source(headers: Mapping[str, str], *, etag: str, modified_ns: int) -> None:
    """Stop a copy whose ``x-amz-copy-source-if-*`` headers do not hold.

    Raises:
        S3Error: PreconditionFailed in every such case: a copy has no 304.
    """
    outcome = evaluate(headers, etag=etag, modified_ns=modified_ns, prefix=_COPY_PREFIX)
    if outcome is Outcome.FAILED:
        raise s3_error.make("PreconditionFailed", Condition=_positive(headers, _COPY_PREFIX))
    if outcome is Outcome.NOT_MODIFIED:
        name = "If-None-Match"
        if _COPY_PREFIX + "if-none-match" not in headers:
            name = "If-Modified-Since"
        raise s3_error.make("PreconditionFailed", Condition=_COPY_PREFIX + name)


def of_write(headers: Mapping[str, str]) -> objects.WriteConditions:
    """If-Match and If-None-Match of a write, as the object store takes them.

    Raises:
        S3Error: NotImplemented for a list of ETags, and for If-Unmodified-Since: a write that is
            done whatever the date of what it replaces would not be the one asked for.
    """
    if "if-unmodified-since" in headers:
        raise s3_error.make(
            "NotImplemented",
            "The header If-Unmodified-Since of a write is not implemented; use If-Match.",
            Header="If-Unmodified-Since",
        )
    match, none_match = headers.get("if-match"), headers.get("if-none-match")
    if not match and not none_match:
        return objects.NO_CONDITIONS
    return objects.WriteConditions(
        if_match=_single(match) if match else None,
        if_none_match=_single(none_match) if none_match else None,
    )


def unquoted(etag: str) -> str:
    """An ETag without surrounding blanks, weakness mark and quotes."""
    etag = etag.strip().removeprefix("W/")
    if len(etag) >= 2 and etag[0] == '"' and etag[-1] == '"':
        return etag[1:-1]
    return etag


def _single(value: str) -> str:
    if "," in value:
        raise s3_error.make("NotImplemented", "A conditional write takes a single ETag.")
    return unquoted(value)


def _matches(value: str, etag: str, *, weak: bool) -> bool:
    for item in value.split(","):
        tag = item.strip()
        if tag == "*":
            return True
        if tag.startswith("W/") and not weak:
            continue
        if unquoted(tag) == etag:
            return True
    return False


def _positive(headers: Mapping[str, str], prefix: str) -> str:
    name = "If-Match" if prefix + "if-match" in headers else "If-Unmodified-Since"
    return prefix + name
