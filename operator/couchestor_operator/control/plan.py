"""One pass over all volumes: which move now, and why the others do not."""

from __future__ import annotations

import collections
import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from couchestor_domain import errors, tiers
from couchestor_operator.control import (
    classification,
    heat,
    overlap,
    policy,
    pool,
)
from couchestor_operator.control import volume as volumes


class Stay(enum.Enum):
    """Why a volume stays where it is in this pass."""

    SETTLED = "Settled"
    UNKNOWN_HEAT = "UnknownHeat"
    COOLING_DOWN = "CoolingDown"
    MIGRATING = "Migrating"
    NOT_WHOLE = "NotWhole"
    HELD_BACK = "HeldBack"
    NO_POOL = "NoSuitablePool"
    LIMIT = "LimitReached"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnderWay:
    """A migration that runs already."""

    policy_name: str
    volume_name: str
    target_pool: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One replica of a volume is to be replaced by one in another tier."""

    volume: volumes.Volume
    policy: policy.Policy
    source: volumes.Replica
    source_tier: tiers.Tier | None
    target: pool.Pool
    target_tier: tiers.Tier
    iops: float


@dataclass(slots=True, kw_only=True)
class Report:
    """What a policy saw in a pass."""

    watched_count: int = 0
    in_tier: collections.Counter[tiers.Tier] = field(default_factory=collections.Counter)
    """Volumes all of whose replicas are in one tier."""
    stays: collections.Counter[Stay] = field(default_factory=collections.Counter)
    unknown: collections.Counter[heat.Unknown] = field(default_factory=collections.Counter)
    moves: list[Move] = field(default_factory=list)
    """To be carried out, or under a policy in dry run to be reported."""
    first_refusal: str | None = None
    """Of the volumes for which no pool can be had, what was said of the most urgent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a pass is decided on."""

    pools: Mapping[str, pool.Pool]
    scores: Mapping[str, heat.HeatScore | heat.Unknown]
    """By volume name, over the window of the policy that it follows. One that lacks is Unknown."""
    under_way: Sequence[UnderWay]
    held_back: Callable[[str], bool]
    """Whether a volume is left alone for a while, since its last migration did not succeed."""
    now_seconds: float
    migrations_count_max: int


def decide(
    claims: overlap.Claims, fleet: Iterable[volumes.Volume], seen: Surroundings
) -> dict[str, Report]:
    """Choose the moves of this pass.

    The hottest volumes that belong in the hot tier come first, the coldest that belong in the cold
    one last; equal ones by name. Never more than the limits allow, those under way included.

    Returns:
        A report by policy name, for every policy that watches a volume.
    """
    reports: dict[str, Report] = {}
    wanted: list[tuple[policy.Policy, volumes.Volume, tiers.Tier, float]] = []
    migrating = {migration.volume_name for migration in seen.under_way}
    for volume in fleet:
        owner = claims.owner_of.get(volume.name)
        if owner is None:
            continue
        report = reports.setdefault(owner.name, Report())
        report.watched_count += 1
        found = _wish(volume, owner, seen, report, migrating=migrating)
        if isinstance(found, Stay):
            report.stays[found] += 1
        else:
            wanted.append((owner, volume, *found))
    _admit(wanted, reports, seen)
    return reports


def _wish(
    volume: volumes.Volume,
    owner: policy.Policy,
    seen: Surroundings,
    report: Report,
    *,
    migrating: set[str],
) -> Stay | tuple[tiers.Tier, float]:
    located = {_tier_of(replica, owner, seen) for replica in volume.replicas}
    current = next(iter(located)) if len(located) == 1 else None
    if current is not None:
        report.in_tier[current] += 1
    if volume.name in migrating:
        return Stay.MIGRATING
    score = seen.scores.get(volume.name, heat.Unknown.NO_DATA)
    if isinstance(score, heat.Unknown):
        report.unknown[score] += 1
        return Stay.UNKNOWN_HEAT
    split = len(located) > 1
    tier = classification.classify(
        score.iops,
        watermarks=owner.watermarks,
        # The replicas that moved already say where the others are going.
        current=volume.last_migration_tier if split else current,
    )
    if tier is None or tier not in owner.pool_selectors or located == {tier}:
        return Stay.SETTLED
    # A volume of several replicas moves one after the other; that is one move to its owner.
    goes_on = split and tier in located and tier is volume.last_migration_tier
    ended = volume.last_migration_seconds
    if not goes_on and ended is not None and seen.now_seconds < ended + owner.cooldown_seconds:
        return Stay.COOLING_DOWN
    if not volume.is_settled or not volume.replicas:
        return Stay.NOT_WHOLE
    if seen.held_back(volume.name):
        return Stay.HELD_BACK
    return tier, score.iops


def _admit(
    wanted: list[tuple[policy.Policy, volumes.Volume, tiers.Tier, float]],
    reports: dict[str, Report],
    seen: Surroundings,
) -> None:
    active = collections.Counter(migration.policy_name for migration in seen.under_way)
    free_count = seen.migrations_count_max - len(seen.under_way)
    promised: collections.Counter[str] = collections.Counter()
    for migration in seen.under_way:
        promised[migration.target_pool] += migration.size_bytes
    order = {tier: position for position, tier in enumerate(tiers.Tier)}
    wanted.sort(
        key=lambda wish: (
            order[wish[2]],
            wish[3] if wish[2] is tiers.Tier.COLD else -wish[3],
            wish[1].name,
        )
    )
    by_tier: dict[tuple[str, tiers.Tier], list[pool.Pool]] = {}
    for owner, volume, tier, iops in wanted:
        report = reports[owner.name]
        if active[owner.name] >= owner.migrations_count_max or (
            free_count <= 0 and not owner.dry_run
        ):
            report.stays[Stay.LIMIT] += 1
            continue
        if (owner.name, tier) not in by_tier:
            by_tier[owner.name, tier] = [
                each for each in seen.pools.values() if owner.tier_of(each.labels) is tier
            ]
        source = min(
            (each for each in volume.replicas if _tier_of(each, owner, seen) is not tier),
            key=lambda replica: (replica.pool, replica.replica_id),
        )
        try:
            target = pool.choose(
                by_tier[owner.name, tier],
                volume=volume,
                source=source,
                promised_bytes=promised.__getitem__,
            )
        except errors.NoSuitablePoolError as exc:
            report.stays[Stay.NO_POOL] += 1
            report.first_refusal = report.first_refusal or exc.message
            continue
        active[owner.name] += 1
        if not owner.dry_run:
            free_count -= 1
            promised[target.name] += volume.size_bytes
        report.moves.append(
            Move(
                volume=volume,
                policy=owner,
                source=source,
                source_tier=_tier_of(source, owner, seen),
                target=target,
                target_tier=tier,
                iops=iops,
            )
        )


def _tier_of(
    replica: volumes.Replica, owner: policy.Policy, seen: Surroundings
) -> tiers.Tier | None:
    home = seen.pools.get(replica.pool)
    return None if home is None else owner.tier_of(home.labels)
