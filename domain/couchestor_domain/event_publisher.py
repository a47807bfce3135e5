"""The port events leave through."""

from __future__ import annotations

from typing import Protocol

from couchestor_domain import events


class EventPublisher(Protocol):
    """Takes events; called from hot paths and from any thread."""

    def publish(self, event: events.DomainEvent) -> None:
        """Hand an event over. Never blocks and never raises; may drop under overload."""
        ...
