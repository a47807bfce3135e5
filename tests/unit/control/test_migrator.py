"""Migrations over ports that fail: killed at each call, and nothing is ever less safe."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Awaitable, Callable

import faulty_ports
import memory_policies
import memory_volumes
import pytest

from couchestor_domain import errors, events, tiers
from couchestor_operator.control import migration, plan, policy, pool, selector
from couchestor_operator.control import volume as volumes
from couchestor_operator.ports import volume_manager
from couchestor_operator.services import migrator

POLICY, TARGET = "p", "nvme-0"
STARTED_SECONDS, TIMEOUT_SECONDS = 1_000_000.0, 1800.0
TICKS_COUNT_MAX = 200


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.seconds = STARTED_SECONDS

    def now_seconds(self) -> float:
        """What it is."""
        return self.seconds


class Heard:
    """Events in the order in which they were published."""

    def __init__(self) -> None:
        self.events: list[events.DomainEvent] = []

    def publish(self, event: events.DomainEvent) -> None:
        """Remember it."""
        self.events.append(event)

    @property
    def names(self) -> list[str]:
        """Their kinds."""
        return [event.name for event in self.events]


def _rule() -> policy.Policy:
    return policy.Policy(
        name=POLICY,
        created_at_seconds=1.0,
        watermarks=policy.Watermarks(low_iops=500, warm_iops=2000, high_iops=5000),
        sampling_window_seconds=600.0,
        cooldown_seconds=3600.0,
        migration_timeout_seconds=TIMEOUT_SECONDS,
        storage_class="mayastor",
        pool_selectors={tiers.Tier.HOT: selector.Selector(match_labels={"tier": "hot"})},
        migrations_count_max=5,
    )


class Stage:
    """A cluster with one policy and any number of volumes, and operators that come and go."""

    def __init__(self, *, volumes_count: int = 1, preservation_mode: bool = False) -> None:
        names = ("sata-0", "sata-1", TARGET)
        self.memory = memory_volumes.MemoryVolumes(
            [
                pool.Pool(name=name, node=f"node-of-{name}", online=True, available_bytes=10_000)
                for name in names
            ]
        )
        self.policies = memory_policies.MemoryPolicies()
        self.policies.put(POLICY, _rule())
        self.clock, self.heard = Clock(), Heard()
        self._preservation_mode = preservation_mode
        self._ids_count = 0
        self.whole_counts: list[int] = []
        self.memory.watchers.append(lambda volume: self.whole_counts.append(volume.whole_count))
        self.names = [f"pvc-{number}" for number in range(volumes_count)]
        for name in self.names:
            self.memory.put(_volume(name))

    def operator(
        self,
        line: faulty_ports.Line | None = None,
        *,
        manager: volume_manager.VolumeManager | None = None,
    ) -> migrator.Migrator:
        """One that has just started."""
        line = line or faulty_ports.Line({})
        return migrator.Migrator(
            manager=manager or faulty_ports.FaultyVolumes(self.memory, line),
            policies=faulty_ports.FaultyPolicies(self.policies, line),
            time=self.clock,
            publisher=self.heard,
            new_id=self._new_id,
            preservation_mode=self._preservation_mode,
        )

    def _new_id(self) -> str:
        self._ids_count += 1
        return f"m{self._ids_count}"

    def move(self, name: str) -> plan.Move:
        """Of the replica in ``sata-0``."""
        volume = self.memory.volume(name)
        return plan.Move(
            volume=volume,
            policy=_rule(),
            source=volume.replicas[0],
            source_tier=tiers.Tier.COLD,
            target=pool.Pool(
                name=TARGET, node="node-of-nvme-0", online=True, available_bytes=10_000
            ),
            target_tier=tiers.Tier.HOT,
            iops=9000.0,
        )

    def is_over(self) -> bool:
        """Whether no migration is under way."""
        return not self.policies.status(POLICY).migrations

    def outcomes(self) -> list[str]:
        """Of the migrations that ended."""
        return [past.outcome.value for past in self.policies.status(POLICY).migration_history]

    async def to_the_end(self, operator: migrator.Migrator) -> None:
        """Tick and let the manager work in turn, without faults."""
        for _ in range(TICKS_COUNT_MAX):
            if await operator.tick_all() == 0:
                return
            for name in self.names:
                self.memory.settle(name)
        raise AssertionError(f"does not end: {self.policies.status(POLICY).migrations}")


def _volume(name: str) -> volumes.Volume:
    return volumes.Volume(
        name=name,
        version="",
        size_bytes=100,
        storage_class="mayastor",
        replicas_wanted_count=2,
        replicas=tuple(
            volumes.Replica(
                replica_id=f"{name}-r{index}",
                pool=f"sata-{index}",
                node=f"node-of-sata-{index}",
                state=volumes.ReplicaState.ONLINE,
                synced=True,
            )
            for index in range(2)
        ),
    )


async def test_a_move_and_what_is_told_of_it() -> None:
    stage = Stage()
    operator = stage.operator()
    await operator.begin(stage.move("pvc-0"))
    stage.clock.seconds += 30
    await stage.to_the_end(operator)
    assert stage.outcomes() == ["Completed"]
    moved = stage.memory.volume("pvc-0")
    assert [each.pool for each in moved.replicas] == ["sata-1", TARGET]
    assert moved.is_settled
    assert moved.last_migration_tier is tiers.Tier.HOT
    assert min(stage.whole_counts) == 2
    assert stage.heard.names == [
        "MigrationStarted",
        "ReplicaAdded",
        "ReplicaSynced",
        "ReplicaRemoved",
        "MigrationCompleted",
    ]
    assert stage.heard.events[-1] == events.MigrationCompleted(
        volume="pvc-0", target_pool=TARGET, duration_seconds=30.0
    )


async def test_preservation_mode_keeps_both() -> None:
    stage = Stage(preservation_mode=True)
    operator = stage.operator()
    await operator.begin(stage.move("pvc-0"))
    await stage.to_the_end(operator)
    assert stage.outcomes() == ["Preserved"]
    assert stage.memory.volume("pvc-0").whole_count == 3
    assert stage.heard.names == [
        "MigrationStarted",
        "ReplicaAdded",
        "ReplicaSynced",
        "MigrationCompleted",
    ]
    (past,) = stage.policies.status(POLICY).migration_history
    assert (past.surplus.value, past.source_kept) == ("Kept", True)


async def test_a_timeout_keeps_both() -> None:
    stage = Stage()
    operator = stage.operator()
    await operator.begin(stage.move("pvc-0"))
    for _ in range(3):
        await operator.tick_all()
        if len(stage.memory.volume("pvc-0").replicas) == 2:
            stage.memory.settle("pvc-0")
    stage.clock.seconds += TIMEOUT_SECONDS
    while not stage.is_over():
        await operator.tick_all()
    assert stage.outcomes() == ["Aborted"]
    kept = stage.memory.volume("pvc-0")
    assert (len(kept.replicas), kept.whole_count) == (3, 2)
    assert stage.heard.events[-1] == events.MigrationAborted(
        volume="pvc-0", step="WaitSync", reason="timed out in WaitSync"
    )


async def test_a_new_replica_that_faults_fails_the_migration() -> None:
    stage = Stage()
    operator = stage.operator()
    await operator.begin(stage.move("pvc-0"))
    while len(stage.memory.volume("pvc-0").replicas) == 2:
        await operator.tick_all()
        stage.memory.settle("pvc-0")
    new = stage.memory.volume("pvc-0").replicas[-1]
    stage.memory.put_replica(
        "pvc-0", dataclasses.replace(new, state=volumes.ReplicaState.FAULTED, synced=False)
    )
    while not stage.is_over():
        await operator.tick_all()
    assert stage.outcomes() == ["Failed"]
    assert stage.heard.names[-1] == "MigrationFailed"
    assert stage.memory.volume("pvc-0").whole_count == 2


@pytest.mark.parametrize("how", ["deleted", "edited", "dry run"])
async def test_a_policy_that_no_longer_wants_the_move_stops_it(how: str) -> None:
    stage = Stage()
    operator = stage.operator()
    await operator.begin(stage.move("pvc-0"))
    await operator.tick_all()
    await operator.tick_all()
    changed = {
        "deleted": None,
        "edited": dataclasses.replace(_rule(), storage_class="other"),
        "dry run": dataclasses.replace(_rule(), dry_run=True),
    }
    stage.policies.put(POLICY, changed[how])
    await stage.to_the_end(operator)
    assert stage.outcomes() == ["Aborted"]
    assert stage.memory.volume("pvc-0").whole_count >= 2
    (past,) = stage.policies.status(POLICY).migration_history
    assert past.error == "the policy no longer asks for the move"
    assert (past.surplus.value, past.source_kept) == ("Kept", True)


async def test_a_volume_deleted_in_the_middle_ends_its_migration() -> None:
    stage = Stage()
    operator = stage.operator()
    await operator.begin(stage.move("pvc-0"))
    await operator.tick_all()
    stage.memory.delete("pvc-0")
    await stage.to_the_end(operator)
    (past,) = stage.policies.status(POLICY).migration_history
    assert (past.outcome.value, past.error) == ("Aborted", "the volume is gone")


async def test_a_volume_is_moved_once_at_a_time_and_only_as_decided() -> None:
    stage = Stage(volumes_count=2)
    operator = stage.operator()
    await operator.begin(stage.move("pvc-0"))
    with pytest.raises(errors.MigrationInProgressError):
        await operator.begin(stage.move("pvc-0"))
    stage.policies.put(POLICY, dataclasses.replace(_rule(), dry_run=True))
    with pytest.raises(errors.VersionConflictError, match="decide again"):
        await operator.begin(stage.move("pvc-1"))
    assert stage.heard.names == ["MigrationStarted"]


async def test_a_pool_that_refuses_is_waited_for_until_the_deadline() -> None:
    stage = Stage()
    operator = stage.operator()
    await operator.begin(stage.move("pvc-0"))
    await operator.tick_all()
    found = (await stage.memory.pools())[-1]
    stage.memory.put_pool(dataclasses.replace(found, online=False))
    await stage.to_the_end(operator)
    (past,) = stage.policies.status(POLICY).migration_history
    assert (past.outcome.value, past.error) == ("Aborted", f"pool {TARGET} is not online")
    assert past.surplus.value == "None"


async def _with_faults(
    stage: Stage, line: faulty_ports.Line, *, times_out_at: int | None = None
) -> None:
    """Ticks in turn with the manager, with a new operator after each kill, up to the end.

    Args:
        times_out_at: Calls after which the deadline has passed.
    """
    operator = stage.operator(line)
    began = False
    for _ in range(TICKS_COUNT_MAX):
        if times_out_at is not None and line.calls_count > times_out_at:
            stage.clock.seconds = STARTED_SECONDS + TIMEOUT_SECONDS
        try:
            if not began and not stage.policies.status(POLICY).total_migrations:
                await operator.begin(stage.move("pvc-0"))
            began = True
            await operator.tick(POLICY, "pvc-0")
        except faulty_ports.Killed:
            operator = stage.operator(line)
        except (errors.TransientError, errors.MigrationError):
            pass
        stage.memory.settle("pvc-0")
        if stage.policies.status(POLICY).total_migrations and stage.is_over():
            break
    else:
        raise AssertionError(f"does not end: {stage.policies.status(POLICY).migrations}")
    await line.land(up_to=line.calls_count + TICKS_COUNT_MAX)
    for _ in range(4):
        stage.memory.settle("pvc-0")


async def _calls_of_a_move() -> int:
    line = faulty_ports.Line({})
    await _with_faults(Stage(), line)
    return line.calls_count


@pytest.mark.parametrize("fault", list(faulty_ports.Fault))
async def test_one_fault_at_any_call_costs_no_replica_and_no_migration(
    fault: faulty_ports.Fault,
) -> None:
    calls_count = await _calls_of_a_move()
    assert calls_count > 20
    for number in range(calls_count):
        stage = Stage()
        await _with_faults(stage, faulty_ports.Line({number: fault}))
        assert min(stage.whole_counts) == 2, number
        assert stage.outcomes() == ["Completed"], number
        assert stage.memory.volume("pvc-0").is_settled, number


async def test_two_hundred_moves_through_many_faults_and_an_early_timeout() -> None:
    """Seeded: whatever the faults, what stands in the history is what the volume shows."""
    choice = random.Random(20)
    outcomes: set[str] = set()
    for number in range(200):
        faults = {
            call: choice.choice(list(faulty_ports.Fault))
            for call in range(60)
            if choice.random() < 0.25
        }
        stage = Stage()
        line = faulty_ports.Line(faults)
        await _with_faults(stage, line, times_out_at=choice.randrange(60))
        assert min(stage.whole_counts) == 2, number
        (past,) = stage.policies.status(POLICY).migration_history
        outcomes.add(past.outcome.value)
        final = stage.memory.volume("pvc-0")
        assert final.whole_count >= 2, number
        has_source = final.replica("pvc-0-r0") is not None
        if past.outcome.value == "Completed":
            assert (has_source, len(final.replicas)) == (False, 2), number
        if past.source_kept:
            assert has_source, number
        if past.surplus.value == "None":
            assert len(final.replicas) == 2, number
    assert outcomes >= {"Completed", "Aborted"}


async def test_two_operators_at_once_move_each_volume_once() -> None:
    stage = Stage(volumes_count=5)
    first, second = stage.operator(), stage.operator()
    for name in stage.names:
        await first.begin(stage.move(name))
    for _ in range(TICKS_COUNT_MAX):
        if await first.tick_all() == 0:
            break
        await second.tick_all()
        for name in stage.names:
            stage.memory.settle(name)
    assert sorted(stage.outcomes()) == ["Completed"] * 5
    assert min(stage.whole_counts) == 2
    for name in stage.names:
        assert [each.pool for each in stage.memory.volume(name).replicas] == ["sata-1", TARGET]
    assert stage.heard.names.count("MigrationCompleted") == 5


async def test_no_more_volumes_move_than_the_policy_allows() -> None:
    stage = Stage(volumes_count=6)
    operator = stage.operator()
    for name in stage.names[:5]:
        await operator.begin(stage.move(name))
    with pytest.raises(errors.MigrationInProgressError, match="5 migrations under way"):
        await operator.begin(stage.move("pvc-5"))
    await stage.to_the_end(operator)
    await operator.begin(stage.move("pvc-5"))
    await stage.to_the_end(operator)
    assert stage.outcomes() == ["Completed"] * 6
    assert stage.policies.status(POLICY).total_migrations == 6


@pytest.mark.parametrize("source_index", [0, 1])
async def test_two_policies_that_began_the_same_volume_at_once_harm_nothing(
    source_index: int,
) -> None:
    stage = Stage()
    operator = stage.operator()
    other = dataclasses.replace(_rule(), name="q")
    stage.policies.put("q", other)
    move = stage.move("pvc-0")
    await operator.begin(move)
    rival = dataclasses.replace(
        move, policy=other, source=stage.memory.volume("pvc-0").replicas[source_index]
    )
    with pytest.raises(errors.MigrationInProgressError, match="under policy p"):
        await operator.begin(rival)
    # By an operator that had read the policies before.
    state = await stage.policies.read("q")
    assert state is not None
    record = migration.begun(rival, migration_id="rival", now_seconds=STARTED_SECONDS)
    await stage.policies.begin(state, record)
    await stage.to_the_end(operator)
    assert min(stage.whole_counts) == 2
    assert stage.outcomes() == ["Completed"]
    (past,) = stage.policies.status("q").migration_history
    assert past.outcome.value == ("Completed" if source_index == 0 else "Failed")
    # The other's removal looks like one of this migration: what is not certain is not claimed.
    assert past.source_kept is False
    assert stage.memory.volume("pvc-0").whole_count == 2


async def test_one_migration_that_gets_no_answer_does_not_hold_up_the_others() -> None:
    stage = Stage(volumes_count=2)
    await stage.operator().begin(stage.move("pvc-0"))
    await stage.operator().begin(stage.move("pvc-1"))
    # Names, the policy, volumes, pools; then the first of the migrations.
    line = faulty_ports.Line({4: faulty_ports.Fault.LOST})
    assert await stage.operator(line).tick_all() == 2
    steps = [entry.step.value for entry in stage.policies.status(POLICY).migrations]
    assert steps == ["Analyze", "ScaleUp"]


class _SleepyVolumes(faulty_ports.FaultyVolumes):
    """Whoever calls it falls asleep before one of its calls, and something happens meanwhile."""

    before_look: Callable[[], Awaitable[None]] | None = None
    before_command: Callable[[], Awaitable[None]] | None = None

    async def look(self, volume_name: str, *, pool_name: str) -> volume_manager.Look:
        """Later."""
        if self.before_look is not None:
            await self.before_look()
        return await super().look(volume_name, pool_name=pool_name)

    async def add_replica(self, command: migration.AddReplica) -> None:
        """Later."""
        if self.before_command is not None:
            await self.before_command()
        await super().add_replica(command)


@pytest.mark.parametrize("sleeps_before", ["look", "command"])
async def test_a_sleeper_that_wakes_after_the_end_does_nothing(sleeps_before: str) -> None:
    stage = Stage()
    leader = stage.operator()
    sleepy = _SleepyVolumes(stage.memory, faulty_ports.Line({}))
    sleeper = stage.operator(manager=sleepy)
    await leader.begin(stage.move("pvc-0"))
    await leader.tick_all()

    async def gives_up() -> None:
        stage.policies.put(POLICY, dataclasses.replace(_rule(), enabled=False))
        await stage.to_the_end(leader)
        stage.policies.put(POLICY, _rule())

    if sleeps_before == "look":
        sleepy.before_look = gives_up
        assert await sleeper.tick(POLICY, "pvc-0") is None
    else:
        sleepy.before_command = gives_up
        with pytest.raises(errors.VersionConflictError):
            await sleeper.tick(POLICY, "pvc-0")
    assert stage.outcomes() == ["Aborted"]
    (past,) = stage.policies.status(POLICY).migration_history
    assert (past.step.value, past.surplus.value) == ("ScaleUp", "None")
    assert stage.memory.volume("pvc-0").replicas_wanted_count == 2


class _LaggingVolumes(faulty_ports.FaultyVolumes):
    """What is at hand never changes; a look is fresh."""

    shown: tuple[volumes.Volume, ...] = ()

    async def fleet(self) -> tuple[volumes.Volume, ...]:
        """As it was once."""
        return self.shown


async def test_a_cache_that_lags_costs_time_and_nothing_else() -> None:
    stage = Stage()
    lagging = _LaggingVolumes(stage.memory, faulty_ports.Line({}))
    operator = stage.operator(manager=lagging)
    await operator.begin(stage.move("pvc-0"))
    for _ in range(2):
        # It has not heard of the volume: that is looked into, and not believed.
        await operator.tick_all()
    lagging.shown = (stage.memory.volume("pvc-0"),)
    assert lagging.shown[0].replicas_wanted_count == 3
    for _ in range(5):
        stage.memory.settle("pvc-0")
        await operator.tick_all()
    (entry,) = stage.policies.status(POLICY).migrations
    assert entry.step.value == "ScaleUp"
    stage.clock.seconds += TIMEOUT_SECONDS
    while not stage.is_over():
        await operator.tick_all()
    assert stage.outcomes() == ["Aborted"]
    assert stage.memory.volume("pvc-0").whole_count == 3
