"""The operator as a process assigns stripe groups: a real API server, nodes over HTTP."""

from __future__ import annotations

import contextlib
import itertools
import pathlib
import signal
from collections.abc import AsyncIterator
from typing import Any, Final

import fake_node
import memory_node
import pytest
from tests.kube import chart_accounts, control_plane, helm_runs, operator_runs

from couchestor_domain.node_api import node_record
from couchestor_operator.resources import cluster_node, definition, field_types

pytestmark = pytest.mark.timeout(240)

STRIPES: Final = f"/apis/{field_types.API_VERSION}/{definition.EC_STRIPE.plural}"
EC_POLICIES: Final = f"/apis/{field_types.API_VERSION}/{definition.ERASURE_CODING_POLICY.plural}"
NODES: Final = "/api/v1/nodes"
NODES_COUNT: Final = 4
SECONDS_MAX: Final = 90.0

_numbers: Final = itertools.count()


class Cluster:
    """Four storage nodes, each at an address of its own and all at one port."""

    def __init__(self, plane: control_plane.ControlPlane) -> None:
        self.plane = plane
        self.name = f"assigns-{next(_numbers)}"
        (self.port,) = control_plane.free_ports(1)
        self.nodes = {
            f"{self.name}-{number}": memory_node.MemoryNode(f"{self.name}-{number}")
            for number in range(NODES_COUNT)
        }
        self._servers: dict[str, contextlib.AsyncExitStack] = {}
        # Those of other tests are on nodes that nobody has: more than half would seem to be lost.
        self._made("DELETE", STRIPES, None)
        self._made("POST", EC_POLICIES, self._policy())
        operator_runs.have_namespace(plane, helm_runs.NAMESPACE)
        operator_runs.free_lease(plane, self.name)

    async def start(self) -> None:
        """Have all of them."""
        for number, (name, node) in enumerate(self.nodes.items()):
            host = f"127.0.1.{number + 1}"
            labels = {"storage": self.name, cluster_node.ZONE_LABEL: f"zone-{number}"}
            document = {
                "kind": "Node",
                "apiVersion": "v1",
                "metadata": {"name": name, "labels": labels},
            }
            self._made("POST", NODES, document)
            self.say_ready(name, True, addresses=[{"type": "InternalIP", "address": host}])
            self._servers[name] = stack = contextlib.AsyncExitStack()
            await stack.enter_async_context(fake_node.served(node, host=host, port=self.port))

    async def stop(self) -> None:
        """Take all of them away."""
        for name in self.nodes:
            await self._servers[name].aclose()
            self.plane.request("DELETE", f"{NODES}/{name}")

    async def lose(self, name: str) -> None:
        """One dies."""
        await self._servers[name].aclose()
        self.say_ready(name, False)

    def say_ready(self, name: str, ready: bool, **more: object) -> None:
        """As its kubelet does, or Kubernetes in its stead."""
        moment = "2026-01-01T00:00:00Z"
        condition = {
            "type": "Ready",
            "status": "True" if ready else "Unknown",
            "reason": "Said",
            "message": "",
            "lastHeartbeatTime": moment,
            "lastTransitionTime": moment,
        }
        self._made(
            "PATCH", f"{NODES}/{name}/status", {"status": {"conditions": [condition], **more}}
        )

    def stripes(self) -> dict[str, Any]:
        """ECStripes of the writers of these nodes."""
        status, found = self.plane.request("GET", STRIPES)
        assert status == 200, found
        return {
            one["metadata"]["name"]: one
            for one in found["items"]
            if one["spec"]["volumeRef"].startswith(f"{self.name}-")
        }

    def usable_count(self) -> int:
        """Groups that writers may use."""
        return sum(
            group.usable
            for node in self.nodes.values()
            for writer in node.writers.values()
            for group in writer.groups.values()
        )

    def _policy(self) -> dict[str, Any]:
        return {
            "apiVersion": field_types.API_VERSION,
            "kind": definition.ERASURE_CODING_POLICY.kind,
            "metadata": {"name": self.name},
            "spec": {"dataShards": 2, "parityShards": 1},
        }

    def _made(self, method: str, path: str, document: object) -> None:
        status, answer = self.plane.request(method, path, document)
        assert status in (200, 201), answer


@pytest.fixture
async def cluster(plane: control_plane.ControlPlane, mayastor: None) -> AsyncIterator[Cluster]:
    """What an operator finds."""
    made = Cluster(plane)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
def account(cluster: Cluster, helm: helm_runs.Helm) -> chart_accounts.Account:
    """Who the operator is."""
    return chart_accounts.Account(
        cluster.plane,
        helm,
        leaseName=cluster.name,
        nodeSelector=f"storage={cluster.name}",
        stripePolicy=cluster.name,
        mayastorNamespace="default",
    )


async def test_groups_are_made_handed_over_and_moved_off_a_lost_node_by_the_charts_rights(
    cluster: Cluster, account: chart_accounts.Account, tmp_path: pathlib.Path
) -> None:
    async with operator_runs.prometheus({}) as url:
        with operator_runs.over(
            account.opened(tmp_path),
            tmp_path,
            prometheus_url=url,
            lease_name=cluster.name,
            lease_namespace=helm_runs.NAMESPACE,
            mayastor_namespace="default",
            node_selector=f"storage={cluster.name}",
            stripe_policy=cluster.name,
            stripe_interval_seconds="0.5",
            node_grace_seconds="2",
            node_port=str(cluster.port),
            node_tls="false",
        ) as operators:
            operator = operators.start()
            await operator_runs.until(
                lambda: cluster.usable_count() == 2 * NODES_COUNT, operator, SECONDS_MAX
            )
            before = cluster.stripes()
            assert len(before) == 2 * NODES_COUNT
            name = next(iter(before))
            victim = before[name]["spec"]["shardLocations"][0]["nodeName"]
            for shard in before[name]["spec"]["shardLocations"]:
                node = cluster.nodes[shard["nodeName"]]
                node.move_on(name, node_record.ShardState.SEALED, written_bytes=4096)
            await operator_runs.until(
                lambda: cluster.stripes()[name]["status"]["state"] == "Healthy",
                operator,
                SECONDS_MAX,
            )
            await cluster.lose(victim)

            def is_moved() -> bool:
                found = cluster.stripes()[name]
                homes = {one["nodeName"] for one in found["spec"]["shardLocations"]}
                return victim not in homes and found["status"]["state"] == "Rebuilding"

            await operator_runs.until(is_moved, operator, SECONDS_MAX)
            assert cluster.stripes()[name]["spec"]["generation"] == 2
            # Told of at the end of the pass.
            rebuilding = 'couchestor_operator_stripe_groups{state="Rebuilding"}'
            await operator_runs.until(
                lambda: operator.figure(rebuilding) >= 1, operator, SECONDS_MAX
            )
            figures = operator.figures()
            assert figures['couchestor_operator_nodes{kind="lost"}'] == 1
            assert figures['couchestor_operator_stripe_changes_total{what="moved"}'] >= 1
            told = [line["message"] for line in operator.lines()]
            assert f"node {victim} is lost: its shards get new places" in told
            assert any(f"stripe group {name} is Degraded" in line for line in told)
            assert operator.health("/healthz") == (200, {"stuck_loops_silent_seconds": {}})
            assert operator.stop(signal.SIGTERM) == 0
    asked = set(account.used())
    assert [each for each in asked if each[1] in (401, 403)] == []
    used = {right for right, _ in asked}
    for_stripes = {
        right
        for right in account.granted()
        if right[1].split("/")[0] in ("ecstripes", "erasurecodingpolicies", "nodes")
    }
    assert for_stripes - used == set(), "the chart grants what nothing uses"
    assert used - account.granted() == set()
