"""One pass over all policies: carry on, look, decide, begin, tell.

Nothing is remembered between two passes: whoever makes the next one, after a kill or beside this
one, reads the same policies and the same cluster.
"""

from __future__ import annotations

import asyncio
import collections
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from couchestor_domain import errors
from couchestor_operator.control import heat, overlap, past, plan, policy, pool, standing
from couchestor_operator.control import volume as volumes
from couchestor_operator.ports import clock, metrics_provider, policy_store, volume_manager
from couchestor_operator.services import migrator

_LOG = logging.getLogger(__name__)

SURPLUS_COUNT_MAX: Final = 8
"""Volumes on which unsuccessful migrations of a policy may leave a replica; then it begins none.

Whatever makes migrations fail would otherwise fill the pools with replicas that nobody wants.
"""


class Decision(NamedTuple):
    """What a policy decided about a volume: a ``plan.Stay``, or one of the words below."""

    policy_name: str
    what: str


BEGUN: Final = "Begun"
REFUSED: Final = "Refused"
"""Decided, and could not be begun, or was not to be at a second look."""
PLANNED: Final = "Planned"
"""Decided in dry run."""


@dataclass(slots=True, kw_only=True)
class Summary:
    """What a pass did, for logs and metrics."""

    policies_count: int = 0
    watched_count: int = 0
    unknown_count: int = 0
    under_way_count: int = 0
    """Before the pass began any."""
    begun_count: int = 0
    refused_count: int = 0
    """Moves that were decided and could not be begun, or were not to be at a second look."""
    surplus_count: int = 0
    decisions: collections.Counter[Decision] = field(default_factory=collections.Counter)
    """Volumes by what was decided about them."""
    planned: list[str] = field(default_factory=list)
    """What policies in dry run would move, in words."""
    faults: list[standing.Fault] = field(default_factory=list)
    """What could not be read or measured."""


@dataclass(slots=True, kw_only=True)
class _Scene:
    """What one pass has read, and what it has begun."""

    rules: Sequence[policy.Policy]
    histories: Mapping[str, Sequence[Sequence[past.PastMigration]]]
    """By volume: what each policy remembers of it."""
    fleet: Mapping[str, volumes.Volume]
    pools: Mapping[str, pool.Pool]
    claims: overlap.Claims
    scores: Mapping[str, heat.HeatScore | heat.Unknown]
    unmeasured: Mapping[float, standing.Fault]
    """By window: why nothing could be measured over it."""
    under_way: list[plan.UnderWay]
    surplus: Mapping[str, Sequence[standing.SurplusVolume]]
    """By the policy that the volume follows."""


class TieringPass:
    """Plans and begins migrations, and carries on those under way.

    Args:
        migrations_count_max: Of all policies together. Two operators at once may exceed it, when
            they begin migrations of different policies at the same moment.
        preservation_mode: As the migrator's: a volume with replicas in two tiers is then left.
    """

    def __init__(
        self,
        *,
        manager: volume_manager.VolumeManager,
        policies: policy_store.PolicyStore,
        metrics: metrics_provider.MetricsProvider,
        time: clock.Clock,
        mover: migrator.Migrator,
        migrations_count_max: int,
        preservation_mode: bool = False,
    ) -> None:
        assert migrations_count_max > 0, migrations_count_max
        self._manager = manager
        self._policies = policies
        self._metrics = metrics
        self._time = time
        self._mover = mover
        self._migrations_count_max = migrations_count_max
        self._preservation_mode = preservation_mode

    async def run(self) -> Summary:
        """Make one pass. Whatever it could not do is tried again by the next one.

        Raises:
            TransientError: the policies could not be read, so nothing was begun or told.
        """
        summary = Summary()
        await self._carry_on()
        states = await self._states()
        summary.policies_count = len(states)
        summary.under_way_count = sum(len(state.records) for state in states)
        rules = [
            state.policy for state in states if state.policy is not None and state.policy.enabled
        ]
        try:
            scene = await self._look(states, rules)
        except errors.TransientError as exc:
            fault = _fault_of(exc)
            summary.faults.append(fault)
            await self._tell(states, {rule.name: fault for rule in rules})
            return summary
        reports = plan.decide(scene.claims, scene.fleet.values(), self._surroundings(scene))
        for rule in rules:
            reports.setdefault(rule.name, plan.Report())
        for name, report in reports.items():
            summary.watched_count += report.watched_count
            summary.unknown_count += report.unknown.total()
            for stay, count in report.stays.items():
                summary.decisions[Decision(name, stay.value)] += count
        summary.surplus_count = sum(map(len, scene.surplus.values()))
        summary.faults += scene.unmeasured.values()
        await self._begin(reports, scene, summary)
        await self._tell(
            states,
            {
                rule.name: standing.of_report(
                    rule,
                    reports[rule.name],
                    lost_to=scene.claims.lost_to.get(rule.name, {}),
                    surplus=scene.surplus.get(rule.name, ()),
                    unmeasured=scene.unmeasured.get(rule.sampling_window_seconds),
                    now_seconds=self._time.now_seconds(),
                )
                for rule in rules
            },
        )
        return summary

    async def _carry_on(self) -> None:
        try:
            await self._mover.tick_all()
        except errors.TransientError as exc:
            _LOG.warning("migrations under way wait: %s", exc)

    async def _states(self) -> list[policy_store.PolicyState]:
        names = await self._policies.names()
        return [state for name in names if (state := await self._policies.read(name)) is not None]

    # -- looking --------------------------------------------------------------------------------

    async def _look(
        self, states: Sequence[policy_store.PolicyState], rules: Sequence[policy.Policy]
    ) -> _Scene:
        # After the policies: a volume that has just ended a migration has its history, too.
        fleet = {each.name: each for each in await self._manager.fleet()}
        pools = {each.name: each for each in await self._manager.pools()}
        claims = overlap.resolve(rules, fleet.values())
        histories = _by_volume(states)
        scores, unmeasured = await self._measure(claims)
        surplus: dict[str, list[standing.SurplusVolume]] = {}
        for name in sorted(histories):
            volume, owner = fleet.get(name), claims.owner_of.get(name)
            if volume is None or owner is None:
                continue
            left_by = past.surplus_on(volume, histories[name])
            if left_by is not None:
                found = standing.SurplusVolume(volume=volume, left_by=left_by)
                surplus.setdefault(owner.name, []).append(found)
        return _Scene(
            rules=rules,
            histories=histories,
            fleet=fleet,
            pools=pools,
            claims=claims,
            scores=scores,
            unmeasured=unmeasured,
            under_way=[
                plan.UnderWay(
                    policy_name=state.name,
                    volume_name=record.volume_name,
                    target_pool=record.target_pool,
                    size_bytes=fleet[record.volume_name].size_bytes
                    if record.volume_name in fleet
                    else 0,
                )
                for state in states
                for record in state.records
            ],
            surplus=surplus,
        )

    async def _measure(
        self, claims: overlap.Claims
    ) -> tuple[dict[str, heat.HeatScore | heat.Unknown], dict[float, standing.Fault]]:
        windows = {owner.sampling_window_seconds for owner in claims.owner_of.values()}
        readings: dict[float, metrics_provider.HeatReading] = {}
        unmeasured: dict[float, standing.Fault] = {}

        async def measure(window_seconds: float) -> None:
            try:
                readings[window_seconds] = await self._metrics.measure(window_seconds)
            except errors.ControlPlaneError as exc:
                _LOG.warning("the heat over %g s is not known: %s", window_seconds, exc)
                unmeasured[window_seconds] = _fault_of(exc)

        async with asyncio.TaskGroup() as group:
            for window_seconds in sorted(windows):
                group.create_task(measure(window_seconds))
        scores = {
            name: readings[owner.sampling_window_seconds].of(name)
            for name, owner in claims.owner_of.items()
            if owner.sampling_window_seconds in readings
        }
        return scores, unmeasured

    # -- deciding -------------------------------------------------------------------------------

    def _surroundings(
        self,
        scene: _Scene,
        *,
        volume: volumes.Volume | None = None,
        pools: Mapping[str, pool.Pool] | None = None,
    ) -> plan.Surroundings:
        """What is planned on: the whole fleet, or one volume and a pool looked at again."""
        fleet = scene.fleet if volume is None else {volume.name: volume}
        now_seconds = self._time.now_seconds()

        def held_back(volume_name: str) -> bool:
            return self._is_held(fleet[volume_name], scene, now_seconds=now_seconds)

        return plan.Surroundings(
            pools=scene.pools if pools is None else pools,
            scores=scene.scores,
            under_way=tuple(scene.under_way),
            held_back=held_back,
            now_seconds=now_seconds,
            migrations_count_max=self._migrations_count_max,
        )

    def _is_held(self, volume: volumes.Volume, scene: _Scene, *, now_seconds: float) -> bool:
        owner = scene.claims.owner_of[volume.name]
        histories = scene.histories.get(volume.name, ())
        if past.surplus_on(volume, histories) is not None:
            return True
        left = [each for each in scene.surplus.get(owner.name, ()) if not each.left_by.succeeded]
        if len(left) >= SURPLUS_COUNT_MAX:
            return True
        if self._preservation_mode and len(_tiers_of(volume, owner, scene.pools)) > 1:
            # The history tells of it only as long as it has room.
            return True
        return past.is_to_be_left(
            volume.name,
            histories,
            now_seconds=now_seconds,
            retry_seconds_max=owner.cooldown_seconds,
        )

    async def _begin(
        self, reports: Mapping[str, plan.Report], scene: _Scene, summary: Summary
    ) -> None:
        for report in reports.values():
            for decided in report.moves:
                name = decided.policy.name
                if decided.policy.dry_run:
                    summary.decisions[Decision(name, PLANNED)] += 1
                    summary.planned.append(f"policy {name}: {standing.planned(decided)}")
                    continue
                try:
                    move = await self._again(decided, scene)
                    if move is None:
                        summary.refused_count += 1
                        summary.decisions[Decision(name, REFUSED)] += 1
                        continue
                    ended_before = [
                        each.migration_id
                        for history in scene.histories.get(move.volume.name, ())
                        for each in history
                    ]
                    await self._mover.begin(move, ended_before=ended_before)
                except (errors.VersionConflictError, errors.MigrationError) as exc:
                    summary.refused_count += 1
                    summary.decisions[Decision(name, REFUSED)] += 1
                    _LOG.info("volume %s does not move: %s", decided.volume.name, exc)
                except errors.TransientError as exc:
                    # It may have begun, and then takes its place among those that are allowed.
                    scene.under_way.append(_under_way(decided))
                    summary.refused_count += 1
                    summary.decisions[Decision(name, REFUSED)] += 1
                    _LOG.warning("whether volume %s moves: %s", decided.volume.name, exc)
                else:
                    scene.under_way.append(_under_way(move))
                    summary.begun_count += 1
                    summary.decisions[Decision(name, BEGUN)] += 1

    async def _again(self, decided: plan.Move, scene: _Scene) -> plan.Move | None:
        """The same decision on a fresh look: what is at hand may not show the last migration."""
        look = await self._manager.look(decided.volume.name, pool_name=decided.target.name)
        if look.volume is None:
            return None
        pools = {name: each for name, each in scene.pools.items() if name != decided.target.name}
        if look.target is not None:
            pools[look.target.name] = look.target
        claims = overlap.resolve(scene.rules, [look.volume])
        if claims.owner_of.get(look.volume.name) != decided.policy:
            return None
        surroundings = self._surroundings(scene, volume=look.volume, pools=pools)
        reports = plan.decide(claims, [look.volume], surroundings)
        return next(iter(reports[decided.policy.name].moves), None)

    # -- telling --------------------------------------------------------------------------------

    async def _tell(
        self,
        states: Iterable[policy_store.PolicyState],
        told: Mapping[str, standing.Standing | standing.Fault],
    ) -> None:
        for decided_on in states:
            try:
                # Migrations that were begun or ended since have changed its version.
                state = await self._policies.read(decided_on.name)
                if state is None or not _is_as_before(state, decided_on):
                    continue
                if state.is_being_deleted:
                    if not state.records:
                        await self._policies.release(state)
                    continue
                await self._policies.report(state, self._standing(state, told.get(state.name)))
            except errors.VersionConflictError as exc:
                _LOG.info("the status of policy %s waits: %s", decided_on.name, exc)
            except errors.TransientError as exc:
                _LOG.warning("the status of policy %s waits: %s", decided_on.name, exc)

    def _standing(
        self,
        state: policy_store.PolicyState,
        told: standing.Standing | standing.Fault | None,
    ) -> standing.Standing:
        now_seconds = self._time.now_seconds()
        match told:
            case standing.Standing():
                return told
            case standing.Fault():
                return standing.of_fault(told, now_seconds=now_seconds)
            case None if state.policy is None:
                refusal = state.refusal or "it cannot be read"
                fault = standing.Fault(reason="InvalidPolicy", message=refusal)
                return standing.of_fault(fault, now_seconds=now_seconds)
            case None:
                return standing.of_disabled(now_seconds=now_seconds)


def _is_as_before(state: policy_store.PolicyState, before: policy_store.PolicyState) -> bool:
    """Whether what was decided is about what the policy asks for now."""
    return (state.policy, state.refusal, state.is_being_deleted) == (
        before.policy,
        before.refusal,
        before.is_being_deleted,
    )


def _by_volume(
    states: Iterable[policy_store.PolicyState],
) -> dict[str, list[list[past.PastMigration]]]:
    found: dict[str, list[list[past.PastMigration]]] = {}
    for state in states:
        of_state: dict[str, list[past.PastMigration]] = {}
        for each in state.history:
            of_state.setdefault(each.volume_name, []).append(each)
        for name, history in of_state.items():
            found.setdefault(name, []).append(history)
    return found


def _tiers_of(
    volume: volumes.Volume, owner: policy.Policy, pools: Mapping[str, pool.Pool]
) -> set[object]:
    homes = (pools.get(replica.pool) for replica in volume.replicas)
    return {None if home is None else owner.tier_of(home.labels) for home in homes}


def _under_way(move: plan.Move) -> plan.UnderWay:
    return plan.UnderWay(
        policy_name=move.policy.name,
        volume_name=move.volume.name,
        target_pool=move.target.name,
        size_bytes=move.volume.size_bytes,
    )


def _fault_of(exc: errors.CouchestorError) -> standing.Fault:
    return standing.Fault(reason=type(exc).__name__.removesuffix("Error"), message=exc.message)
