"""Migrations as a policy's status keeps them: those under way, and what became of the last ones."""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec

from couchestor_operator.resources import field_types


class TierName(enum.Enum):
    """Storage tiers, fastest first."""

    HOT = "hot"
    WARM = "warm"
    COLD = "cold"


class StepName(enum.Enum):
    """The steps of a migration, in order."""

    ANALYZE = "Analyze"
    SCALE_UP = "ScaleUp"
    WAIT_SYNC = "WaitSync"
    SCALE_DOWN = "ScaleDown"


class OutcomeName(enum.Enum):
    """How a migration ended. In every case but Completed all old replicas were kept."""

    COMPLETED = "Completed"
    PRESERVED = "Preserved"
    ABORTED = "Aborted"
    FAILED = "Failed"


ReplicaIds = Annotated[list[field_types.Name], msgspec.Meta(max_length=255)]


class MigrationEntry(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A migration under way: all that a restarted operator needs to go on with it."""

    volume: field_types.Name
    migration_id: field_types.Name
    target_tier: TierName
    source_replica: field_types.Name
    source_pool: field_types.Name
    target_pool: field_types.Name
    step: StepName
    started_at: field_types.Moment
    step_since: field_types.Moment
    deadline: field_types.Moment
    trigger_iops: Annotated[float, msgspec.Meta(ge=0)]
    synced_at_start: Annotated[
        field_types.Count,
        msgspec.Meta(description="Synced replicas before anything was done: never fewer after"),
    ]
    replicas_at_start: ReplicaIds
    new_replica: field_types.Name | None = None


class MigrationHistoryEntry(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A migration that has ended."""

    volume_name: field_types.Name
    timestamp: field_types.Moment
    from_tier: TierName | None = None
    to_tier: TierName
    from_pool: field_types.Name
    to_pool: field_types.Name
    trigger_iops: Annotated[float, msgspec.Meta(ge=0)]
    duration: Annotated[str, msgspec.Meta(max_length=32)]
    success: bool
    outcome: OutcomeName
    error: Annotated[str, msgspec.Meta(max_length=1024)] | None = None
