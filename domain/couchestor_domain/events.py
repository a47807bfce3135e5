"""The domain events: what happened, in the past tense, as immutable facts.

Adapters turn them into log lines, metrics or Kubernetes Events; nothing here does I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from couchestor_domain import ids, tiers


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainEvent:
    """Base of every event; the class name is the event's name."""

    name: ClassVar[str] = "DomainEvent"
    """Name as published, e.g. ``StripeEncoded``; known without an instance, so that a counter per
    kind can exist before its first event."""

    # No super() call: dataclass(slots=True) replaces the class that its hidden cell would name.
    def __init_subclass__(cls) -> None:
        cls.name = cls.__name__


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeCreated(DomainEvent):
    """A volume came under management."""

    volume: str
    size_bytes: int
    tier: tiers.Tier


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeDeleted(DomainEvent):
    """A volume is gone."""

    volume: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeResized(DomainEvent):
    """A volume changed size."""

    volume: str
    old_size_bytes: int
    new_size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationStarted(DomainEvent):
    """A volume began to move between tiers."""

    volume: str
    source_pool: str
    target_pool: str
    target_tier: tiers.Tier


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationCompleted(DomainEvent):
    """The move ended; the old replica is gone, unless preservation mode keeps it."""

    volume: str
    target_pool: str
    duration_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationFailed(DomainEvent):
    """The move failed; every old replica was kept, unless the reason says that one went."""

    volume: str
    step: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationAborted(DomainEvent):
    """The move was given up on purpose; every old replica was kept."""

    volume: str
    step: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaAdded(DomainEvent):
    """A replica was created."""

    volume: str
    pool: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaRemoved(DomainEvent):
    """A replica was removed."""

    volume: str
    pool: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaSynced(DomainEvent):
    """A replica holds everything its volume holds."""

    volume: str
    pool: str
    duration_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaDegraded(DomainEvent):
    """A replica is no longer whole."""

    volume: str
    pool: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StripeEncoded(DomainEvent):
    """A stripe is durable on every device of its group."""

    group_id: ids.GroupId
    stripe_offset_bytes: int
    data_bytes: int
    geometry: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StripeDestaged(DomainEvent):
    """Journal extents now live in a stripe."""

    group_id: ids.GroupId
    stripe_offset_bytes: int
    data_bytes: int
    duration_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFailed(DomainEvent):
    """A shard could not be read or did not verify."""

    group_id: ids.GroupId
    stripe_offset_bytes: int
    shard_index: int
    device_id: ids.DeviceId
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconstructionTriggered(DomainEvent):
    """A rebuild of lost shards began."""

    group_id: ids.GroupId
    missing_shards: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconstructionCompleted(DomainEvent):
    """A group has all its shards again."""

    group_id: ids.GroupId
    rebuilt_bytes: int
    duration_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconstructionFailed(DomainEvent):
    """A rebuild could not finish."""

    group_id: ids.GroupId
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DegradedRead(DomainEvent):
    """A read was served by decoding other shards."""

    group_id: ids.GroupId
    stripe_offset_bytes: int
    missing_shards: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteJournaled(DomainEvent):
    """A batch is durable on every log replica."""

    segment_id: ids.SegmentId
    sequence: ids.Sequence
    payload_bytes: int
    writes_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ZoneOpened(DomainEvent):
    """A free zone was taken."""

    device_id: ids.DeviceId
    zone_index: ids.ZoneIndex
    role: str
    owner_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ZoneClosed(DomainEvent):
    """A zone takes no more writes."""

    device_id: ids.DeviceId
    zone_index: ids.ZoneIndex
    role: str
    owner_id: int
    written_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ZoneReset(DomainEvent):
    """A zone is free again."""

    device_id: ids.DeviceId
    zone_index: ids.ZoneIndex
    reclaimed_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LifecycleApplied(DomainEvent):
    """Rules of a bucket have taken away what was due."""

    bucket: str
    removed_versions_count: int
    hidden_versions_count: int
    """Versions that are hidden behind delete markers by now."""
    removed_markers_count: int
    aborted_uploads_count: int
    removed_bytes: int
    """Of the versions that are gone for good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthChanged(DomainEvent):
    """A device or component became healthy or unhealthy."""

    subject: str
    healthy: bool
    reason: str


ALL_EVENTS: tuple[type[DomainEvent], ...] = (
    VolumeCreated,
    VolumeDeleted,
    VolumeResized,
    MigrationStarted,
    MigrationCompleted,
    MigrationFailed,
    MigrationAborted,
    ReplicaAdded,
    ReplicaRemoved,
    ReplicaSynced,
    ReplicaDegraded,
    StripeEncoded,
    StripeDestaged,
    ShardFailed,
    ReconstructionTriggered,
    ReconstructionCompleted,
    ReconstructionFailed,
    DegradedRead,
    WriteJournaled,
    ZoneOpened,
    ZoneClosed,
    ZoneReset,
    LifecycleApplied,
    HealthChanged,
)
