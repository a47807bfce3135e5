"""What ended migrations say about a volume: whether one left a replica too many, and how often."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from couchestor_operator.control import migration
from couchestor_operator.control import volume as volumes

RETRY_SECONDS_MIN: Final = 300.0
_DOUBLINGS_COUNT_MAX: Final = 30

_SUCCESSES: Final = (migration.Outcome.COMPLETED, migration.Outcome.PRESERVED)


@dataclass(frozen=True, slots=True, kw_only=True)
class PastMigration:
    """A migration that has ended, as the history of its policy keeps it."""

    migration_id: str
    volume_name: str
    outcome: migration.Outcome
    surplus: migration.Surplus
    ended_seconds: float
    """Since the epoch."""
    replicas_before_count: int
    """Of the volume; 0 if the migration ended before that was looked at."""
    target_pool: str
    new_replica: str | None

    @property
    def succeeded(self) -> bool:
        """Whether the volume is where it was to be."""
        return self.outcome in _SUCCESSES


History = Iterable[PastMigration]
"""Of one policy, in the order in which they ended."""


def surplus_on(volume: volumes.Volume, histories: Iterable[History]) -> PastMigration | None:
    """The migration that left the volume a replica too many which still is one; None if none did.

    It is one until the volume has, and wants, as many replicas as before that migration: whichever
    of them people have removed. Of each policy only the last migration of the volume counts: it
    could not have begun while another one's surplus was there.
    """
    for history in histories:
        last = _last_of(volume.name, history)
        if last is None or last.surplus is migration.Surplus.NONE:
            continue
        if max(len(volume.replicas), volume.replicas_wanted_count) > last.replicas_before_count:
            return last
    return None


def is_to_be_left(
    volume_name: str,
    histories: Iterable[History],
    *,
    now_seconds: float,
    retry_seconds_max: float,
) -> bool:
    """Whether the last migration of a volume failed too short a time ago to try again.

    The time doubles with each failure in a row, from ``RETRY_SECONDS_MIN`` on.

    Args:
        retry_seconds_max: The longest that a volume is left for.
    """
    ended = sorted(
        (each for history in histories for each in history if each.volume_name == volume_name),
        key=lambda each: each.ended_seconds,
        reverse=True,
    )
    failures_count = 0
    for each in ended:
        if each.succeeded:
            break
        failures_count += 1
    if failures_count == 0:
        return False
    doublings_count = min(failures_count - 1, _DOUBLINGS_COUNT_MAX)
    wait_seconds = min(RETRY_SECONDS_MIN * 2.0**doublings_count, retry_seconds_max)
    return now_seconds < ended[0].ended_seconds + wait_seconds


def _last_of(volume_name: str, history: History) -> PastMigration | None:
    last = None
    for each in history:
        if each.volume_name == volume_name:
            last = each
    return last
