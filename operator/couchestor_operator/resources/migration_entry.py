"""Migrations as a policy's status keeps them: those under way, and what became of the last ones.

The names are those of ``control.migration``; a test compares them. ``migration_status`` turns the
one into the other.
"""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec

from couchestor_operator.resources import field_types

REASON_LENGTH_MAX = 1024


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
    """How a migration ended."""

    COMPLETED = "Completed"
    PRESERVED = "Preserved"
    ABORTED = "Aborted"
    FAILED = "Failed"


class SurplusName(enum.Enum):
    """What a migration leaves of the replica it asked for."""

    NONE = "None"
    ASKED = "Asked"
    KEPT = "Kept"


ReplicaIds = Annotated[list[field_types.Name], msgspec.Meta(max_length=255)]
Reason = Annotated[str, msgspec.Meta(max_length=REASON_LENGTH_MAX)]


class EndingEntry(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """That a migration is to end; it goes once its volume is sealed against late commands."""

    outcome: OutcomeName
    reason: Reason
    decided_at: field_types.Moment


class MigrationEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A migration under way: all that a restarted operator needs to go on with it."""

    volume: field_types.Name
    migration_id: field_types.Name
    revision: Annotated[
        field_types.Count, msgspec.Meta(description="How often the entry has been changed")
    ]
    source_tier: TierName | None = None
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
    ending: EndingEntry | None = None


class MigrationHistoryEntry(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"
):
    """A migration that has ended."""

    volume_name: field_types.Name
    migration_id: field_types.Name
    timestamp: field_types.Moment
    from_tier: TierName | None = None
    to_tier: TierName
    from_pool: field_types.Name
    to_pool: field_types.Name
    trigger_iops: Annotated[float, msgspec.Meta(ge=0)]
    duration: Annotated[str, msgspec.Meta(max_length=32)]
    success: Annotated[bool, msgspec.Meta(description="Whether the volume is where it was to be")]
    outcome: OutcomeName
    step: Annotated[StepName, msgspec.Meta(description="The last one")]
    surplus: Annotated[
        SurplusName,
        msgspec.Meta(
            description="Kept: newReplica stays beside the old ones. Asked: one more than at the"
            " start is wanted and may still come to toPool"
        ),
    ]
    replicas_before: Annotated[
        field_types.Count,
        msgspec.Meta(
            description="Of the volume; while it has or wants more and a surplus was left,"
            " nothing moves it"
        ),
    ]
    source_replica: field_types.Name
    source_kept: Annotated[
        bool,
        msgspec.Meta(
            description="Whether sourceReplica is there and no removal of it was accepted"
        ),
    ]
    new_replica: field_types.Name | None = None
    error: Reason | None = None
