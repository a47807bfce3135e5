"""A migration as it is persisted, and all that its machine can answer."""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass
from typing import Final, TypeAlias

from couchestor_domain import tiers
from couchestor_operator.control import plan

SEALS_COUNT_MAX: Final = 8
"""Kept on a volume; as many migrations of it, under as many policies, could end at once."""


class Step(enum.Enum):
    """The steps of a migration, in order. Each is persisted before it is taken."""

    ANALYZE = "Analyze"
    SCALE_UP = "ScaleUp"
    WAIT_SYNC = "WaitSync"
    SCALE_DOWN = "ScaleDown"


class Outcome(enum.Enum):
    """How a migration ended."""

    COMPLETED = "Completed"
    PRESERVED = "Preserved"
    """Old and new replicas stay, as preservation mode asks."""
    ABORTED = "Aborted"
    """Given up on purpose: a timeout, another wish, a change by someone else."""
    FAILED = "Failed"
    """A replica was lost, or the old one did not go."""


class Surplus(enum.Enum):
    """What a migration that ended leaves of the replica it asked for."""

    NONE = "None"
    """Nothing: it was never asked for, is gone again, or took the place of the old one."""
    ASKED = "Asked"
    """The volume wants more replicas than at the start and has none more: one may still come."""
    KEPT = "Kept"
    """It is there, beside the old ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """That a migration is to end, persisted before its volume is sealed."""

    outcome: Outcome
    reason: str
    decided_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One migration under way: all that is remembered between two looks at the cluster."""

    migration_id: str
    """Unlike that of any other migration, ever."""
    volume_name: str
    source_tier: tiers.Tier | None
    target_tier: tiers.Tier
    source_replica: str
    source_pool: str
    target_pool: str
    started_seconds: float
    """Since the epoch, as all times here."""
    step_since_seconds: float
    deadline_seconds: float
    trigger_iops: float
    step: Step = Step.ANALYZE
    revision: int = 0
    """How often the record has been changed."""
    synced_at_start_count: int = 0
    """Synced replicas before anything was done; known once ANALYZE is over."""
    replicas_at_start: tuple[str, ...] = ()
    new_replica: str | None = None
    ending: Ending | None = None

    @property
    def seal(self) -> str:
        """What the volume must carry before the record may go: of this very revision.

        A seal put on for an earlier ending says nothing of commands decided since then.
        """
        return f"{self.migration_id}.{self.revision}"


def begun(move: plan.Move, *, migration_id: str, now_seconds: float) -> Record:
    """The record of a move that nothing has been done for."""
    return Record(
        migration_id=migration_id,
        volume_name=move.volume.name,
        source_tier=move.source_tier,
        target_tier=move.target_tier,
        source_replica=move.source.replica_id,
        source_pool=move.source.pool,
        target_pool=move.target.name,
        started_seconds=now_seconds,
        step_since_seconds=now_seconds,
        deadline_seconds=now_seconds + move.policy.migration_timeout_seconds,
        trigger_iops=move.iops,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AddReplica:
    """Want ``replicas_count`` replicas, the new one on ``pool``, if the volume is still so."""

    volume_name: str
    volume_version: str
    replicas_count: int
    pool: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveReplica:
    """Want ``replicas_count`` replicas and not this one, if the volume is still so."""

    volume_name: str
    volume_version: str
    replicas_count: int
    replica_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """Write seals on the volume, if it is still so, whereby every older command is refused."""

    volume_name: str
    volume_version: str
    seals: tuple[str, ...]
    """The volume's last ones and the migration's own: what another migration waits for stays."""
    moved_to: tiers.Tier | None
    """Where the migration led, to be noted with the time; None if it moved nothing."""
    ended_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Nothing to do until the cluster changes or time passes."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LookAfresh:
    """Something may have to be done, and only a fresh look can say what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """Persist the record; what it commands comes at the next look."""

    record: Record


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """Move the record into the history, in one write."""

    ending: Ending
    surplus: Surplus
    source_kept: bool
    """Whether the old replica stays: it is there, and no removal of it has been accepted."""


Command: TypeAlias = AddReplica | RemoveReplica | Seal
Verdict: TypeAlias = Command | Wait | Advance | End


def advanced(record: Record, step: Step, *, now_seconds: float) -> Advance:
    """To the next step."""
    return Advance(
        record=dataclasses.replace(
            record, step=step, step_since_seconds=now_seconds, revision=record.revision + 1
        )
    )


def ending(record: Record, decided: Ending | None) -> Advance:
    """To the end, or with None back from it."""
    return Advance(record=dataclasses.replace(record, ending=decided, revision=record.revision + 1))
