"""Each step of the machine by itself: what leads on, what ends it, and what is said of it."""

from __future__ import annotations

import dataclasses
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies

from couchestor_domain import tiers
from couchestor_operator.control import migration, migration_machine, plan, policy, pool, sight
from couchestor_operator.control import volume as volumes

STARTED, DEADLINE = 1_000.0, 2_800.0
NOW = 1_100.0
Step, Outcome, Surplus = migration.Step, migration.Outcome, migration.Surplus


def _replica(name: str, home: str, **changes: Any) -> volumes.Replica:
    made = volumes.Replica(
        replica_id=name,
        pool=home,
        node=f"node-of-{home}",
        state=volumes.ReplicaState.ONLINE,
        synced=True,
    )
    return dataclasses.replace(made, **changes)


OLD = (_replica("r0", "sata-0"), _replica("r1", "sata-1"))
NEW = _replica("n0", "nvme-0")


def _volume(*replicas: volumes.Replica, **changes: Any) -> volumes.Volume:
    made = volumes.Volume(
        name="pvc-1",
        version="77",
        size_bytes=100,
        storage_class="mayastor",
        replicas_wanted_count=len(replicas),
        replicas=replicas,
    )
    return dataclasses.replace(made, **changes)


def _pool(**changes: Any) -> pool.Pool:
    made = pool.Pool(name="nvme-0", node="node-of-nvme-0", online=True, available_bytes=100)
    return dataclasses.replace(made, **changes)


def _record(step: migration.Step = Step.ANALYZE, **changes: Any) -> migration.Record:
    made = migration.Record(
        migration_id="id",
        volume_name="pvc-1",
        source_tier=tiers.Tier.COLD,
        target_tier=tiers.Tier.HOT,
        source_replica="r0",
        source_pool="sata-0",
        target_pool="nvme-0",
        started_seconds=STARTED,
        step_since_seconds=STARTED,
        deadline_seconds=DEADLINE,
        trigger_iops=9000.0,
        step=step,
        revision=list(Step).index(step),
    )
    if step is not Step.ANALYZE:
        made = dataclasses.replace(made, replicas_at_start=("r0", "r1"), synced_at_start_count=2)
    if step in (Step.WAIT_SYNC, Step.SCALE_DOWN):
        made = dataclasses.replace(made, new_replica="n0")
    return dataclasses.replace(made, **changes)


def _sight(
    record: migration.Record, volume: volumes.Volume | None, **changes: Any
) -> sight.FreshSight:
    made = sight.FreshSight(
        volume=volume,
        target=_pool(),
        record=record,
        wishes=sight.Wishes(is_wanted=True, preservation_mode=False),
        now_seconds=NOW,
    )
    return dataclasses.replace(made, **changes)


def _decide(
    record: migration.Record, volume: volumes.Volume | None, **changes: Any
) -> migration.Verdict:
    return migration_machine.decide(_sight(record, volume, **changes))


def _ending_of(verdict: migration.Verdict) -> migration.Ending:
    match verdict:
        case migration.Advance(record=migration.Record(ending=migration.Ending() as ending)):
            return ending
        case migration.End(ending=ending):
            return ending
        case _:
            raise AssertionError(f"no ending: {verdict}")


UNWANTED = {"wishes": sight.Wishes(is_wanted=False, preservation_mode=False)}
PRESERVING = {"wishes": sight.Wishes(is_wanted=True, preservation_mode=True)}


def test_the_whole_way_of_a_move() -> None:
    record = _record()
    verdict = _decide(record, _volume(*OLD))
    assert isinstance(verdict, migration.Advance)
    record = verdict.record
    assert (record.step, record.step_since_seconds) == (Step.SCALE_UP, NOW)
    assert (record.replicas_at_start, record.synced_at_start_count) == (("r0", "r1"), 2)

    assert _decide(record, _volume(*OLD)) == migration.AddReplica(
        volume_name="pvc-1", volume_version="77", replicas_count=3, pool="nvme-0"
    )
    asked = _volume(*OLD, replicas_wanted_count=3)
    assert isinstance(_decide(record, asked), migration.Wait)
    young = dataclasses.replace(NEW, synced=False)
    verdict = _decide(record, _volume(*OLD, young))
    assert isinstance(verdict, migration.Advance)
    record = verdict.record
    assert (record.step, record.new_replica) == (Step.WAIT_SYNC, "n0")

    assert isinstance(_decide(record, _volume(*OLD, young)), migration.Wait)
    verdict = _decide(record, _volume(*OLD, NEW))
    assert isinstance(verdict, migration.Advance)
    record = verdict.record
    assert record.step is Step.SCALE_DOWN

    assert _decide(record, _volume(*OLD, NEW)) == migration.RemoveReplica(
        volume_name="pvc-1", volume_version="77", replicas_count=2, replica_id="r0"
    )
    going = _volume(*OLD, NEW, replicas_wanted_count=2)
    assert isinstance(_decide(record, going), migration.Wait)
    moved = _volume(OLD[1], NEW)
    verdict = _decide(record, moved)
    assert isinstance(verdict, migration.Advance)
    record = verdict.record
    assert (record.step, record.revision) == (Step.SCALE_DOWN, 4)

    assert _decide(record, moved) == migration.Seal(
        volume_name="pvc-1",
        volume_version="77",
        seals=("id.4",),
        moved_to=tiers.Tier.HOT,
        ended_seconds=NOW,
    )
    assert _decide(record, dataclasses.replace(moved, seals=("id.4",))) == migration.End(
        ending=migration.Ending(
            outcome=Outcome.COMPLETED,
            reason="moved from pool sata-0 to nvme-0",
            decided_seconds=NOW,
        ),
        surplus=Surplus.NONE,
        source_kept=False,
    )


def test_a_record_begins_with_what_was_decided() -> None:
    rule = policy.Policy(
        name="p",
        created_at_seconds=1.0,
        watermarks=policy.Watermarks(low_iops=1, warm_iops=2, high_iops=3),
        sampling_window_seconds=600.0,
        cooldown_seconds=3600.0,
        migration_timeout_seconds=DEADLINE - STARTED,
        storage_class="mayastor",
        pool_selectors={},
    )
    move = plan.Move(
        volume=_volume(*OLD),
        policy=rule,
        source=OLD[0],
        source_tier=tiers.Tier.COLD,
        target=_pool(),
        target_tier=tiers.Tier.HOT,
        iops=9000.0,
    )
    assert migration.begun(move, migration_id="id", now_seconds=STARTED) == _record()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"target": None}, "pool nvme-0 is gone"),
        ({"target": _pool(online=False)}, "pool nvme-0 is not online"),
        ({"target": _pool(available_bytes=99)}, "has 99 bytes free and 100 are needed"),
        ({"target": _pool(node="node-of-sata-1")}, "holds another replica of the volume"),
        (UNWANTED, "no longer asks"),
        ({"now_seconds": DEADLINE}, "timed out in Analyze"),
        ({"volume": None}, "the volume is gone"),
        ({"volume": _volume(OLD[1])}, "no replica r0"),
    ],
)
def test_before_anything_is_done_it_is_simply_given_up(
    changes: dict[str, Any], reason: str
) -> None:
    verdict = migration_machine.decide(
        dataclasses.replace(_sight(_record(), _volume(*OLD)), **changes)
    )
    assert isinstance(verdict, migration.End)
    assert verdict.ending.outcome is Outcome.ABORTED
    assert reason in verdict.ending.reason
    assert verdict.surplus is Surplus.NONE


SICK = (OLD[0], dataclasses.replace(OLD[1], synced=False))


@pytest.mark.parametrize("step", [Step.ANALYZE, Step.SCALE_UP])
def test_nothing_begins_on_a_volume_that_is_not_whole(step: migration.Step) -> None:
    assert isinstance(_decide(_record(step), _volume(*SICK)), migration.Wait)
    missing = _volume(*OLD, replicas_wanted_count=3)
    assert isinstance(_decide(_record(step), missing), migration.Wait)


def _odd(**changes: Any) -> volumes.Volume:
    return _volume(*OLD, dataclasses.replace(NEW, **changes))


FAULTED = volumes.ReplicaState.FAULTED


@pytest.mark.parametrize(
    ("step", "volume", "changes", "outcome", "reason"),
    [
        (Step.SCALE_UP, _volume(*OLD), {"target": None}, "Aborted", "is gone"),
        (Step.SCALE_UP, _volume(*OLD), UNWANTED, "Aborted", "no longer asks"),
        (
            Step.SCALE_UP,
            _volume(*OLD, replicas_wanted_count=3),
            {"now_seconds": DEADLINE},
            "Aborted",
            "timed out in ScaleUp",
        ),
        (Step.SCALE_UP, _volume(OLD[0]), {}, "Failed", "r1 vanished"),
        (Step.SCALE_UP, _volume(OLD[1]), {}, "Failed", "r0 vanished"),
        (Step.SCALE_UP, _volume(*OLD, replicas_wanted_count=1), {}, "Aborted", "someone else"),
        (Step.SCALE_UP, _volume(*OLD, replicas_wanted_count=4), {}, "Aborted", "someone else"),
        (
            Step.SCALE_UP,
            _volume(*OLD, NEW, _replica("n1", "nvme-1"), replicas_wanted_count=3),
            {},
            "Aborted",
            "someone else",
        ),
        (Step.WAIT_SYNC, _odd(pool="sata-9"), {}, "Aborted", "in pool sata-9 and not in nvme-0"),
        (Step.WAIT_SYNC, _odd(state=FAULTED), {}, "Failed", "new replica is faulted"),
        (Step.WAIT_SYNC, _volume(*OLD), {}, "Failed", "new replica vanished"),
        (Step.WAIT_SYNC, _volume(OLD[0], NEW), {}, "Failed", "r1 vanished"),
        (Step.WAIT_SYNC, _odd(synced=False), UNWANTED, "Aborted", "no longer asks"),
        (
            Step.WAIT_SYNC,
            _odd(synced=False),
            {"now_seconds": DEADLINE},
            "Aborted",
            "timed out in WaitSync",
        ),
        (
            Step.WAIT_SYNC,
            _volume(*OLD, NEW, replicas_wanted_count=2),
            {},
            "Aborted",
            "someone else changed the replicas: 3 are there and 2 are wanted",
        ),
        (Step.WAIT_SYNC, _volume(*OLD, NEW), PRESERVING, "Preserved", "preservation mode"),
        (Step.SCALE_DOWN, _volume(*OLD, NEW), PRESERVING, "Preserved", "preservation mode"),
        (Step.SCALE_DOWN, _volume(*OLD, NEW), UNWANTED, "Aborted", "no longer asks"),
        (
            Step.SCALE_DOWN,
            _volume(*OLD, NEW),
            {"now_seconds": DEADLINE},
            "Aborted",
            "timed out in ScaleDown",
        ),
        (Step.SCALE_DOWN, _volume(*OLD), {}, "Failed", "new replica vanished"),
        (Step.SCALE_DOWN, _volume(OLD[0], NEW), {}, "Failed", "r1 vanished"),
        (
            Step.SCALE_DOWN,
            _volume(*OLD, NEW, replicas_wanted_count=2),
            {"now_seconds": DEADLINE},
            "Failed",
            "accepted and not carried out",
        ),
        (
            Step.SCALE_DOWN,
            _volume(*OLD, NEW, _replica("x", "sata-7")),
            {},
            "Aborted",
            "someone else",
        ),
    ],
)
def test_what_ends_a_step(
    step: migration.Step, volume: volumes.Volume, changes: dict[str, Any], outcome: str, reason: str
) -> None:
    ending = _ending_of(_decide(_record(step), volume, **changes))
    assert ending.outcome is Outcome(outcome)
    assert reason in ending.reason


@pytest.mark.parametrize(
    "sick",
    [
        (*OLD, dataclasses.replace(NEW, synced=False)),
        (*OLD, dataclasses.replace(NEW, state=FAULTED)),
        (OLD[0], dataclasses.replace(OLD[1], state=volumes.ReplicaState.DEGRADED), NEW),
        (OLD[0], dataclasses.replace(OLD[1], state=volumes.ReplicaState.UNKNOWN), NEW),
    ],
)
def test_nothing_is_removed_while_one_that_stays_is_not_whole(
    sick: tuple[volumes.Replica, ...],
) -> None:
    assert isinstance(_decide(_record(Step.SCALE_DOWN), _volume(*sick)), migration.Wait)


def test_a_source_that_is_sick_may_go() -> None:
    sick = (dataclasses.replace(OLD[0], state=FAULTED), OLD[1], NEW)
    verdict = _decide(_record(Step.SCALE_DOWN), _volume(*sick))
    assert isinstance(verdict, migration.RemoveReplica)
    assert verdict.replica_id == "r0"


def _closing(
    step: migration.Step, outcome: migration.Outcome, reason: str = "why"
) -> migration.Record:
    decided = migration.Ending(outcome=outcome, reason=reason, decided_seconds=NOW)
    return _record(step, ending=decided, revision=9)


@pytest.mark.parametrize(
    ("step", "volume", "surplus", "source_kept"),
    [
        (Step.SCALE_UP, _volume(*OLD), Surplus.NONE, True),
        (Step.SCALE_UP, _volume(*OLD, replicas_wanted_count=3), Surplus.ASKED, True),
        (Step.SCALE_UP, _volume(*OLD, NEW), Surplus.KEPT, True),
        (Step.WAIT_SYNC, _volume(*OLD, NEW), Surplus.KEPT, True),
        (Step.WAIT_SYNC, _volume(OLD[1], NEW), Surplus.KEPT, False),
        (Step.SCALE_DOWN, _volume(*OLD, NEW), Surplus.KEPT, True),
        (Step.SCALE_DOWN, _volume(*OLD, NEW, replicas_wanted_count=2), Surplus.KEPT, False),
    ],
)
def test_the_history_tells_what_is_left(
    step: migration.Step, volume: volumes.Volume, surplus: migration.Surplus, source_kept: bool
) -> None:
    record = _closing(step, Outcome.FAILED)
    verdict = _decide(record, volume)
    assert isinstance(verdict, migration.Seal)
    assert (verdict.seals, verdict.moved_to) == (("id.9",), None)
    verdict = _decide(record, dataclasses.replace(volume, seals=("id.8",)))
    assert isinstance(verdict, migration.Seal)
    assert verdict.seals == ("id.8", "id.9")
    verdict = _decide(record, dataclasses.replace(volume, seals=("id.9", "other.3")))
    assert isinstance(verdict, migration.End)
    assert (verdict.surplus, verdict.source_kept) == (surplus, source_kept)


@pytest.mark.parametrize("outcome", [Outcome.ABORTED, Outcome.PRESERVED])
def test_an_ending_that_a_removal_has_overtaken_is_taken_back(outcome: migration.Outcome) -> None:
    record = _closing(Step.SCALE_DOWN, outcome)
    going = _volume(*OLD, NEW, replicas_wanted_count=2, seals=("id.9",))
    verdict = _decide(record, going)
    assert isinstance(verdict, migration.Advance)
    assert (verdict.record.ending, verdict.record.revision) == (None, 10)
    gone = _decide(record, _volume(OLD[1], NEW, seals=("id.9",)))
    assert isinstance(gone, migration.Advance)
    assert gone.record.ending is None
    again = _decide(gone.record, _volume(OLD[1], NEW, seals=("id.9",)))
    assert _ending_of(again).outcome is Outcome.COMPLETED
    # And then somebody asked for one more: the old replica is gone all the same.
    more = _volume(OLD[1], NEW, replicas_wanted_count=3, seals=("id.9",))
    gone = _decide(record, more)
    assert isinstance(gone, migration.Advance)
    assert gone.record.ending is None
    assert _ending_of(_decide(gone.record, more)).outcome is Outcome.FAILED


def test_a_failure_becomes_a_success_only_by_the_removal_itself() -> None:
    record = _closing(Step.SCALE_DOWN, Outcome.FAILED)
    verdict = _decide(record, _volume(OLD[1], NEW))
    assert isinstance(verdict, migration.Advance)
    assert verdict.record.ending is None
    going = _volume(*OLD, NEW, replicas_wanted_count=2)
    assert isinstance(_decide(record, going), migration.Seal)
    without_new = _decide(record, _volume(OLD[1], replicas_wanted_count=2, seals=("id.9",)))
    assert _ending_of(without_new).reason == "why; replica r0 is gone"
    still = _decide(record, dataclasses.replace(going, seals=("id.9",)))
    assert _ending_of(still).reason == "why; replica r0 may still go"


@pytest.mark.parametrize("step", list(Step))
def test_a_volume_that_is_deleted_ends_a_migration_at_once(step: migration.Step) -> None:
    verdict = _decide(_record(step), None)
    assert isinstance(verdict, migration.End)
    assert verdict.ending.reason == "the volume is gone"
    if step is not Step.ANALYZE:
        verdict = _decide(_closing(step, Outcome.FAILED, "before"), None)
        assert _ending_of(verdict).reason == "before"


def test_a_clock_that_went_back_far_ends_a_migration_and_one_that_differs_does_not() -> None:
    record = _record(Step.WAIT_SYNC)
    syncing = _odd(synced=False)
    timeout_seconds = DEADLINE - STARTED
    for now_seconds in (STARTED - timeout_seconds, STARTED - 1, DEADLINE - 1):
        assert isinstance(_decide(record, syncing, now_seconds=now_seconds), migration.Wait)
    verdict = _decide(record, syncing, now_seconds=STARTED - timeout_seconds - 1)
    assert _ending_of(verdict).outcome is Outcome.ABORTED


REPLICAS = strategies.builds(
    volumes.Replica,
    replica_id=strategies.sampled_from(["r0", "r1", "r2", "n0"]),
    pool=strategies.sampled_from(["sata-0", "sata-1", "nvme-0"]),
    node=strategies.sampled_from(["node-0", "node-1", "node-of-nvme-0"]),
    state=strategies.sampled_from(volumes.ReplicaState),
    synced=strategies.booleans(),
)
VOLUMES = strategies.builds(
    volumes.Volume,
    name=strategies.just("pvc-1"),
    version=strategies.just("77"),
    size_bytes=strategies.just(100),
    storage_class=strategies.just("mayastor"),
    replicas_wanted_count=strategies.integers(0, 4),
    replicas=strategies.lists(REPLICAS, max_size=4, unique_by=lambda each: each.replica_id).map(
        tuple
    ),
    labels=strategies.just({}),
    last_migration_seconds=strategies.none(),
    last_migration_tier=strategies.none(),
    seals=strategies.lists(strategies.sampled_from(["id.0", "id.3"]), max_size=2).map(tuple),
)
NAMES = strategies.sampled_from(["r0", "r1", "n0", "ghost"])
ENDINGS = strategies.none() | strategies.builds(
    migration.Ending,
    outcome=strategies.sampled_from(Outcome),
    reason=strategies.just("why"),
    decided_seconds=strategies.just(NOW),
)
RECORDS = strategies.builds(
    _record,
    step=strategies.sampled_from(Step),
    revision=strategies.integers(0, 4),
    source_replica=NAMES,
    new_replica=strategies.none() | NAMES,
    replicas_at_start=strategies.lists(NAMES, max_size=3, unique=True).map(tuple),
    synced_at_start_count=strategies.integers(0, 3),
    ending=ENDINGS,
)
SIGHTS = strategies.builds(
    sight.FreshSight,
    volume=strategies.none() | VOLUMES,
    target=strategies.none() | strategies.builds(_pool, online=strategies.booleans()),
    record=RECORDS,
    wishes=strategies.builds(
        sight.Wishes, is_wanted=strategies.booleans(), preservation_mode=strategies.booleans()
    ),
    now_seconds=strategies.sampled_from([0.0, NOW, DEADLINE]),
)


@hypothesis.given(SIGHTS)
def test_whatever_stands_in_a_record_only_whole_replicas_stay_alone(
    seen: sight.FreshSight,
) -> None:
    verdict = migration_machine.decide(seen)
    if not isinstance(verdict, migration.RemoveReplica):
        return
    assert seen.volume is not None
    assert seen.record.step is Step.SCALE_DOWN
    staying = [each for each in seen.volume.replicas if each.replica_id != verdict.replica_id]
    assert staying
    assert all(each.is_whole for each in staying)
    assert verdict.volume_version == seen.volume.version


@hypothesis.given(SIGHTS)
def test_a_cache_says_no_more_than_that_there_may_be_something_to_do(
    seen: sight.FreshSight,
) -> None:
    cached = sight.CachedSight(
        volume=seen.volume,
        target=seen.target,
        record=seen.record,
        wishes=seen.wishes,
        now_seconds=seen.now_seconds,
    )
    verdict = migration_machine.decide(seen)
    if isinstance(verdict, migration.Wait):
        assert migration_machine.glance(cached) == verdict
    else:
        assert migration_machine.glance(cached) == migration.LookAfresh()
