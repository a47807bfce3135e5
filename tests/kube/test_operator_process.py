"""The operator as it runs in a cluster: volumes come home, wherever it is killed."""

from __future__ import annotations

import signal
import uuid
from typing import Final

import fake_mayastor
import pytest
from tests.kube import operator_runs, operator_stage

from couchestor_operator.resources import volume_marks

pytestmark = pytest.mark.timeout(180)

MOVED_SECONDS_MAX: Final = 60.0
HEAT_KEPT_SECONDS: Final = 30.0
STEPS: Final = ["Analyze", "ScaleUp", "WaitSync", "ScaleDown"]


async def test_a_volume_that_heats_up_is_moved_and_status_events_and_metrics_tell_of_each_step(
    stage: operator_stage.Stage, operators: operator_runs.Operators
) -> None:
    stage.heat[stage.volume] = 0.0
    steps = operator_runs.Steps(stage.plane, stage.policy)
    operator = operators.start()
    settled = f'couchestor_operator_decisions_total{{decision="Settled",policy="{stage.policy}"}}'
    await operator_runs.until(lambda: operator.figure(settled) > 0, operator, 30)
    assert stage.step() is None
    stage.heat[stage.volume] = 9000.0
    async with stage.manager():
        await operator_runs.until(
            lambda: stage.outcomes() == ["Completed"],
            operator,
            HEAT_KEPT_SECONDS + MOVED_SECONDS_MAX,
        )
    await operator_runs.until(lambda: steps.seen() == STEPS, steps.seen(), 10)
    assert stage.cluster.homes(stage.volume) == ["hot-0"]
    assert min(stage.whole_counts) == 1
    expected = {
        *("MigrationStarted", "ReplicaAdded", "ReplicaSynced", "ReplicaRemoved"),
        "MigrationCompleted",
    }
    await operator_runs.until(lambda: expected == set(stage.told()), stage.told(), 10)
    figures = operator.figures()
    name = "couchestor_operator_migration_step_seconds_count"
    counts = {step: figures[f'{name}{{step="{step}"}}'] for step in STEPS}
    assert counts == dict.fromkeys(STEPS, 1), operator
    labels = f'outcome="Completed",policy="{stage.policy}"'
    assert figures[f"couchestor_operator_migrations_ended_total{{{labels}}}"] == 1
    assert figures['couchestor_operator_queries_total{outcome="ok"}'] >= 2
    told = [line for line in operator.lines() if line.get("policy") == stage.policy]
    begun = [line for line in told if "is to move" in line["message"]]
    assert [line["message"] for line in begun] == [
        f"volume {stage.volume} is to move from pool cold-0 (cold) to hot-0 (hot): 9000 IOPS"
    ]
    assert operator.stop(signal.SIGTERM) == 0
    status, lease = stage.plane.request("GET", f"{operator_runs.LEASES}/{stage.lease}")
    assert (status, lease["spec"].get("holderIdentity", "")) == (200, "")


@pytest.mark.parametrize(
    ("step", "works_count"), [("Analyze", 0), ("ScaleUp", 0), ("WaitSync", 1), ("ScaleDown", 2)]
)
async def test_killed_in_any_step_another_operator_brings_the_volume_home(
    stage: operator_stage.Stage, operators: operator_runs.Operators, step: str, works_count: int
) -> None:
    """It is caught in the step: nobody looks once more, or the manager does not do its part."""
    async with stage.manager(works_count):
        options = {"sync_poll_interval_seconds": "3600", "pass_interval_seconds": "3600"}
        first = operators.start(**(options if step == "Analyze" else {}))
        await operator_runs.until(lambda: stage.step() == step, first, MOVED_SECONDS_MAX)
        first.stop(signal.SIGKILL)
        assert stage.step() == step
    async with stage.manager():
        operator_runs.free_lease(stage.plane, stage.lease)
        next_one = operators.start()
        await operator_runs.until(
            lambda: stage.outcomes() == ["Completed"], next_one, MOVED_SECONDS_MAX
        )
    assert stage.cluster.homes(stage.volume) == ["hot-0"]
    assert stage.cluster.volume(stage.volume)["spec"]["replicaCount"] == 1
    assert min(stage.whole_counts) == 1


@pytest.mark.parametrize("volume_manager", ["rest"])
async def test_a_volume_of_mayastors_rest_api_is_moved_too(
    stage: operator_stage.Stage, operators: operator_runs.Operators
) -> None:
    volume = str(uuid.uuid4())
    stage.heat[volume] = 9000.0
    stage.cluster.put_claim(
        volume, size_bytes=operator_stage.VOLUME_BYTES, storage_class=stage.policy
    )
    async with fake_mayastor.served() as server:
        for tier, node in (("cold", "node-a"), ("hot", "node-b")):
            server.put_pool(f"{tier}-0", node=node, tier=tier, available_bytes=1000)
        server.put_volume(volume, "cold-0", size_bytes=operator_stage.VOLUME_BYTES)
        operator = operators.start(volume_manager="rest", mayastor_url=server.url)

        def moved() -> bool:
            server.settle(volume)
            return stage.outcomes() == ["Completed"]

        await operator_runs.until(moved, operator, MOVED_SECONDS_MAX)
        assert [one["pool"] for one in server.topology(volume).values()] == ["hot-0"]
        puts = [path for method, path in server.asked if method == "PUT"]
        assert puts == [f"/v0/volumes/{volume}/replica_count/{count}" for count in (2, 1)]
        status, claim = stage.plane.request("GET", f"/api/v1/persistentvolumes/pvc-{volume}")
        assert status == 200
        assert claim["metadata"]["annotations"][volume_marks.LAST_TIER] == "hot"
        assert operator.stop(signal.SIGTERM) == 0
