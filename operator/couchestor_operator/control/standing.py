"""What people are told of a policy after a pass: its phase, its counts, and why."""

from __future__ import annotations

import collections
import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from couchestor_domain import tiers
from couchestor_operator.control import past, plan, policy
from couchestor_operator.control import volume as volumes

NAMED_COUNT_MAX: Final = 8
"""Volumes that a message names; of the others it says how many there are."""


class Phase(enum.Enum):
    """What a policy does at present."""

    ACTIVE = "Active"
    DISABLED = "Disabled"
    ERROR = "Error"


class Aspect(enum.Enum):
    """What a condition is about."""

    READY = "Ready"
    """Whether the policy does what it asks for."""
    HEAT_KNOWN = "HeatKnown"
    """Whether the heat of every volume it watches is known."""
    OVERLAPPING = "Overlapping"
    """Whether volumes that it wants follow an older policy."""
    POOLS_FOUND = "PoolsFound"
    """Whether every volume that is to move found a pool."""
    SURPLUS_REPLICAS = "SurplusReplicas"
    """Whether volumes wait for people to remove a replica."""
    MOVES_PLANNED = "MovesPlanned"
    """Whether there is what a policy in dry run would move."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One aspect, for people and for programs."""

    aspect: Aspect
    holds: bool
    reason: str
    """One word, in CamelCase."""
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """All that a pass has to say of a policy."""

    phase: Phase
    watched_count: int
    in_tier: Mapping[tiers.Tier, int]
    """Watched volumes all of whose replicas are in one tier."""
    conditions: tuple[Condition, ...]
    reconciled_seconds: float
    """Since the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Why a pass could do nothing for a policy."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SurplusVolume:
    """A volume that people are asked to look at."""

    volume: volumes.Volume
    left_by: past.PastMigration


def planned(move: plan.Move) -> str:
    """A move in words, with its reason."""
    return (
        f"{move.volume.name} from pool {move.source.pool} to {move.target.name} "
        f"({move.target_tier.value}, {move.iops:.0f} IOPS)"
    )


def of_fault(fault: Fault, *, now_seconds: float) -> Standing:
    """Of a policy for which nothing could be looked at."""
    return Standing(
        phase=Phase.ERROR,
        watched_count=0,
        in_tier={},
        conditions=(_condition(Aspect.READY, False, fault.reason, fault.message),),
        reconciled_seconds=now_seconds,
    )


def of_disabled(*, now_seconds: float) -> Standing:
    """Of a policy that people have switched off."""
    return Standing(
        phase=Phase.DISABLED,
        watched_count=0,
        in_tier={},
        conditions=(
            _condition(
                Aspect.READY,
                False,
                "Disabled",
                "the policy is not enabled: it begins nothing, and what was under way ends",
            ),
        ),
        reconciled_seconds=now_seconds,
    )


def of_report(
    rule: policy.Policy,
    report: plan.Report,
    *,
    lost_to: Mapping[str, int],
    surplus: Sequence[SurplusVolume],
    unmeasured: Fault | None,
    now_seconds: float,
) -> Standing:
    """Of a policy that a pass has planned for.

    Args:
        lost_to: Name of an older policy -> volumes that follow it and are wanted here, too.
        unmeasured: Why nothing is known of its volumes' heat, if nothing could be measured.
    """
    conditions = [
        _ready(rule, report, unmeasured),
        _heat_known(report, unmeasured),
        _overlapping(lost_to),
        _pools_found(report),
        _surplus(surplus),
    ]
    if rule.dry_run:
        conditions.append(_planned(report))
    return Standing(
        phase=Phase.ACTIVE if unmeasured is None else Phase.ERROR,
        watched_count=report.watched_count,
        in_tier=dict(report.in_tier),
        conditions=tuple(conditions),
        reconciled_seconds=now_seconds,
    )


def _ready(rule: policy.Policy, report: plan.Report, unmeasured: Fault | None) -> Condition:
    if unmeasured is not None:
        return _condition(Aspect.READY, False, unmeasured.reason, unmeasured.message)
    stays = _counted({why.value: count for why, count in report.stays.items()})
    if rule.dry_run:
        return _condition(Aspect.READY, True, "DryRun", f"decides and moves nothing; {stays}")
    return _condition(Aspect.READY, True, "Reconciled", stays)


def _heat_known(report: plan.Report, unmeasured: Fault | None) -> Condition:
    if unmeasured is not None:
        return _condition(Aspect.HEAT_KNOWN, False, unmeasured.reason, unmeasured.message)
    if not report.unknown:
        return _condition(Aspect.HEAT_KNOWN, True, "Measured", "")
    counts = {why.value: count for why, count in report.unknown.items()}
    return _condition(
        Aspect.HEAT_KNOWN,
        False,
        max(sorted(counts), key=counts.__getitem__),
        f"volumes of unknown heat do not move: {_counted(counts)}",
    )


def _overlapping(lost_to: Mapping[str, int]) -> Condition:
    if not lost_to:
        return _condition(Aspect.OVERLAPPING, False, "None", "")
    return _condition(
        Aspect.OVERLAPPING,
        True,
        "OlderPolicyWins",
        f"volumes that this policy wants follow an older one: {_counted(lost_to)}",
    )


def _pools_found(report: plan.Report) -> Condition:
    if report.first_refusal is None:
        return _condition(Aspect.POOLS_FOUND, True, "Found", "")
    count = report.stays[plan.Stay.NO_POOL]
    return _condition(
        Aspect.POOLS_FOUND,
        False,
        plan.Stay.NO_POOL.value,
        report.first_refusal if count == 1 else f"{report.first_refusal} ({count} volumes)",
    )


def _surplus(found: Sequence[SurplusVolume]) -> Condition:
    if not found:
        return _condition(Aspect.SURPLUS_REPLICAS, False, "None", "")
    told = _named(
        f"{each.volume.name} has or wants more than its {each.left_by.replicas_before_count} "
        f"replicas since a migration to pool {each.left_by.target_pool} ended"
        + (f" (replica {each.left_by.new_replica})" if each.left_by.new_replica else "")
        for each in found
    )
    return _condition(
        Aspect.SURPLUS_REPLICAS,
        True,
        "RemoveReplica",
        f"{told}. Nothing moves these volumes until one replica is removed, or the entry is taken"
        " out of status.migrationHistory",
    )


def _planned(report: plan.Report) -> Condition:
    if not report.moves:
        return _condition(Aspect.MOVES_PLANNED, False, "None", "")
    told = _named(map(planned, report.moves))
    return _condition(Aspect.MOVES_PLANNED, True, "DryRun", f"would move: {told}")


def _condition(aspect: Aspect, holds: bool, reason: str, message: str) -> Condition:
    return Condition(aspect=aspect, holds=holds, reason=reason, message=message)


def _counted(counts: Mapping[str, int]) -> str:
    ordered = collections.Counter(counts).most_common()
    return ", ".join(f"{name}: {count}" for name, count in ordered) or "nothing to tell"


def _named(told: Iterable[str]) -> str:
    everything = list(told)
    more_count = len(everything) - NAMED_COUNT_MAX
    words = "; ".join(everything[:NAMED_COUNT_MAX])
    return words if more_count <= 0 else f"{words}; and {more_count} more"
