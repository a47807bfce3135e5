"""Durations as policies write them: ``30s``, ``1h30m``, ``7d``."""

from __future__ import annotations

import re
from typing import Final

from couchestor_domain import errors

PATTERN: Final = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+$"
"""What a schema can check of a duration. Go's notation, and days."""

TEXT_LENGTH_MAX: Final = 32
SECONDS_MAX: Final = 10 * 366 * 86_400.0

_UNIT_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_WHOLE: Final = re.compile(PATTERN, re.ASCII)
_TERM: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)", re.ASCII)


def parse_seconds(text: str) -> float:
    """Length of a duration in seconds, above 0.

    Raises:
        DurationParseError: not a duration, nothing long, or longer than ten years.
    """
    # `$` of a pattern also matches before a last newline.
    if len(text) > TEXT_LENGTH_MAX or text.endswith("\n") or not _WHOLE.match(text):
        raise errors.DurationParseError(
            f"{text[:TEXT_LENGTH_MAX]!r} is not a duration: write numbers with the units "
            "ms, s, m, h, d, such as 1h30m",
            text=text[:TEXT_LENGTH_MAX],
        )
    seconds = sum(float(count) * _UNIT_SECONDS[unit] for count, unit in _TERM.findall(text))
    if not 0.0 < seconds <= SECONDS_MAX:
        raise errors.DurationParseError(
            f"{text!r} is not a usable duration: it must be longer than 0 and at most ten years",
            text=text,
        )
    return seconds
