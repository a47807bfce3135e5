"""Passes over all policies: what is begun, what is left alone, what is told, and through faults."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import faulty_ports
import pytest
import tiering_stage

from couchestor_domain import errors
from couchestor_operator.control import heat, migration, past, standing
from couchestor_operator.control import volume as volumes
from couchestor_operator.ports import volume_manager
from couchestor_operator.resources import storage_policy
from couchestor_operator.services import tiering_pass

POLICY = tiering_stage.POLICY
T = TypeVar("T")


@pytest.fixture
def stage() -> tiering_stage.Stage:
    made = tiering_stage.Stage()
    made.policies.put(POLICY, tiering_stage.rule())
    return made


async def test_a_busy_volume_moves_replica_by_replica_and_then_cools_down(
    stage: tiering_stage.Stage,
) -> None:
    stage.put(tiering_stage.volume("pvc-0", "cold-0", "cold-1"), iops=9000)
    stage.put(tiering_stage.volume("pvc-1", "warm-0"), iops=3000)
    assert await stage.to_rest(stage.operator()) == 2
    assert {home[:3] for home in stage.homes("pvc-0")} == {"hot"}
    assert stage.homes("pvc-1") == ["warm-0"]
    assert min(stage.whole_counts) >= 1
    status = stage.policies.status(POLICY)
    assert (status.phase.value, status.watched_volumes) == ("Active", 2)
    assert (status.hot_volumes, status.warm_volumes, status.cold_volumes) == (1, 1, 0)
    assert (status.active_migrations, status.total_migrations, status.failed_migrations) == (
        0,
        2,
        0,
    )
    assert status.last_reconcile_time == datetime.datetime.fromtimestamp(
        stage.clock.now, tz=datetime.UTC
    )
    assert stage.condition("Ready") == ("True", "Reconciled", "Settled: 2")
    assert stage.condition("HeatKnown")[:2] == ("True", "Measured")

    stage.heat.put("pvc-0", 1.0)
    assert await stage.to_rest(stage.operator()) == 0
    assert stage.condition("Ready")[2] == "CoolingDown: 1, Settled: 1"
    stage.clock.go(tiering_stage.COOLDOWN_SECONDS)
    assert await stage.to_rest(stage.operator()) == 2
    assert {home[:4] for home in stage.homes("pvc-0")} == {"cold"}


async def test_what_stays_the_same_keeps_the_time_of_its_transition(
    stage: tiering_stage.Stage,
) -> None:
    await stage.operator().run()
    (first, *_) = stage.policies.status(POLICY).conditions
    stage.clock.go(60)
    await stage.operator().run()
    assert stage.policies.status(POLICY).conditions[0] == first
    stage.policies.put(POLICY, tiering_stage.rule(enabled=False))
    await stage.operator().run()
    (changed,) = stage.policies.status(POLICY).conditions
    assert changed.last_transition_time.timestamp() == stage.clock.now


# -- heat that is not known ---------------------------------------------------------------------


async def test_without_a_measurement_nothing_begins_and_what_is_under_way_goes_on(
    stage: tiering_stage.Stage,
) -> None:
    stage.put(tiering_stage.volume("pvc-0", "cold-0"), iops=9000)
    stage.put(tiering_stage.volume("pvc-1", "cold-1"), iops=1)
    assert (await stage.operator().run()).begun_count == 1
    stage.heat.put("pvc-1", 9000)
    stage.heat.fault = errors.PrometheusConnectionError("Prometheus at h:1 cannot be reached")
    assert await stage.to_rest(stage.operator()) == 0
    assert stage.outcomes() == ["Completed"]
    assert stage.homes("pvc-1") == ["cold-1"]
    status = stage.policies.status(POLICY)
    assert (status.phase.value, status.watched_volumes, status.hot_volumes) == ("Error", 2, 1)
    told = ("False", "PrometheusConnection", "Prometheus at h:1 cannot be reached")
    assert stage.condition("Ready") == stage.condition("HeatKnown") == told
    stage.heat.fault = None
    assert await stage.to_rest(stage.operator()) == 1
    assert stage.policies.status(POLICY).phase.value == "Active"


@pytest.mark.parametrize("unknown", list(heat.Unknown))
async def test_a_volume_of_unknown_heat_does_not_move(
    stage: tiering_stage.Stage, unknown: heat.Unknown
) -> None:
    stage.put(tiering_stage.volume("pvc-0", "cold-0"), iops=9000)
    stage.put(tiering_stage.volume("pvc-1", "cold-1"), iops=9000)
    stage.heat.put("pvc-1", unknown)
    summary = await stage.operator().run()
    assert (summary.begun_count, summary.unknown_count) == (1, 1)
    assert await stage.to_rest(stage.operator()) == 0
    assert stage.homes("pvc-1") == ["cold-1"]
    assert stage.condition("HeatKnown") == (
        "False",
        unknown.value,
        f"volumes of unknown heat do not move: {unknown.value}: 1",
    )


async def test_each_window_is_asked_for_once_and_one_that_fails_blinds_only_its_policies() -> None:
    stage = tiering_stage.Stage()
    for number, window_seconds in enumerate([600.0, 600.0, 3600.0]):
        stage.policies.put(
            f"p{number}",
            tiering_stage.rule(
                f"p{number}",
                sampling_window_seconds=window_seconds,
                storage_class=f"class-{number}",
            ),
        )
        stage.put(
            tiering_stage.volume(f"pvc-{number}", "cold-0", storage_class=f"class-{number}"),
            iops=9000,
        )

    measure = stage.heat.measure

    async def refuses_long_ones(window_seconds: float) -> object:
        reading = await measure(window_seconds)
        if window_seconds > 600:
            raise errors.PrometheusQueryError("the query is too large")
        return reading

    stage.heat.measure = refuses_long_ones  # type: ignore[method-assign, assignment]
    assert (await stage.operator().run()).begun_count == 2
    assert stage.heat.windows_seconds == [600.0, 3600.0]
    assert [stage.policies.status(f"p{number}").phase.value for number in range(3)] == [
        "Active",
        "Active",
        "Error",
    ]


# -- limits, overlap, dry run, disabled, refused, deleted ------------------------------------------


async def test_no_more_move_at_once_than_all_policies_together_may() -> None:
    stage = tiering_stage.Stage(migrations_count_max=3)
    for name in ("a", "b"):
        stage.policies.put(
            name, tiering_stage.rule(name, storage_class=name, migrations_count_max=2)
        )
        for number in range(4):
            stage.put(
                tiering_stage.volume(f"pvc-{name}{number}", "cold-0", storage_class=name),
                iops=9000,
            )
    at_once: list[int] = []
    operator = stage.operator()
    for _ in range(tiering_stage.PASSES_COUNT_MAX):
        summary = await operator.run()
        counts = [len(stage.policies.status(name).migrations) for name in ("a", "b")]
        assert max(counts) <= 2
        at_once.append(sum(counts))
        if not summary.under_way_count and not summary.begun_count:
            break
        await stage.settle()
    assert max(at_once) == 3
    assert stage.outcomes("a") == stage.outcomes("b") == ["Completed"] * 4


async def test_the_older_policy_owns_what_both_want_and_the_other_says_so(
    stage: tiering_stage.Stage,
) -> None:
    young = tiering_stage.rule("young", created_at_seconds=2.0)
    stage.policies.put("young", young)
    stage.put(tiering_stage.volume("pvc-0", "cold-0"), iops=9000)
    await stage.to_rest(stage.operator())
    assert (stage.outcomes(), stage.outcomes("young")) == (["Completed"], [])
    assert stage.policies.status("young").watched_volumes == 0
    assert stage.condition("Overlapping", "young") == (
        "True",
        "OlderPolicyWins",
        "volumes that this policy wants follow an older one: p: 1",
    )
    assert stage.condition("Overlapping")[:2] == ("False", "None")


async def test_a_dry_run_tells_and_does_nothing(stage: tiering_stage.Stage) -> None:
    stage.policies.put(POLICY, tiering_stage.rule(dry_run=True))
    stage.put(tiering_stage.volume("pvc-0", "cold-0"), iops=9000)
    assert await stage.to_rest(stage.operator()) == 0
    assert stage.homes("pvc-0") == ["cold-0"]
    assert stage.policies.status(POLICY).total_migrations == 0
    assert stage.condition("MovesPlanned") == (
        "True",
        "DryRun",
        "would move: pvc-0 from pool cold-0 to hot-0 (hot, 9000 IOPS)",
    )
    assert stage.condition("Ready")[:2] == ("True", "DryRun")


async def test_a_policy_that_is_switched_off_begins_nothing_and_ends_what_it_began(
    stage: tiering_stage.Stage,
) -> None:
    for number in range(7):
        stage.put(tiering_stage.volume(f"pvc-{number}", "cold-0"), iops=9000)
    assert (await stage.operator().run()).begun_count == 5
    stage.policies.put(POLICY, tiering_stage.rule(enabled=False))
    assert await stage.to_rest(stage.operator()) == 0
    assert stage.outcomes() == ["Aborted"] * 5
    status = stage.policies.status(POLICY)
    assert (status.phase.value, status.watched_volumes, status.active_migrations) == (
        "Disabled",
        0,
        0,
    )
    assert stage.condition("Ready")[:2] == ("False", "Disabled")


async def test_a_policy_that_asks_for_the_impossible_is_told_why_and_harms_no_other(
    stage: tiering_stage.Stage,
) -> None:
    stage.policies.put("bad", None, refusal="samplingWindow: '0s' is not a usable duration")
    stage.put(tiering_stage.volume("pvc-0", "cold-0"), iops=9000)
    assert await stage.to_rest(stage.operator()) == 1
    assert stage.policies.status("bad").phase.value == "Error"
    assert stage.condition("Ready", "bad") == (
        "False",
        "InvalidPolicy",
        "samplingWindow: '0s' is not a usable duration",
    )


async def test_a_deleted_policy_goes_when_its_migrations_have_ended(
    stage: tiering_stage.Stage,
) -> None:
    stage.put(tiering_stage.volume("pvc-0", "cold-0"), iops=9000)
    operator = stage.operator()
    await operator.run()
    await operator.run()
    stage.policies.put(POLICY, None)
    # The ending, the seal, the history.
    for _ in range(3):
        assert await stage.policies.names() == [POLICY]
        await operator.run()
    assert await stage.policies.names() == []
    assert stage.homes("pvc-0") == ["cold-0"]


async def test_no_pool_is_told(stage: tiering_stage.Stage) -> None:
    for index in range(3):
        stage.memory.drop_pool(f"hot-{index}")
    stage.put(tiering_stage.volume("pvc-0", "cold-0"), iops=9000)
    assert await stage.to_rest(stage.operator()) == 0
    status, reason, message = stage.condition("PoolsFound")
    assert (status, reason) == ("False", "NoSuitablePool")
    assert "pvc-0" in message


async def test_volumes_that_cannot_be_read_are_told(stage: tiering_stage.Stage) -> None:
    stage.put(tiering_stage.volume("pvc-0", "cold-0"), iops=9000)
    # Names and the policy for the migrations; names, the policy, volumes.
    line = faulty_ports.Line({4: faulty_ports.Fault.LOST})
    summary = await stage.operator(line).run()
    assert [fault.reason for fault in summary.faults] == ["KubernetesApi"]
    assert (await stage.operator().run()).begun_count > 0
    # Volumes for the migrations, too, now that there are any.
    line = faulty_ports.Line({2: faulty_ports.Fault.LOST, 5: faulty_ports.Fault.LOST})
    summary = await stage.operator(line).run()
    assert [fault.reason for fault in summary.faults] == ["KubernetesApi"]
    assert stage.condition("Ready")[:2] == ("False", "KubernetesApi")
    assert stage.policies.status(POLICY).phase.value == "Error"


# -- what ended migrations forbid ------------------------------------------------------------------


async def _times_out(stage: tiering_stage.Stage) -> None:
    """A migration whose new replica does not come to be whole in time."""
    operator = stage.operator()
    for _ in range(4):
        await operator.run()
        if len(stage.homes("pvc-0")) == 1:
            await stage.settle()
    stage.clock.go(tiering_stage.TIMEOUT_SECONDS)
    for _ in range(3):
        await operator.run()
    assert stage.outcomes()[-1] == "Aborted"


async def test_a_volume_with_a_surplus_replica_is_left_until_one_is_removed(
    stage: tiering_stage.Stage,
) -> None:
    stage.put(tiering_stage.volume("pvc-0", "cold-0"), iops=9000)
    await _times_out(stage)
    await stage.settle()
    assert stage.homes("pvc-0") == ["cold-0", "hot-0"]
    assert stage.memory.volume("pvc-0").is_settled
    for _ in range(4):
        stage.clock.go(10 * tiering_stage.COOLDOWN_SECONDS)
        assert await stage.to_rest(stage.operator()) == 0
    assert stage.condition("Ready")[2] == "HeldBack: 1"
    status, reason, message = stage.condition("SurplusReplicas")
    assert (status, reason) == ("True", "RemoveReplica")
    assert "pvc-0 has or wants more than its 1 replicas" in message
    assert "pool hot-0" in message
    # A person removes it; whichever, as long as there are as many as before.
    whole = stage.memory.volume("pvc-0")
    stage.memory.put(
        dataclasses.replace(whole, replicas=whole.replicas[:1], replicas_wanted_count=1)
    )
    assert await stage.to_rest(stage.operator()) == 1
    assert stage.homes("pvc-0")[0][:3] == "hot"
    assert stage.condition("SurplusReplicas")[:2] == ("False", "None")


async def test_a_surplus_is_remembered_whatever_else_the_history_has_to_keep(
    stage: tiering_stage.Stage,
) -> None:
    stage.put(tiering_stage.volume("pvc-0", "cold-0"), iops=9000)
    await _times_out(stage)
    await stage.settle()
    for number in range(1, 61):
        stage.put(tiering_stage.volume(f"pvc-{number}", "cold-1"), iops=9000)
    assert await stage.to_rest(stage.operator()) == 60
    history = stage.policies.status(POLICY).migration_history
    assert len(history) == 50
    assert history[0].volume_name == "pvc-0"
    stage.clock.go(10 * tiering_stage.COOLDOWN_SECONDS)
    assert await stage.to_rest(stage.operator()) == 0


class _LaggingVolumes(faulty_ports.FaultyVolumes):
    """What is at hand never changes; a look is fresh."""

    shown: tuple[volumes.Volume, ...] = ()

    async def fleet(self) -> tuple[volumes.Volume, ...]:
        """As it was once."""
        return self.shown


@pytest.mark.parametrize("ends_as", ["Aborted", "Completed"])
async def test_a_cache_that_does_not_show_the_last_migration_begins_no_other(
    stage: tiering_stage.Stage, ends_as: str
) -> None:
    stage.put(tiering_stage.volume("pvc-0", "cold-0"), iops=9000)
    lagging = _LaggingVolumes(stage.memory, faulty_ports.Line({}))
    lagging.shown = (stage.memory.volume("pvc-0"),)
    if ends_as == "Aborted":
        await _times_out(stage)
        stage.clock.go(tiering_stage.COOLDOWN_SECONDS)
    else:
        await stage.to_rest(stage.operator())
    summary = await stage.operator(manager=lagging).run()
    assert (summary.begun_count, summary.refused_count) == (0, 1)
    assert stage.outcomes() == [ends_as]


async def test_a_volume_that_failed_is_tried_again_after_a_while_and_ever_later(
    stage: tiering_stage.Stage,
) -> None:
    stage.put(tiering_stage.volume("pvc-0", "cold-0"), iops=9000)
    waits: list[float] = []
    for _ in range(3):
        operator = stage.operator()
        assert (await operator.run()).begun_count == 1
        # The pool that was chosen goes before anything was done.
        target = stage.policies.status(POLICY).migrations[0].target_pool
        found = {each.name: each for each in await stage.memory.pools()}[target]
        stage.memory.put_pool(dataclasses.replace(found, online=False))
        await operator.run()
        stage.memory.put_pool(found)
        ended_at = stage.clock.now
        for _ in range(1000):
            if (await stage.operator().run()).begun_count > 0:
                break
            stage.clock.go(20.0)
        waits.append(stage.clock.now - ended_at)
        stage.policies.put(POLICY, tiering_stage.rule(enabled=False))
        await stage.to_rest(operator)
        stage.policies.put(POLICY, tiering_stage.rule())
        stage.clock.go(tiering_stage.COOLDOWN_SECONDS)
    assert waits == [300.0, 1200.0, 4800.0]
    assert set(stage.outcomes()) == {"Aborted"}


async def test_a_policy_whose_migrations_leave_replicas_everywhere_begins_no_more(
    stage: tiering_stage.Stage,
) -> None:
    """A network that is too slow must not fill all pools."""
    count = 2 * tiering_pass.SURPLUS_COUNT_MAX + 4
    for number in range(count):
        stage.put(tiering_stage.volume(f"pvc-{number:02}", "cold-0"), iops=9000)
    operator = stage.operator()
    for _ in range(60):
        await operator.run()
        for seen in await stage.memory.fleet():
            if len(seen.replicas) < seen.replicas_wanted_count:
                stage.memory.settle(seen.name)
        stage.clock.go(tiering_stage.TIMEOUT_SECONDS / 4)
    left_count = sum(len(seen.replicas) > 1 for seen in await stage.memory.fleet())
    # Those that ran already when the last one was counted.
    assert tiering_pass.SURPLUS_COUNT_MAX <= left_count < tiering_pass.SURPLUS_COUNT_MAX + 5
    assert (
        f"; and {left_count - standing.NAMED_COUNT_MAX} more"
        in (stage.condition("SurplusReplicas")[2])
    )


async def test_preservation_mode_adds_one_replica_and_no_other() -> None:
    stage = tiering_stage.Stage(preservation_mode=True)
    stage.policies.put(POLICY, tiering_stage.rule())
    stage.put(tiering_stage.volume("pvc-0", "cold-0"), iops=9000)
    assert await stage.to_rest(stage.operator()) == 1
    # Another policy has no history of it.
    stage.policies.put(POLICY, None)
    await stage.operator().run()
    assert await stage.policies.names() == []
    stage.policies.put("q", tiering_stage.rule("q"))
    for iops in (9000.0, 1.0):
        stage.heat.put("pvc-0", iops)
        stage.clock.go(10 * tiering_stage.COOLDOWN_SECONDS)
        assert (await stage.operator().run()).begun_count == 0
    assert stage.homes("pvc-0") == ["cold-0", "hot-0"]


# -- faults, and others beside -------------------------------------------------------------------


async def _run(operator: tiering_pass.TieringPass) -> tiering_pass.Summary:
    """A pass; what kills one of its tasks kills the process."""
    try:
        return await operator.run()
    except BaseExceptionGroup as group:
        if group.subgroup(faulty_ports.Killed) is None:
            raise
        raise faulty_ports.Killed from group


async def _with_faults(stage: tiering_stage.Stage, line: faulty_ports.Line) -> None:
    """Passes in turn with the manager, with a new operator after each kill, up to the end."""
    operator = stage.operator(line)
    quiet_count = 0
    for _ in range(tiering_stage.PASSES_COUNT_MAX):
        try:
            summary = await _run(operator)
            quiet = summary.begun_count == summary.under_way_count == summary.refused_count == 0
            quiet_count = quiet_count + 1 if quiet and not summary.faults else 0
        except faulty_ports.Killed:
            operator = stage.operator(line)
        except errors.TransientError:
            pass
        if quiet_count == 2:
            break
        await stage.settle()
    else:
        raise AssertionError(f"does not end: {stage.policies.status(POLICY).migrations}")
    await line.land(up_to=line.calls_count + tiering_stage.PASSES_COUNT_MAX)
    for _ in range(4):
        await stage.settle()


def _half_moved() -> tiering_stage.Stage:
    made = tiering_stage.Stage()
    made.policies.put(POLICY, tiering_stage.rule())
    made.put(tiering_stage.volume("pvc-0", "hot-0", "cold-1"), iops=9000)
    return made


@pytest.mark.parametrize("fault", list(faulty_ports.Fault))
async def test_one_fault_at_any_call_of_a_pass_costs_nothing_but_time(
    fault: faulty_ports.Fault,
) -> None:
    line = faulty_ports.Line({})
    await _with_faults(_half_moved(), line)
    assert line.calls_count > 50
    for number in range(line.calls_count):
        stage = _half_moved()
        await _with_faults(stage, faulty_ports.Line({number: fault}))
        assert min(stage.whole_counts) == 2, number
        assert stage.outcomes() == ["Completed"], number
        assert {home[:3] for home in stage.homes("pvc-0")} == {"hot"}, number
        assert stage.policies.status(POLICY).hot_volumes == 1, number


async def test_one_that_dies_between_the_record_and_the_first_command_is_followed_by_another(
    stage: tiering_stage.Stage,
) -> None:
    stage.put(tiering_stage.volume("pvc-0", "cold-0"), iops=9000)
    assert (await stage.operator().run()).begun_count == 1
    (entry,) = stage.policies.status(POLICY).migrations
    assert (entry.step.value, stage.homes("pvc-0")) == ("Analyze", ["cold-0"])
    assert stage.memory.volume("pvc-0").replicas_wanted_count == 1
    # Another process, which has never heard of it; and by now nothing would begin it.
    stage.heat.put("pvc-0", 3000)
    assert await stage.to_rest(stage.operator()) == 0
    assert stage.outcomes() == ["Completed"]
    assert stage.homes("pvc-0")[0][:3] == "hot"


async def test_a_status_that_others_have_changed_is_written_by_the_next_pass(
    stage: tiering_stage.Stage,
) -> None:
    stage.put(tiering_stage.volume("pvc-0", "cold-0"), iops=3000)
    operator = stage.operator(_ConflictingLine(stage))
    summary = await operator.run()
    assert summary.watched_count == 1
    assert stage.policies.status(POLICY).last_reconcile_time is None
    await stage.operator().run()
    assert stage.policies.status(POLICY).watched_volumes == 1


class _ConflictingLine(faulty_ports.Line):
    """Somebody edits the policy between each read and each write of it."""

    def __init__(self, stage: tiering_stage.Stage) -> None:
        super().__init__({})
        self._stage = stage

    async def call(self, do: Callable[[], Awaitable[T]]) -> T:
        """As ever; and then the version is another."""
        answer = await super().call(do)
        self._stage.policies.put(POLICY, tiering_stage.rule())
        return answer


class _InterleavingLine(faulty_ports.Line):
    """Every call lets all others have their turn first, as a call over a network does."""

    async def call(self, do: Callable[[], Awaitable[T]]) -> T:
        """Later."""
        for _ in range(1 + self.calls_count % 3):
            await asyncio.sleep(0)
        return await super().call(do)


async def test_two_operators_at_once_move_each_volume_once_and_keep_the_limit(
    stage: tiering_stage.Stage,
) -> None:
    names = [f"pvc-{number}" for number in range(12)]
    for name in names:
        stage.put(tiering_stage.volume(name, "cold-0", "cold-1"), iops=9000)
    operators = [stage.operator(_InterleavingLine({})) for _ in range(2)]
    for _ in range(tiering_stage.PASSES_COUNT_MAX):
        summaries = await asyncio.gather(*(operator.run() for operator in operators))
        assert len(stage.policies.status(POLICY).migrations) <= 5
        if all(each.begun_count == each.under_way_count == 0 for each in summaries):
            break
        await stage.settle()
    else:
        raise AssertionError("does not end")
    assert stage.outcomes()[:24] == ["Completed"] * 24
    assert min(stage.whole_counts) == 2
    for name in names:
        assert {home[:3] for home in stage.homes(name)} == {"hot"}, name
        assert stage.memory.volume(name).is_settled
    assert stage.policies.status(POLICY).total_migrations == 24


async def test_a_sleeper_does_not_begin_what_was_decided_before_another_one_ended_it(
    stage: tiering_stage.Stage,
) -> None:
    stage.put(tiering_stage.volume("pvc-0", "cold-0"), iops=9000)

    class Sleepy(faulty_ports.FaultyVolumes):
        async def look(self, volume_name: str, *, pool_name: str) -> volume_manager.Look:
            """Seen, and then it sleeps; somebody moves the volume and fails."""
            seen = await super().look(volume_name, pool_name=pool_name)
            await _times_out(stage)
            return seen

    summary = await stage.operator(manager=Sleepy(stage.memory, faulty_ports.Line({}))).run()
    assert (summary.begun_count, summary.refused_count) == (0, 1)
    assert stage.outcomes() == ["Aborted"]


# -- the history by itself -----------------------------------------------------------------------


def _past(
    outcome: migration.Outcome, *, ended_seconds: float = 0.0, name: str = "v"
) -> past.PastMigration:
    return past.PastMigration(
        migration_id="m",
        volume_name=name,
        outcome=outcome,
        surplus=migration.Surplus.KEPT,
        ended_seconds=ended_seconds,
        replicas_before_count=2,
        target_pool="hot-0",
        new_replica=None,
    )


@pytest.mark.parametrize(
    ("wanted_count", "homes", "is_surplus"),
    [
        (2, ("cold-0", "cold-1"), False),
        (3, ("cold-0", "cold-1"), True),
        (2, ("cold-0", "cold-1", "hot-2"), True),
        (3, ("cold-0", "cold-1", "hot-2"), True),
        (1, ("cold-0",), False),
    ],
)
def test_a_surplus_is_there_while_there_are_or_are_to_be_more_than_before(
    wanted_count: int, homes: Sequence[str], is_surplus: bool
) -> None:
    seen = tiering_stage.volume("v", *homes, replicas_wanted_count=wanted_count)
    history = [_past(migration.Outcome.ABORTED)]
    assert (past.surplus_on(seen, [history]) is not None) is is_surplus
    # The last one of the volume says nothing of the kind.
    clean = dataclasses.replace(history[0], surplus=migration.Surplus.NONE)
    assert past.surplus_on(seen, [[*history, clean]]) is None
    assert past.surplus_on(seen, [[_past(migration.Outcome.ABORTED, name="other")]]) is None


def test_a_success_ends_the_count_of_failures() -> None:
    failed = [
        _past(migration.Outcome.FAILED, ended_seconds=moment) for moment in (100.0, 200.0, 400.0)
    ]
    succeeded = _past(migration.Outcome.COMPLETED, ended_seconds=300.0)

    def is_left(history: list[past.PastMigration], now_seconds: float) -> bool:
        return past.is_to_be_left("v", [history], now_seconds=now_seconds, retry_seconds_max=900.0)

    assert is_left([*failed[:2], succeeded, failed[2]], 699.0)
    assert not is_left([*failed[:2], succeeded, failed[2]], 700.0)
    # The third in a row would wait for 1,200 s, and is given 900.
    assert is_left(failed, 1299.0)
    assert not is_left(failed, 1300.0)
    assert not is_left([*failed[:2], succeeded], 301.0)
    assert not is_left([], 0.0)


def test_every_phase_has_its_name_in_the_resource() -> None:
    names = {phase.value for phase in storage_policy.PolicyPhase}
    assert {phase.value for phase in standing.Phase} == names - {"Pending"}
