"""What ended migrations have written on a volume, as annotations of whatever stands for it.

``.../seals``                 the last seals, separated by spaces: see ``migration.Record.seal``
``.../last-migration``        when the last migration that moved the volume ended, as RFC 3339
``.../last-migration-tier``   where that one led
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from couchestor_domain import tiers
from couchestor_operator.control import migration
from couchestor_operator.resources import field_types, lease_document

SEALS: Final = f"{field_types.GROUP}/seals"
LAST_MIGRATION: Final = f"{field_types.GROUP}/last-migration"
LAST_TIER: Final = f"{field_types.GROUP}/last-migration-tier"


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """What stands there."""

    seals: tuple[str, ...]
    moved_seconds: float | None
    """Since the epoch."""
    moved_to: tiers.Tier | None


def marks_of(annotations: Mapping[str, str]) -> Marks:
    """Read them. A time or a tier that people have made unreadable counts as none."""
    return Marks(
        seals=tuple(annotations.get(SEALS, "").split()),
        moved_seconds=_moment(annotations.get(LAST_MIGRATION, "")),
        moved_to=_tier(annotations.get(LAST_TIER, "")),
    )


def sealed(document: Mapping[str, Any], command: migration.Seal) -> dict[str, Any]:
    """The document with the seals, and with where and when the volume moved, if it did."""
    written = {SEALS: " ".join(command.seals)}
    if command.moved_to is not None:
        written[LAST_MIGRATION] = lease_document.micro_time(command.ended_seconds)
        written[LAST_TIER] = command.moved_to.value
    metadata = document["metadata"]
    annotations = {**(metadata.get("annotations") or {}), **written}
    return {**document, "metadata": {**metadata, "annotations": annotations}}


def _moment(text: str) -> float | None:
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.timestamp() if moment.tzinfo is not None else None


def _tier(text: str) -> tiers.Tier | None:
    try:
        return tiers.Tier(text)
    except ValueError:
        return None
