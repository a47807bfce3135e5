"""How long zones are left alone for those who read, and how long they may rely on it."""

from __future__ import annotations

from typing import Final

PLACES_KEPT_SECONDS: Final = 30.0
"""A read uses the places it looked up for so long, then looks them up again."""
GRACE_PER_PLACES_KEPT: Final = 2
ZONE_GRACE_SECONDS: Final = 60.0
"""A zone is reset so long after nothing refers to it any more."""
assert ZONE_GRACE_SECONDS == GRACE_PER_PLACES_KEPT * PLACES_KEPT_SECONDS, ZONE_GRACE_SECONDS


READS_ENDED_SECONDS: Final = 0.25
"""Reads that began this much later have seen that nothing refers to the zone: when there are no
others left, it need not wait for the rest of its grace."""


def places_kept_seconds(grace_seconds: float) -> float:
    """How long places may be used under another grace."""
    return grace_seconds / GRACE_PER_PLACES_KEPT
