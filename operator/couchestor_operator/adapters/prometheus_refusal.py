"""What an HTTP status other than 200 means, in our errors.

3xx          PrometheusQueryError       never followed: the token is for one server
401, 403     PrometheusQueryError       the credentials
404, 405     PrometheusQueryError       the address
429, 5xx     PrometheusConnectionError  later, when it says so
others       PrometheusQueryError       the query
"""

from __future__ import annotations

import datetime
import email.utils
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Final

from couchestor_domain import errors
from couchestor_operator.adapters import prometheus_access

RETRY_AFTER_SECONDS: Final = 5.0
"""After an answer that does not say when to come back."""
RETRY_AFTER_SECONDS_MAX: Final = 300.0
"""However far away the moment is that an answer names."""


def refusal(
    status: int,
    headers: Mapping[str, str],
    *,
    said: str,
    where: str,
    now_seconds: float,
    plain: Callable[[str], str],
) -> errors.ControlPlaneError:
    """The error for an answer.

    Args:
        said: The server's own words, fit to be shown; may be empty.
        where: Who answered.
        now_seconds: Since the epoch, for dates to come back at.
        plain: Makes other words of the server fit to be shown.
    """
    because = f": {said}" if said else ""
    if 300 <= status < 400:
        leads_to = plain(_without_secrets(headers.get("Location", ""))) or "nowhere"
        return errors.PrometheusQueryError(
            f"{where} sends elsewhere ({status}, to {leads_to}), which is not followed: set the URL"
            " of the API itself",
            status=status,
        )
    if status in (401, 403):
        return errors.PrometheusQueryError(
            f"{where} refuses the credentials ({status}{because}): give the token or password of"
            " someone who may query it",
            status=status,
        )
    if status in (404, 405):
        return errors.PrometheusQueryError(
            f"{where} has no {prometheus_access.RANGE_PATH} ({status}{because}): set the URL that"
            " its API is under",
            status=status,
        )
    if status == 429 or status >= 500:
        return errors.PrometheusConnectionError(
            f"{where} cannot answer now ({status}{because}): look at its load",
            retry_after_seconds=retry_after_seconds(
                headers.get("Retry-After"), now_seconds=now_seconds
            ),
            status=status,
        )
    return errors.PrometheusQueryError(
        f"{where} refuses the metrics query ({status}{because}): correct the query", status=status
    )


def retry_after_seconds(header: str | None, *, now_seconds: float) -> float:
    """How long an answer asks to be left alone, from its Retry-After: seconds or a date.

    Source: RFC 9110, section 10.2.3.
    """
    if header is None:
        return RETRY_AFTER_SECONDS
    if header.isascii() and header.isdecimal():
        # More digits than any number of seconds needs.
        return min(float(header[:9]), RETRY_AFTER_SECONDS_MAX)
    try:
        moment = email.utils.parsedate_to_datetime(header)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.UTC)
        wait_seconds = moment.timestamp() - now_seconds
    except (ValueError, OverflowError):
        return RETRY_AFTER_SECONDS
    return min(max(wait_seconds, 0.0), RETRY_AFTER_SECONDS_MAX)


def _without_secrets(location: str) -> str:
    """The part of a URL that says where it leads."""
    try:
        parts = urllib.parse.urlsplit(location)
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        return "a URL that is not one"
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path}" if parts.hostname else parts.path
