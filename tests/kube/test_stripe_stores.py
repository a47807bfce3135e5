"""Stripe groups, nodes and erasure-coding policies in a real API server."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any, Final

import assignment_stage
import pytest
import refused_resources
import stripe_store_contract
from tests.kube import control_plane

from couchestor_domain import errors, geometry
from couchestor_operator.adapters import (
    kube_api,
    kube_copy,
    kube_ec_policies,
    kube_nodes,
    kube_stripes,
    system_clock,
)
from couchestor_operator.control import selector, stripe_group
from couchestor_operator.ports import stripe_store
from couchestor_operator.resources import cluster_node, definition, field_types

STRIPES: Final = f"/apis/{field_types.API_VERSION}/{definition.EC_STRIPE.plural}"
EC_POLICIES: Final = f"/apis/{field_types.API_VERSION}/{definition.ERASURE_CODING_POLICY.plural}"
NODES: Final = "/api/v1/nodes"
TOLD_SECONDS_MAX: Final = 30.0

_numbers: Final = itertools.count()


class KubeStripesHarness:
    """Over the API server, where people use what any client sends."""

    def __init__(
        self,
        api: kube_api.KubeApi,
        plane: control_plane.ControlPlane,
        copy: kube_copy.KubeCopy,
    ) -> None:
        self._plane = plane
        self._copy = copy
        self._store = kube_stripes.KubeStripes(api, copy, system_clock.SystemClock())

    @property
    def store(self) -> stripe_store.StripeStore:
        """Of the operator."""
        return self._store

    async def shows(self, group: stripe_group.StripeGroup) -> None:
        """The watch tells it."""
        async with asyncio.timeout(TOLD_SECONDS_MAX):
            while True:
                found = self._copy.at_hand().get(group.name)
                # Versions of one etcd rise.
                if found and int(found["metadata"]["resourceVersion"]) >= int(group.version):
                    return
                await self._copy.change()

    async def shows_none(self, name: str) -> None:
        """The watch tells it."""
        async with asyncio.timeout(TOLD_SECONDS_MAX):
            while name in self._copy.at_hand():
                await self._copy.change()

    async def annotate(self, name: str, key: str, value: str) -> None:
        """As ``kubectl annotate``."""
        change = {"metadata": {"annotations": {key: value}}}
        status, answer = self._plane.request("PATCH", f"{STRIPES}/{name}", change)
        assert status == 200, answer

    async def delete(self, name: str) -> None:
        """As ``kubectl delete``."""
        status, answer = self._plane.request("DELETE", f"{STRIPES}/{name}")
        assert status == 200, answer

    async def make_others(self, name: str) -> None:
        """As ``kubectl create``."""
        document = {
            "apiVersion": field_types.API_VERSION,
            "kind": definition.EC_STRIPE.kind,
            "metadata": {"name": name},
            "spec": refused_resources.STRIPE,
        }
        status, answer = self._plane.request("POST", STRIPES, document)
        assert status == 201, answer


async def _kept(api: kube_api.KubeApi, kind: kube_api.Kind) -> AsyncIterator[kube_copy.KubeCopy]:
    made = kube_copy.KubeCopy(api, kind, system_clock.SystemClock())
    keeper = asyncio.create_task(made.run())
    async with asyncio.timeout(TOLD_SECONDS_MAX):
        await made.change()
    yield made
    keeper.cancel()
    await asyncio.wait([keeper])


@pytest.fixture
async def copy(api: kube_api.KubeApi, crds: dict[str, Any]) -> AsyncIterator[kube_copy.KubeCopy]:
    """Of all ECStripes, kept up."""
    assert crds
    async for made in _kept(api, kube_stripes.KIND):
        yield made


@pytest.fixture
async def node_copy(api: kube_api.KubeApi) -> AsyncIterator[kube_copy.KubeCopy]:
    """Of all Nodes, kept up."""
    async for made in _kept(api, kube_nodes.KIND):
        yield made


@pytest.mark.parametrize(
    "check", stripe_store_contract.CHECKS, ids=lambda check: str(check.__name__)
)
async def test_stripes(
    api: kube_api.KubeApi,
    plane: control_plane.ControlPlane,
    copy: kube_copy.KubeCopy,
    check: stripe_store_contract.Check,
) -> None:
    await check(KubeStripesHarness(api, plane, copy))


async def test_a_lost_node_s_shards_move_in_the_api_server_and_its_columns_tell(
    api: kube_api.KubeApi, plane: control_plane.ControlPlane, copy: kube_copy.KubeCopy
) -> None:
    harness = KubeStripesHarness(api, plane, copy)
    stage = assignment_stage.Stage(nodes_count=0)
    prefix = f"n{next(_numbers)}-"
    names = [f"{prefix}{index}" for index in range(5)]
    for name in names:
        stage.add_node(name)

    async def passes(count: int) -> None:
        # Another process each time knows only what the API server does, and what nodes say.
        for _ in range(count):
            await stage.run(operator)
            for group in await harness.store.every():
                await harness.shows(group)

    operator = stage.operator(stripes=harness.store)
    await passes(1)
    async with asyncio.timeout(TOLD_SECONDS_MAX):
        while len([one for one in copy.at_hand() if one.startswith(prefix)]) < 10:
            await copy.change()
    await passes(3)
    ours = [group for group in await harness.store.every() if group.writer_node in names]
    assert {group.told.state for group in ours if group.told} == {stripe_group.State.WRITING}
    assert {group.handed_generation for group in ours} == {1}
    victim = ours[0].places[0].node
    stage.change(victim, declared_lost=True)
    await passes(1)
    name = ours[0].name
    status, found = plane.request("GET", f"{STRIPES}/{name}")
    assert (status, found["spec"]["generation"]) == (200, 2)
    assert found["spec"]["movedShards"] == [0]
    assert found["status"]["state"] == "Degraded"
    assert found["status"]["healthyShards"] == 2
    assert found["status"]["healthyDataShards"] == 1
    (missing,) = [one for one in found["status"]["shardHealth"] if one["state"] == "Missing"]
    assert missing == {"shardIndex": 0, "state": "Missing", "error": f"node {victim} is lost"}
    assert victim not in {one["nodeName"] for one in found["spec"]["shardLocations"]}


async def test_nodes_are_read_as_people_and_kubelets_set_them(
    plane: control_plane.ControlPlane, node_copy: kube_copy.KubeCopy
) -> None:
    name = f"storage-{next(_numbers)}"
    labels = {"storage": "couchestor", cluster_node.ZONE_LABEL: "zone-a"}
    document = {"kind": "Node", "apiVersion": "v1", "metadata": {"name": name, "labels": labels}}
    status, answer = plane.request("POST", NODES, document)
    assert status == 201, answer
    moment = "2026-01-01T00:00:00Z"
    heard = {
        "addresses": [
            {"type": "Hostname", "address": name},
            {"type": "InternalIP", "address": "10.1.0.5"},
        ],
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "KubeletReady",
                "message": "",
                "lastHeartbeatTime": moment,
                "lastTransitionTime": moment,
            }
        ],
    }
    status, answer = plane.request("PATCH", f"{NODES}/{name}/status", {"status": heard})
    assert status == 200, answer
    wanted = selector.Selector(match_labels={"storage": "couchestor"})
    directory = kube_nodes.KubeNodes(node_copy, wanted=wanted)
    async with asyncio.timeout(TOLD_SECONDS_MAX):
        while name not in (known := await directory.nodes()) or not known[name].ready:
            await node_copy.change()
    found = known[name]
    assert (found.address, found.zone, found.selected) == ("10.1.0.5", "zone-a", True)
    assert not found.declared_lost
    taint = {"key": cluster_node.OUT_OF_SERVICE, "value": "nodeshutdown", "effect": "NoExecute"}
    change = {"spec": {"taints": [taint]}, "metadata": {"labels": {"storage": None}}}
    status, answer = plane.request("PATCH", f"{NODES}/{name}", change)
    assert status == 200, answer
    async with asyncio.timeout(TOLD_SECONDS_MAX):
        while not (await directory.nodes())[name].declared_lost:
            await node_copy.change()
    assert not (await directory.nodes())[name].selected
    status, answer = plane.request("DELETE", f"{NODES}/{name}")
    assert status == 200, answer
    async with asyncio.timeout(TOLD_SECONDS_MAX):
        while name in await directory.nodes():
            await node_copy.change()


async def test_erasure_coding_policies_are_read_fresh(
    api: kube_api.KubeApi, plane: control_plane.ControlPlane, crds: dict[str, Any]
) -> None:
    assert crds
    policies = kube_ec_policies.KubeEcPolicies(api)
    name = f"ec-{next(_numbers)}"
    with pytest.raises(errors.EcPolicyNotFoundError, match=name):
        await policies.read(name)
    document = {
        "apiVersion": field_types.API_VERSION,
        "kind": definition.ERASURE_CODING_POLICY.kind,
        "metadata": {"name": name},
        "spec": {"dataShards": 8, "parityShards": 3},
    }
    status, answer = plane.request("POST", EC_POLICIES, document)
    assert status == 201, answer
    read = await policies.read(name)
    assert (read.coding, read.stripe_bytes) == (geometry.StripeGeometry(8, 3), 1 << 20)
