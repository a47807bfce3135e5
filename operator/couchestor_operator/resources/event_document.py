"""Kubernetes Events (``events.k8s.io/v1``) that tell of migrations, beside their volume."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Final

from couchestor_domain import events
from couchestor_operator.ports import metrics_provider
from couchestor_operator.resources import field_types, lease_document

GROUP: Final = "events.k8s.io"
VERSION: Final = "v1"
PLURAL: Final = "events"
NAMESPACE: Final = "default"
"""Where Events of what has no namespace are, as PersistentVolumes have none."""
CONTROLLER: Final = f"{field_types.GROUP}/operator"
NOTE_LENGTH_MAX: Final = 1024


class _Kind(enum.Enum):
    NORMAL = "Normal"
    WARNING = "Warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    volume: str
    kind: _Kind
    note: str


def document_of(
    event: events.DomainEvent, *, name: str, instance: str, now_seconds: float
) -> dict[str, Any] | None:
    """The Event that tells of a domain event; None if it is nothing that Kubernetes hears of.

    Args:
        name: Unlike that of any other Event of the namespace.
        instance: Which operator tells it.
    """
    told = _told(event)
    if told is None:
        return None
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "Event",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "eventTime": lease_document.micro_time(now_seconds),
        "reportingController": CONTROLLER,
        "reportingInstance": instance,
        "action": "Migrate",
        "reason": event.name,
        "type": told.kind.value,
        "note": told.note[:NOTE_LENGTH_MAX],
        "regarding": {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "name": metrics_provider.PV_PREFIX + metrics_provider.volume_key(told.volume),
        },
    }


def _told(event: events.DomainEvent) -> _Told | None:
    match event:
        case events.MigrationStarted():
            note = (
                f"moves from pool {event.source_pool} to {event.target_pool} "
                f"({event.target_tier.value})"
            )
            return _Told(volume=event.volume, kind=_Kind.NORMAL, note=note)
        case events.ReplicaAdded():
            note = f"has a new replica in pool {event.pool}"
            return _Told(volume=event.volume, kind=_Kind.NORMAL, note=note)
        case events.ReplicaSynced():
            note = f"is synced in pool {event.pool} after {event.duration_seconds:.0f} s"
            return _Told(volume=event.volume, kind=_Kind.NORMAL, note=note)
        case events.ReplicaRemoved():
            note = f"has no replica in pool {event.pool} any more"
            return _Told(volume=event.volume, kind=_Kind.NORMAL, note=note)
        case events.MigrationCompleted():
            note = f"is in pool {event.target_pool} after {event.duration_seconds:.0f} s"
            return _Told(volume=event.volume, kind=_Kind.NORMAL, note=note)
        case events.MigrationAborted() | events.MigrationFailed():
            note = f"in step {event.step}: {event.reason}"
            return _Told(volume=event.volume, kind=_Kind.WARNING, note=note)
        case _:
            return None
