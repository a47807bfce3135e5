"""What a seed's story tells of the works of a node."""

from __future__ import annotations

from collections.abc import Callable

from couchestor_domain import events


class Silence:
    """Events are not what is tested here."""

    def publish(self, event: events.DomainEvent) -> None:
        """Drop it."""


class RepairEvents:
    """Tells of the repairs that a run has seen.

    Args:
        happened: Told of each.
    """

    def __init__(self, happened: Callable[[str], None]) -> None:
        self._happened = happened

    def publish(self, event: events.DomainEvent) -> None:
        """Keep what says something of a repair."""
        if isinstance(event, events.ReconstructionCompleted):
            self._happened(f"rebuilt {event.group_id}")
        elif isinstance(event, events.ReconstructionFailed):
            self._happened(f"not-rebuilt {event.group_id}: {event.reason}")
        elif isinstance(event, events.ShardFailed):
            self._happened(f"scrub-found {event.group_id}+{event.stripe_offset_bytes}")


class MoveEvents:
    """Tells of the members that have moved.

    Args:
        happened: Told of each.
    """

    def __init__(self, happened: Callable[[str], None]) -> None:
        self._happened = happened

    def publish(self, event: events.DomainEvent) -> None:
        """A zone that is full has become a member."""
        if isinstance(event, events.ZoneClosed):
            self._happened(f"copied-member {event.owner_id}")
