"""Object locks as headers of writes and of answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from couchestor_domain import locking
from couchestor_gateway.protocol import s3_error, timestamps

PREFIX: Final = "x-amz-object-lock-"
MODE: Final = f"{PREFIX}mode"
UNTIL: Final = f"{PREFIX}retain-until-date"
LEGAL_HOLD: Final = f"{PREFIX}legal-hold"
NAMES: Final = frozenset({MODE, UNTIL, LEGAL_HOLD})
BYPASS: Final = "x-amz-bypass-governance-retention"

_UNTIL_NS_MAX: Final = 2**63 - 1
_MODES: Final = {mode.value: mode for mode in locking.Mode}
_HOLDS: Final = {"ON": True, "OFF": False}


def parse(headers: Mapping[str, str], *, now_ns: int) -> locking.VersionLock:
    """The lock that a write asks for.

    Raises:
        S3Error: InvalidArgument for what is no lock, or one that is over already.
    """
    mode_text, until_text = headers.get(MODE), headers.get(UNTIL)
    retention: locking.Retention | None = None
    if mode_text or until_text:
        if not mode_text or not until_text:
            raise _invalid(f"{UNTIL} and {MODE} must both be supplied", MODE)
        mode = _MODES.get(mode_text.strip())
        if mode is None:
            raise _invalid("Unknown wormMode directive.", MODE)
        retention = locking.Retention(mode=mode, until_ns=until(until_text, now_ns=now_ns))
    hold_text = headers.get(LEGAL_HOLD)
    legal_hold = None
    if hold_text:
        legal_hold = _HOLDS.get(hold_text.strip())
        if legal_hold is None:
            raise _invalid("Legal Hold must be either of 'ON' or 'OFF'", LEGAL_HOLD)
    if retention is None and legal_hold is None:
        return locking.NO_LOCK
    return locking.VersionLock(retention=retention, legal_hold=legal_hold)


def until(text: str, *, now_ns: int) -> int:
    """The end of a retention, since the Unix epoch.

    Raises:
        S3Error: InvalidArgument for what is no such moment, is past, or beyond 2262.
    """
    until_ns = timestamps.parse_iso8601(text.strip())
    if until_ns is None or until_ns > _UNTIL_NS_MAX:
        raise _invalid("The retain until date must be provided in ISO 8601 format", UNTIL)
    if until_ns <= now_ns:
        raise _invalid("The retain until date must be in the future!", UNTIL)
    return until_ns


def of_retention(retention: locking.Retention | None) -> dict[str, str]:
    """The headers that tell it."""
    if retention is None:
        return {}
    return {MODE: retention.mode.value, UNTIL: timestamps.iso8601(retention.until_ns)}


def of_legal_hold(legal_hold: bool | None) -> dict[str, str]:
    """The header that tells it, where anybody ever said whether."""
    return {} if legal_hold is None else {LEGAL_HOLD: "ON" if legal_hold else "OFF"}


def _invalid(message: str, name: str) -> s3_error.S3Error:
    return s3_error.make("InvalidArgument", message, ArgumentName=name)
