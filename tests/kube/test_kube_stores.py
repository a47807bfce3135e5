"""Policies, Leases, pools and Events in a real API server, by the contracts of their ports."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import itertools
import pathlib
import urllib.parse
from collections.abc import AsyncIterator
from typing import Any, Final

import lease_store_contract
import policy_store_contract
import psutil
import pytest
import set_clock
import tiering_stage
from tests.kube import control_plane

from couchestor_domain import errors, events, tiers
from couchestor_operator.adapters import (
    kube_access,
    kube_api,
    kube_copy,
    kube_events,
    kube_leases,
    kube_policies,
    kube_pools,
    system_clock,
)
from couchestor_operator.control import election, pool
from couchestor_operator.ports import policy_store
from couchestor_operator.resources import (
    definition,
    disk_pool,
    field_types,
    policy_document,
    storage_policy,
)
from couchestor_operator.services import leadership, migrator, tiering_pass

POLICIES: Final = f"/apis/{field_types.API_VERSION}/{definition.STORAGE_POLICY.plural}"
LEASES: Final = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
SERVED_SECONDS_MAX: Final = 30.0
TOLD_SECONDS_MAX: Final = 30.0

_numbers: Final = itertools.count()


def make_policy(plane: control_plane.ControlPlane, name: str, spec: dict[str, Any]) -> None:
    """As ``kubectl create``."""
    document = {
        "apiVersion": field_types.API_VERSION,
        "kind": definition.STORAGE_POLICY.kind,
        "metadata": {"name": name},
        "spec": spec,
    }
    status, made = plane.request("POST", POLICIES, document)
    assert status == 201, made


class KubeHarness:
    """Over the API server, where people use what any client sends."""

    def __init__(
        self,
        api: kube_api.KubeApi,
        plane: control_plane.ControlPlane,
        copy: kube_copy.KubeCopy,
    ) -> None:
        self._copy = copy
        self.store: policy_store.PolicyStore = kube_policies.KubePolicies(api, copy)
        self.name = f"contract-{next(_numbers)}"
        self._plane = plane

    async def make(self, spec: dict[str, Any]) -> None:
        """As ``kubectl create``."""
        make_policy(self._plane, self.name, spec)

    async def edit(self, spec: dict[str, Any]) -> None:
        """As ``kubectl patch``."""
        status, made = self._plane.request("PATCH", f"{POLICIES}/{self.name}", {"spec": spec})
        assert status == 200, made

    async def delete(self) -> None:
        """As ``kubectl delete --wait=false``."""
        status, made = self._plane.request("DELETE", f"{POLICIES}/{self.name}")
        assert status == 200, made

    async def status(self) -> storage_policy.StoragePolicyStatus:
        """As ``kubectl get -o json``."""
        status, found = self._plane.request("GET", f"{POLICIES}/{self.name}")
        assert status == 200, found
        return policy_document.status_of(found)

    async def shows(self, expected: bool) -> None:
        """The watch tells it."""
        async with asyncio.timeout(TOLD_SECONDS_MAX):
            while (self.name in await self.store.names()) is not expected:
                await self._copy.change()


@pytest.fixture
async def copy(api: kube_api.KubeApi, crds: dict[str, Any]) -> AsyncIterator[kube_copy.KubeCopy]:
    """Of all policies, kept up."""
    assert crds
    made = kube_copy.KubeCopy(api, kube_policies.KIND, system_clock.SystemClock())
    keeper = asyncio.create_task(made.run())
    async with asyncio.timeout(TOLD_SECONDS_MAX):
        await made.change()
    yield made
    keeper.cancel()
    await asyncio.wait([keeper])


@pytest.mark.parametrize(
    "check", policy_store_contract.CHECKS, ids=lambda check: str(check.__name__)
)
async def test_policies(
    api: kube_api.KubeApi,
    plane: control_plane.ControlPlane,
    copy: kube_copy.KubeCopy,
    check: policy_store_contract.Check,
) -> None:
    await check(KubeHarness(api, plane, copy))


async def test_a_list_of_many_pages_is_read_to_its_end(
    api: kube_api.KubeApi,
    plane: control_plane.ControlPlane,
    copy: kube_copy.KubeCopy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    harnesses = [KubeHarness(api, plane, copy) for _ in range(5)]
    for harness in harnesses:
        await harness.make({})
    monkeypatch.setattr(kube_api, "PAGE_ITEMS_COUNT", 2)
    listing = await api.listed(kube_policies.KIND)
    names = [document["metadata"]["name"] for document in listing.documents]
    assert len(names) == len(set(names))
    assert {harness.name for harness in harnesses} <= set(names)


# -- what is at hand -----------------------------------------------------------------------------


async def test_a_copy_shows_what_people_do(
    api: kube_api.KubeApi, plane: control_plane.ControlPlane, copy: kube_copy.KubeCopy
) -> None:
    harness = KubeHarness(api, plane, copy)
    await harness.make({})
    await harness.shows(True)
    await harness.edit({"dryRun": True})
    async with asyncio.timeout(TOLD_SECONDS_MAX):
        while not copy.at_hand()[harness.name]["spec"]["dryRun"]:
            await copy.change()
    await harness.delete()
    await harness.shows(False)


async def test_a_copy_that_missed_too_much_lists_again(
    api: kube_api.KubeApi,
    plane: control_plane.ControlPlane,
    copy: kube_copy.KubeCopy,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    harness = KubeHarness(api, plane, copy)
    await harness.make({})
    listed = api.listed

    async def of_long_ago(kind: kube_api.Kind) -> kube_api.Listing:
        monkeypatch.setattr(api, "listed", listed)
        return kube_api.Listing(documents=[], version="1")

    monkeypatch.setattr(api, "listed", of_long_ago)
    other = kube_copy.KubeCopy(api, kube_policies.KIND, system_clock.SystemClock())
    keeper = asyncio.create_task(other.run())
    async with asyncio.timeout(TOLD_SECONDS_MAX):
        await other.change()
        while harness.name not in other.at_hand():
            await other.change()
    assert "410: that version is too old" in caplog.text
    keeper.cancel()
    await asyncio.wait([keeper])


async def test_a_copy_of_what_has_not_been_heard_of_for_long_is_not_shown(
    api: kube_api.KubeApi, crds: dict[str, Any]
) -> None:
    assert crds
    clock = set_clock.SetClock()
    copy = kube_copy.KubeCopy(api, kube_policies.KIND, clock)
    with pytest.raises(errors.KubernetesApiError, match="nothing has been heard"):
        copy.at_hand()
    keeper = asyncio.create_task(copy.run())
    async with asyncio.timeout(TOLD_SECONDS_MAX):
        await copy.change()
    copy.at_hand()
    keeper.cancel()
    await asyncio.wait([keeper])
    clock.go(kube_copy.AGE_SECONDS_MAX + 1)
    with pytest.raises(errors.KubernetesApiError, match="nothing has been heard"):
        copy.at_hand()


async def test_watches_that_are_left_leave_no_connection(
    access: kube_access.Access, plane: control_plane.ControlPlane, crds: dict[str, Any]
) -> None:
    assert crds
    before = _ports_to(plane)
    async with kube_api.opened(access, system_clock.SystemClock()) as api:
        since = (await api.listed(kube_policies.KIND)).version
        make_policy(plane, f"left-{next(_numbers)}", {})
        for _ in range(3):
            changes = api.watched(kube_policies.KIND, since=since, seconds=60)
            async with asyncio.timeout(TOLD_SECONDS_MAX), contextlib.aclosing(changes):
                await anext(changes)
                assert _ports_to(plane) - before
    await asyncio.sleep(0)
    assert _ports_to(plane) <= before


def _ports_to(plane: control_plane.ControlPlane) -> set[int]:
    """Of this process's connections to the API server."""
    port = urllib.parse.urlsplit(plane.url).port
    return {
        each.laddr.port
        for each in psutil.Process().net_connections("tcp")
        if each.raddr and each.raddr.port == port
    }


async def test_the_generation_that_was_seen_is_told(
    api: kube_api.KubeApi, plane: control_plane.ControlPlane, copy: kube_copy.KubeCopy
) -> None:
    harness = KubeHarness(api, plane, copy)
    await harness.make({})
    await harness.shows(True)
    await harness.edit({"enabled": False})
    stage = tiering_stage.Stage()
    await _pass(stage, harness.store).run()
    status = await harness.status()
    assert (status.observed_generation, status.phase.value) == (2, "Disabled")


def _pass(stage: tiering_stage.Stage, store: policy_store.PolicyStore) -> tiering_pass.TieringPass:
    """Of an operator whose volumes are in memory and whose policies are not."""
    return tiering_pass.TieringPass(
        manager=stage.memory,
        policies=store,
        metrics=stage.heat,
        time=stage.clock,
        mover=migrator.Migrator(
            manager=stage.memory,
            policies=store,
            time=stage.clock,
            publisher=stage.heard,
            new_id=lambda: f"m{next(_numbers)}",
        ),
        migrations_count_max=10,
    )


async def test_a_volume_moves_under_a_policy_of_the_api_server_and_both_say_so(
    api: kube_api.KubeApi, plane: control_plane.ControlPlane, copy: kube_copy.KubeCopy
) -> None:
    harness = KubeHarness(api, plane, copy)
    await harness.make(
        {
            "storageClassName": "moves",
            "hotPoolSelector": {"matchLabels": {"tier": "hot"}},
            "coldPoolSelector": {"matchLabels": {"tier": "cold"}},
        }
    )
    await harness.shows(True)
    stage = tiering_stage.Stage()
    moves = tiering_stage.volume("pvc-0", "cold-0", "cold-1", storage_class="moves")
    stage.put(moves, iops=9000)
    for _ in range(tiering_stage.PASSES_COUNT_MAX):
        # Another process each time, which knows only what the API server does.
        summary = await _pass(stage, kube_policies.KubePolicies(api, copy)).run()
        await stage.settle()
        if summary.begun_count == summary.under_way_count == 0:
            break
    assert {home[:3] for home in stage.homes("pvc-0")} == {"hot"}
    status = await harness.status()
    assert [past.outcome.value for past in status.migration_history] == ["Completed"] * 2
    assert (status.phase.value, status.hot_volumes, status.total_migrations) == ("Active", 1, 2)
    found = {one.type: (one.status.value, one.reason) for one in status.conditions}
    assert found["Ready"] == ("True", "Reconciled")
    # It goes by itself, since nothing is under way.
    await harness.delete()
    await _pass(stage, harness.store).run()
    assert await harness.store.read(harness.name) is None


# -- Leases --------------------------------------------------------------------------------------


class DeletableLeases(kube_leases.KubeLeases):
    """One Lease of its own, and people who take it away."""

    def __init__(self, api: kube_api.KubeApi, plane: control_plane.ControlPlane) -> None:
        self._path = f"{LEASES}/contract-{next(_numbers)}"
        self._plane = plane
        super().__init__(
            api, name=self._path.rpartition("/")[2], namespace="default", lease_seconds=15
        )

    def delete(self) -> None:
        """As ``kubectl delete``."""
        status, answer = self._plane.request("DELETE", self._path)
        assert status == 200, answer


def _leases(api: kube_api.KubeApi, name: str) -> kube_leases.KubeLeases:
    return kube_leases.KubeLeases(api, name=name, namespace="default", lease_seconds=15)


@pytest.mark.parametrize(
    "check", lease_store_contract.CHECKS, ids=lambda check: str(check.__name__)
)
async def test_leases(
    api: kube_api.KubeApi,
    plane: control_plane.ControlPlane,
    check: lease_store_contract.Check,
) -> None:
    await check(DeletableLeases(api, plane))


async def test_a_lease_is_written_as_others_read_it(
    api: kube_api.KubeApi, plane: control_plane.ControlPlane
) -> None:
    name = f"contract-{next(_numbers)}"
    await _leases(api, name).write(lease_store_contract.LEASE)
    status, found = plane.request("GET", f"{LEASES}/{name}")
    assert status == 200
    assert found["spec"] == {
        "holderIdentity": "operator-a",
        "leaseDurationSeconds": 15,
        "acquireTime": "2023-11-14T22:13:20.000000Z",
        "renewTime": "2023-11-14T22:13:20.250000Z",
        "leaseTransitions": 3,
    }


async def test_two_operators_take_turns_and_never_act_together(
    access: kube_access.Access,
) -> None:
    terms = election.Terms(lease_seconds=2, act_seconds=1.5, renew_seconds=0.3)
    clock = system_clock.SystemClock()
    name = f"election-{next(_numbers)}"
    order: list[str] = []
    working: set[str] = set()
    changed = asyncio.Event()

    async def work(identity: str) -> None:
        assert not working
        working.add(identity)
        order.append(identity)
        changed.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            working.remove(identity)

    async def begins(identity: str) -> None:
        async with asyncio.timeout(30):
            while identity not in working:
                changed.clear()
                await changed.wait()

    async with (
        kube_api.opened(access, clock) as first_api,
        kube_api.opened(access, clock) as second_api,
        asyncio.TaskGroup() as group,
    ):
        runs = {
            identity: group.create_task(
                leadership.Leadership(
                    identity=identity,
                    terms=terms,
                    leases=kube_leases.KubeLeases(
                        own_api, name=name, namespace="default", lease_seconds=2
                    ),
                    since_boot=system_clock.BootClock(),
                    time=clock,
                ).run(functools.partial(work, identity))
            )
            for identity, own_api in (("a", first_api), ("b", second_api))
        }
        async with asyncio.timeout(30):
            await changed.wait()
        (leader,) = order
        (other,) = set(runs) - {leader}
        runs[leader].cancel()
        await begins(other)
        runs[other].cancel()
    assert order == [leader, other]
    async with kube_api.opened(access, clock) as third_api:
        left = await _leases(third_api, name).read()
    assert left is not None
    assert (left.holder, left.transitions_count) == ("", 1)


# -- pools and Events ----------------------------------------------------------------------------


@pytest.mark.parametrize("version", disk_pool.VERSIONS)
async def test_pools_are_read_in_every_version_that_is_known(
    api: kube_api.KubeApi, plane: control_plane.ControlPlane, mayastor: None, version: str
) -> None:
    disk_pools = (
        f"/apis/{disk_pool.GROUP}/{disk_pool.VERSIONS[0]}/namespaces/default/{disk_pool.PLURAL}"
    )
    name = f"pool-{next(_numbers)}"
    document: dict[str, Any] = {
        "apiVersion": f"{disk_pool.GROUP}/{disk_pool.VERSIONS[0]}",
        "kind": "DiskPool",
        "metadata": {"name": name, "labels": {"tier": "hot"}},
        "spec": {"node": "node-1", "disks": ["/dev/sda"]},
    }
    answer = plane.request("POST", disk_pools, document)
    assert answer[0] == 201, answer
    pools = kube_pools.KubePools(api, namespace="default", version=version)
    expected = pool.Pool(
        name=name, node="node-1", online=False, available_bytes=0, labels={"tier": "hot"}
    )
    assert await pools.one(name) == expected
    status = {"cr_state": "Created", "pool_status": "Online", "available": 1 << 40}
    answer = plane.request("PATCH", f"{disk_pools}/{name}/status", {"status": status})
    assert answer[0] == 200, answer
    online = dataclasses.replace(expected, online=True, available_bytes=1 << 40)
    assert await pools.one(name) == online
    assert online in await pools.every()
    assert await pools.one("no-such") is None


async def test_events_stand_beside_the_volume(
    api: kube_api.KubeApi, plane: control_plane.ControlPlane
) -> None:
    published = kube_events.KubeEvents(api, set_clock.SetClock(), instance="operator-a")
    writer = asyncio.create_task(published.run())
    volume = f"pvc-{next(_numbers)}"
    published.publish(events.VolumeDeleted(volume=volume))
    published.publish(
        events.MigrationStarted(
            volume=volume, source_pool="a", target_pool="b", target_tier=tiers.Tier.HOT
        )
    )
    published.publish(events.MigrationAborted(volume=volume, step="ScaleUp", reason="too slow"))
    async with asyncio.timeout(30):
        await published.drain()
    writer.cancel()
    status, found = plane.request(
        "GET", f"/api/v1/namespaces/default/events?fieldSelector=involvedObject.name={volume}"
    )
    assert status == 200
    told = {(one["type"], one["reason"], one["message"]) for one in found["items"]}
    assert told == {
        ("Normal", "MigrationStarted", "moves from pool a to b (hot)"),
        ("Warning", "MigrationAborted", "in step ScaleUp: too slow"),
    }
    assert published.dropped_count == 0


# -- refusals --------------------------------------------------------------------------------------


async def test_a_token_that_is_replaced_is_used_when_the_old_one_is_stale(
    access: kube_access.Access, tmp_path: pathlib.Path
) -> None:
    clock = set_clock.SetClock()
    own = dataclasses.replace(access, token_file=tmp_path / "token")
    own.token_file.write_text("not-the-one")
    async with kube_api.opened(own, clock) as opened:
        leases = _leases(opened, "none")
        with pytest.raises(errors.KubernetesApiError, match="401: the token is not valid") as told:
            await leases.read()
        assert "not-the-one" not in str(told.value)
        own.token_file.write_text(access.token_file.read_text())
        clock.go(kube_api.TOKEN_KEPT_SECONDS)
        assert await leases.read() is None


async def test_a_kind_that_is_not_installed_is_told(api: kube_api.KubeApi) -> None:
    absent = kube_api.Kind(group="example.com", version="v1", plural="things")
    with pytest.raises(errors.KubernetesApiError, match="is its definition installed"):
        await api.listed(absent)


async def test_a_document_that_its_schema_refuses_is_told_in_the_words_of_the_server(
    api: kube_api.KubeApi, crds: dict[str, Any]
) -> None:
    assert crds
    document = {
        "apiVersion": field_types.API_VERSION,
        "kind": definition.STORAGE_POLICY.kind,
        "metadata": {"name": f"contract-{next(_numbers)}"},
        "spec": {"lowWatermarkIOPS": 9000},
    }
    with pytest.raises(errors.KubernetesApiError, match="lowWatermarkIOPS must be below"):
        await api.create(kube_policies.KIND, document)


async def test_a_server_that_is_not_there_is_told_by_its_address(
    access: kube_access.Access,
) -> None:
    (port,) = control_plane.free_ports(1)
    nowhere = dataclasses.replace(access, url=f"https://127.0.0.1:{port}")
    async with kube_api.opened(nowhere, system_clock.SystemClock()) as opened:
        with pytest.raises(errors.KubernetesApiError, match=f"127.0.0.1:{port} cannot be reached"):
            await _leases(opened, "none").read()


async def test_a_server_that_does_not_answer_is_given_up(access: kube_access.Access) -> None:
    gone = asyncio.Event()

    async def keeps_quiet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()
        gone.set()

    server = await asyncio.start_server(keeps_quiet, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        slow = dataclasses.replace(access, url=f"https://127.0.0.1:{port}", deadline_seconds=0.2)
        async with kube_api.opened(slow, system_clock.SystemClock()) as opened:
            with pytest.raises(errors.KubernetesApiError, match=r"did not answer within 0\.2 s"):
                await _leases(opened, "none").read()
        async with asyncio.timeout(TOLD_SECONDS_MAX):
            await gone.wait()


async def test_a_ca_file_that_is_none_is_told_at_the_start(
    access: kube_access.Access, tmp_path: pathlib.Path
) -> None:
    wrong = dataclasses.replace(access, ca_file=tmp_path / "no-such")
    with pytest.raises(errors.ConfigurationError, match="no-such"):
        async with kube_api.opened(wrong, system_clock.SystemClock()):
            pass
