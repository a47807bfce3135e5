"""A stripe group as its one writer knows it."""

from __future__ import annotations

from dataclasses import dataclass

from couchestor_daemon.formats import media_records
from couchestor_domain import geometry, ids


@dataclass(slots=True, eq=False)
class OpenGroup:
    """A group this process may append to, or that waits to be sealed."""

    record: media_records.GroupRecord
    geometry: geometry.StripeGeometry
    zones: tuple[ids.ZoneAddress, ...]
    offset_bytes: int
    capacity_bytes: int
    busy: bool = False
    unsettled_count: int = 0
    """Stripes written by this process whose commit has neither ended nor been given up."""
