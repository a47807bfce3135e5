"""The operator as it runs in a cluster: a process, a real API server, killed wherever it is."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import pathlib
import signal
import socket
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any, Final

import fake_mayastor
import pytest
from tests.kube import control_plane, mayastor_resources, operator_runs

from couchestor_operator.adapters import kube_access
from couchestor_operator.resources import definition, field_types, volume_marks

pytestmark = pytest.mark.timeout(180)

VOLUME_BYTES: Final = 100
MOVED_SECONDS_MAX: Final = 60.0
HEAT_KEPT_SECONDS: Final = 30.0
STEPS: Final = ["Analyze", "ScaleUp", "WaitSync", "ScaleDown"]
FAILOVER_SECONDS_MAX: Final = 20.0
IDLE_SECONDS: Final = 35.0

_numbers: Final = itertools.count()


class Stage:
    """A volume in a cold pool, a policy for it, and a manager that works when it is let."""

    def __init__(self, plane: control_plane.ControlPlane) -> None:
        self.plane = plane
        self.cluster = mayastor_resources.Cluster(plane)
        self.volume = f"moves-{next(_numbers)}"
        self.policy = self.lease = self.cluster.namespace
        self.heat = {self.volume: 9000.0}
        self.whole_counts: list[int] = []
        for tier, node in (("cold", "node-a"), ("hot", "node-b")):
            self.cluster.put_pool(f"{tier}-0", node=node, tier=tier, available_bytes=1000)
        self.cluster.put_volume(
            self.volume, "cold-0", size_bytes=VOLUME_BYTES, storage_class=self.policy
        )
        document = {
            "apiVersion": field_types.API_VERSION,
            "kind": definition.STORAGE_POLICY.kind,
            "metadata": {"name": self.policy},
            "spec": {
                "storageClassName": self.policy,
                "hotPoolSelector": {"matchLabels": {"tier": "hot"}},
                "coldPoolSelector": {"matchLabels": {"tier": "cold"}},
            },
        }
        status, made = plane.request("POST", operator_runs.POLICIES, document)
        assert status == 201, made
        operator_runs.free_lease(plane, self.lease)

    def status(self) -> Any:
        """Of the policy."""
        status, found = self.plane.request("GET", f"{operator_runs.POLICIES}/{self.policy}")
        assert status == 200, found
        return found.get("status", {})

    def step(self) -> str | None:
        """Of the migration, if one is under way."""
        records = self.status().get("migrations", [])
        return records[0]["step"] if records else None

    def outcomes(self) -> list[str]:
        """Of the migrations that ended."""
        return [one["outcome"] for one in self.status().get("migrationHistory", [])]

    @contextlib.asynccontextmanager
    async def manager(self) -> AsyncIterator[None]:
        """Let the volumes' manager work, until the end of the block."""

        async def works() -> None:
            while True:
                await asyncio.to_thread(self.cluster.settle, self.volume)
                status = (await asyncio.to_thread(self.cluster.volume, self.volume))["status"]
                states = [one["state"] for one in status["nexus"]["children"]]
                self.whole_counts.append(states.count("CHILD_ONLINE"))
                await asyncio.sleep(0.1)

        worker = asyncio.create_task(works())
        try:
            yield
        finally:
            worker.cancel()
            await asyncio.wait([worker])
            if not worker.cancelled():
                worker.result()

    def told(self) -> list[str]:
        """Reasons of the Events beside the volume."""
        path = (
            f"/api/v1/namespaces/default/events?fieldSelector=involvedObject.name=pvc-{self.volume}"
        )
        status, found = self.plane.request("GET", path)
        assert status == 200
        return [one["reason"] for one in found["items"]]


@pytest.fixture
def stage(plane: control_plane.ControlPlane, mayastor: None) -> Stage:
    """What an operator finds."""
    return Stage(plane)


@pytest.fixture
async def operators(
    stage: Stage, access: kube_access.Access, tmp_path: pathlib.Path
) -> AsyncIterator[operator_runs.Operators]:
    """Operators that see this stage, and no other's volumes."""
    async with operator_runs.prometheus(stage.heat) as url:
        with operator_runs.over(
            access,
            tmp_path,
            prometheus_url=url,
            mayastor_namespace=stage.cluster.namespace,
            lease_name=stage.lease,
            lease_namespace="default",
            pass_interval_seconds="0.5",
            sync_poll_interval_seconds="0.2",
        ) as started:
            yield started


async def test_a_volume_that_heats_up_is_moved_and_status_events_and_metrics_tell_of_each_step(
    stage: Stage, operators: operator_runs.Operators
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
    assert steps.seen == STEPS
    assert stage.cluster.homes(stage.volume) == ["hot-0"]
    assert min(stage.whole_counts) == 1
    expected = {
        *("MigrationStarted", "ReplicaAdded", "ReplicaSynced", "ReplicaRemoved"),
        "MigrationCompleted",
    }
    await operator_runs.until(lambda: expected == set(stage.told()), stage.told(), 10)
    figures = operator.figures()
    for step in STEPS:
        assert figures[f'couchestor_operator_migration_step_seconds_count{{step="{step}"}}'] == 1
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


@pytest.mark.parametrize("step", STEPS)
async def test_killed_in_any_step_another_operator_brings_the_volume_home(
    stage: Stage, operators: operator_runs.Operators, step: str
) -> None:
    async with stage.manager():
        # So slow that it is caught in the step: one change of the record in a pass.
        slow = operators.start(pass_interval_seconds="2", sync_poll_interval_seconds="3600")
        await operator_runs.until(lambda: stage.step() == step, slow, MOVED_SECONDS_MAX)
        slow.stop(signal.SIGKILL)
        assert stage.step() == step
        operator_runs.free_lease(stage.plane, stage.lease)
        next_one = operators.start()
        await operator_runs.until(
            lambda: stage.outcomes() == ["Completed"], next_one, MOVED_SECONDS_MAX
        )
    assert stage.cluster.homes(stage.volume) == ["hot-0"]
    assert stage.cluster.volume(stage.volume)["spec"]["replicaCount"] == 1
    assert min(stage.whole_counts) == 1


async def test_a_volume_of_mayastors_rest_api_is_moved_too(
    stage: Stage, operators: operator_runs.Operators
) -> None:
    volume = str(uuid.uuid4())
    stage.heat[volume] = 9000.0
    stage.cluster.put_claim(volume, size_bytes=VOLUME_BYTES, storage_class=stage.policy)
    async with fake_mayastor.served() as server:
        for tier, node in (("cold", "node-a"), ("hot", "node-b")):
            server.put_pool(f"{tier}-0", node=node, tier=tier, available_bytes=1000)
        server.put_volume(volume, "cold-0", size_bytes=VOLUME_BYTES)
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


async def test_of_two_operators_one_leads_and_the_other_takes_over(
    stage: Stage, operators: operator_runs.Operators
) -> None:
    stage.heat[stage.volume] = 0.0
    first = operators.start()
    await first.until_leading(30)
    second = operators.start()
    await second.until_ready()
    assert second.health("/readyz")[1]["leading"] is False
    assert second.figure("couchestor_operator_passes_total") == 0
    killed_at_seconds = time.monotonic()
    first.stop(signal.SIGKILL)
    await second.until_leading(FAILOVER_SECONDS_MAX)
    assert time.monotonic() - killed_at_seconds < FAILOVER_SECONDS_MAX
    # One that stops in order is not waited for.
    third = operators.start()
    await third.until_ready()
    assert second.stop(signal.SIGTERM) == 0
    await third.until_leading(5)


async def test_an_operator_that_loses_the_lease_stops_and_goes_on_when_it_has_it_again(
    stage: Stage, operators: operator_runs.Operators
) -> None:
    stage.heat[stage.volume] = 0.0
    operator = operators.start()
    await operator.until_leading(30)
    path = f"{operator_runs.LEASES}/{stage.lease}"
    spec = {"holderIdentity": "somebody-else", "leaseDurationSeconds": 3}
    status, answer = stage.plane.request("PATCH", path, {"spec": spec})
    assert status == 200, answer
    leading = "couchestor_operator_leading"
    await operator_runs.until(lambda: operator.figures()[leading] == 0.0, operator, 15)
    # Somebody else renews nothing, and so is over when its three seconds are.
    await operator.until_leading(10)
    told = [line["message"].partition(" ")[2] for line in operator.lines()]
    assert [line for line in told if "the lease" in line and "hold" in line] == [
        "holds the lease",
        "does not hold the lease any more: stopped",
        "holds the lease",
    ]
    passes = 'couchestor_operator_passes_total{outcome="complete"}'
    before = operator.figure(passes)
    await operator_runs.until(lambda: operator.figure(passes) > before, operator, 10)
    assert operator.stop(signal.SIGTERM) == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kubeconfig": "/no/such"}, "there is no kubeconfig /no/such: give the path"),
        ({"kube_context": "other"}, "cannot be used: "),
        ({"metrics_addr": "127.0.0.1:TAKEN"}, "choose another address with --metrics-addr"),
        ({"prometheus_url": "https://p", "prometheus_ca_file": "/no/such"}, "the CA file /no/such"),
        ({"prometheus_url": "nowhere"}, "the Prometheus URL is not one"),
        ({"metrics_query": "rate(x[1h"}, "the metrics query 'rate(x[1h' cannot be used"),
    ],
    ids=lambda each: next(iter(each)) if isinstance(each, dict) else "",
)
async def test_a_setting_that_cannot_be_used_ends_the_operator_at_once_in_one_line(
    operators: operator_runs.Operators, options: dict[str, str], said: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        words = {name: text.replace("TAKEN", str(port)) for name, text in options.items()}
        operator = operators.start(**words)
        assert await asyncio.to_thread(operator.process.wait, 20) == 2
    last = operator.lines()[-1]
    assert said in last["message"]
    assert (last["level"], "exception" in last) == ("error", False)


async def test_an_idle_operator_takes_less_than_a_hundredth_of_a_processor(
    stage: Stage, operators: operator_runs.Operators
) -> None:
    stage.heat[stage.volume] = 0.0
    operator = operators.start(pass_interval_seconds="30", sync_poll_interval_seconds="5")
    passes = 'couchestor_operator_passes_total{outcome="complete"}'
    await operator_runs.until(lambda: operator.figure(passes) == 1, operator, 30)
    before_seconds, started_seconds = operator.processor_seconds(), time.monotonic()
    # Renewals, watches and a pass; nobody asks it anything meanwhile, which would count, too.
    await asyncio.sleep(IDLE_SECONDS)
    taken_seconds = operator.processor_seconds() - before_seconds
    assert taken_seconds / (time.monotonic() - started_seconds) < 0.01
    assert operator.figure(passes) == 2
    assert operator.health("/healthz") == (200, {"stuck_loops_silent_seconds": {}})


async def test_an_operator_without_an_api_server_says_so_and_waits(
    operators: operator_runs.Operators, access: kube_access.Access, tmp_path: pathlib.Path
) -> None:
    (port,) = control_plane.free_ports(1)
    nowhere = tmp_path / "nowhere"
    nowhere.write_text(
        "current-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\n"
        f"clusters: [{{name: k, cluster: {{server: 'https://127.0.0.1:{port}'}}}}]\n"
        "users: [{name: u, user: {token: t}}]\n"
    )
    operator = operators.start(kubeconfig=str(nowhere))
    await operator_runs.until(
        lambda: any("cannot be reached" in line["message"] for line in operator.lines()),
        operator,
        30,
    )
    status, answer = operator.health("/readyz")
    assert status == 503
    assert "nothing has been heard of storagepolicies" in answer["missing"]["policies"]
    assert operator.health("/healthz")[0] == 200
    assert operator.stop(signal.SIGTERM) == 0
