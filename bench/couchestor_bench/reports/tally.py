"""What was counted of one kind of operation, in one second or in a whole run."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from couchestor_bench.reports import histogram


@dataclass(slots=True)
class Tally:
    """Good answers with their latencies and bytes, failures by S3 error code.

    ``latencies`` holds good answers only: one refused at once would make a server look fast.
    """

    latencies: histogram.Histogram = field(default_factory=histogram.Histogram)
    size_bytes: int = 0
    errors: collections.Counter[str] = field(default_factory=collections.Counter)

    @property
    def good_count(self) -> int:
        return self.latencies.count

    @property
    def error_count(self) -> int:
        return self.errors.total()

    def merge(self, other: Tally) -> None:
        """Add what another one counted."""
        self.latencies.merge(other.latencies)
        self.size_bytes += other.size_bytes
        self.errors.update(other.errors)


Tallies = dict[str, Tally]
"""By operation."""


def merge_into(target: Tallies, other: Mapping[str, Tally]) -> None:
    """Add each operation of ``other``."""
    for name, found in other.items():
        target.setdefault(name, Tally()).merge(found)


def sum_of(tallies: Iterable[Tally]) -> Tally:
    """All of them in one."""
    total = Tally()
    for found in tallies:
        total.merge(found)
    return total
