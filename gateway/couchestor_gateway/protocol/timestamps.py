"""The three ways S3 writes a moment: HTTP dates, ISO 8601 with milliseconds, and SigV4's."""

from __future__ import annotations

import calendar
import functools
import time
from datetime import UTC, datetime
from email import utils as email_dates
from typing import Final

from couchestor_domain import units

_ZONE_SECONDS_MAX: Final = 24 * 3600
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = (
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
)  # fmt: skip


def http_date(time_ns: int) -> str:
    """``Wed, 21 Oct 2026 07:28:00 GMT``; the fraction of the second is dropped."""
    return _http_date(time_ns // units.NS_PER_SECOND)


@functools.lru_cache(maxsize=4096)
def _http_date(seconds: int) -> str:
    year, month, day, hour, minute, second, weekday, *_ = time.gmtime(seconds)
    # Not strftime: its names depend on the locale.
    return (
        f"{_DAYS[weekday]}, {day:02d} {_MONTHS[month - 1]} {year:04d}"
        f" {hour:02d}:{minute:02d}:{second:02d} GMT"
    )


def log_time(time_ns: int) -> str:
    """``21/Oct/2026:07:28:00 +0000``, as access logs have it."""
    year, month, day, hour, minute, second, *_ = time.gmtime(time_ns // units.NS_PER_SECOND)
    return f"{day:02d}/{_MONTHS[month - 1]}/{year:04d}:{hour:02d}:{minute:02d}:{second:02d} +0000"


def log_key_time(time_ns: int) -> str:
    """``2026-10-21-07-28-00``, as the keys of log objects have it."""
    year, month, day, hour, minute, second, *_ = time.gmtime(time_ns // units.NS_PER_SECOND)
    return f"{year:04d}-{month:02d}-{day:02d}-{hour:02d}-{minute:02d}-{second:02d}"


def iso8601(time_ns: int) -> str:
    """``2026-10-21T07:28:00.123Z``; digits below the millisecond are dropped."""
    seconds, fraction_ns = divmod(time_ns, units.NS_PER_SECOND)
    year, month, day, hour, minute, second, *_ = time.gmtime(seconds)
    return (
        f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{second:02d}"
        f".{fraction_ns // 1_000_000:03d}Z"
    )


def parse_http_date(text: str) -> int | None:
    """Seconds since the epoch, or None when the text is no date of RFC 9110 (any of its forms)."""
    if len(text) > 64:
        return None
    try:
        parsed = email_dates.parsedate_tz(text)
        if parsed is None:
            return None
        zone_seconds = parsed[9] or 0
        # The parser takes any number for a zone; nothing can tell moments that far away.
        if abs(zone_seconds) > _ZONE_SECONDS_MAX:
            return None
        return calendar.timegm(_plausible(parsed)) - zone_seconds
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _plausible(
    parsed: tuple[int, int, int, int, int, int, int, int, int, int | None],
) -> tuple[int, int, int, int, int, int]:
    # The parser takes 31 Feb and 25:61; datetime does not.
    moment = datetime(*parsed[:6])
    return moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second


def parse_iso8601(text: str) -> int | None:
    """Nanoseconds since the epoch of an ISO 8601 moment with a zone, or None."""
    if len(text) > 40 or not text.isascii() or "T" not in text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        return None
    try:
        moment = moment.astimezone(UTC)
    except OverflowError:
        return None
    return calendar.timegm(moment.utctimetuple()) * units.NS_PER_SECOND + moment.microsecond * 1_000


def parse_amz_date(text: str) -> int | None:
    """Seconds since the epoch of ``20261021T072800Z``, or None."""
    if len(text) != 16 or text[8] != "T" or text[15] != "Z" or not text.isascii():
        return None
    digits = text[:8] + text[9:15]
    if not digits.isdigit():
        return None
    try:
        moment = datetime(
            int(text[:4]),
            int(text[4:6]),
            int(text[6:8]),
            int(text[9:11]),
            int(text[11:13]),
            int(text[13:15]),
        )
    except ValueError:
        return None
    return calendar.timegm(moment.timetuple())


def amz_date(seconds: int) -> str:
    """``20261021T072800Z``."""
    year, month, day, hour, minute, second, *_ = time.gmtime(seconds)
    return f"{year:04d}{month:02d}{day:02d}T{hour:02d}{minute:02d}{second:02d}Z"
