"""Volumes as MayastorVolumes in a real API server, by the contract of their port."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import Final

import pytest
import volume_manager_contract as contract
from tests.kube import control_plane, mayastor_resources

from couchestor_domain import errors
from couchestor_operator.adapters import (
    kube_api,
    kube_claims,
    kube_copy,
    kube_pools,
    kube_volumes,
    system_clock,
)
from couchestor_operator.ports import volume_manager
from couchestor_operator.resources import field_types

TOLD_SECONDS_MAX: Final = 30.0

_numbers: Final = itertools.count()


class KubeHarness:
    """Over the API server, in a namespace of its own."""

    missing_volume = "0"

    def __init__(
        self,
        cluster: mayastor_resources.Cluster,
        manager: volume_manager.VolumeManager,
        watched: kube_copy.KubeCopy,
    ) -> None:
        self.cluster = cluster
        self.manager = manager
        self._watched = watched
        self.volume = f"contract-{next(_numbers)}"
        for name in (*contract.SOURCE_POOLS, contract.TARGET):
            cluster.put_pool(name, node=f"node-of-{name}", tier="any", available_bytes=1000)
        cluster.put_volume(self.volume, *contract.SOURCE_POOLS, size_bytes=contract.SIZE_BYTES)

    async def settle(self) -> None:
        """One step."""
        self.cluster.settle(self.volume)

    async def break_replica(self, pool_name: str) -> None:
        """A fault."""
        self.cluster.break_replica(self.volume, pool_name)

    async def fill_target(self) -> None:
        """No room."""
        self.cluster.fill_pool(contract.TARGET, available_bytes=1)

    async def delete_volume(self) -> None:
        """Gone."""
        self.cluster.delete_volume(self.volume)

    async def shows(self, expected: bool) -> None:
        """The watch tells it."""
        async with asyncio.timeout(TOLD_SECONDS_MAX):
            while (self.volume in {v.name for v in await self.manager.fleet()}) is not expected:
                await self._watched.change()


@contextlib.asynccontextmanager
async def _kept_up(api: kube_api.KubeApi, kind: kube_api.Kind) -> AsyncIterator[kube_copy.KubeCopy]:
    made = kube_copy.KubeCopy(api, kind, system_clock.SystemClock())
    keeper = asyncio.create_task(made.run())
    try:
        async with asyncio.timeout(TOLD_SECONDS_MAX):
            await made.change()
        yield made
    finally:
        keeper.cancel()
        await asyncio.wait([keeper])


@pytest.fixture
async def harness(
    api: kube_api.KubeApi, plane: control_plane.ControlPlane, mayastor: None
) -> AsyncIterator[KubeHarness]:
    """A volume and its pools."""
    cluster = mayastor_resources.Cluster(plane)
    async with (
        _kept_up(api, kube_volumes.kind_of(cluster.namespace)) as watched,
        _kept_up(api, kube_claims.KIND) as claimed,
    ):
        manager = kube_volumes.KubeVolumes(
            api,
            namespace=cluster.namespace,
            watched=watched,
            claims=kube_claims.KubeClaims(api, claimed),
            pools=kube_pools.KubePools(api, namespace=cluster.namespace),
        )
        yield KubeHarness(cluster, manager, watched)


@pytest.mark.parametrize(
    "check",
    contract.CHECKS + contract.NAMED_CHECKS,
    ids=lambda check: str(check.__name__),
)
async def test_volumes(harness: KubeHarness, check: contract.Check) -> None:
    await check(harness)


async def test_a_volume_follows_the_class_and_the_labels_of_its_claim(
    harness: KubeHarness, plane: control_plane.ControlPlane
) -> None:
    path = f"/api/v1/persistentvolumes/pvc-{harness.volume}"
    status, answer = plane.request("PATCH", path, {"metadata": {"labels": {"team": "a"}}})
    assert status == 200, answer
    look = await harness.manager.look(harness.volume, pool_name=contract.TARGET)
    assert look.volume is not None
    assert (look.volume.storage_class, look.volume.labels) == ("mayastor", {"team": "a"})


async def test_fields_of_others_stay_when_a_command_is_written(
    harness: KubeHarness, plane: control_plane.ControlPlane
) -> None:
    before = harness.cluster.volume(harness.volume)
    look = await harness.manager.look(harness.volume, pool_name=contract.TARGET)
    assert look.volume is not None
    await harness.manager.seal(contract.seal_of(look.volume, "id.1"))
    after = harness.cluster.volume(harness.volume)
    assert after["spec"] == before["spec"]
    assert after["status"] == before["status"]
    assert after["metadata"]["annotations"] == {f"{field_types.GROUP}/seals": "id.1"}


async def test_a_volume_that_is_not_in_use_has_no_synced_replica(harness: KubeHarness) -> None:
    harness.cluster.stop_using(harness.volume)
    look = await harness.manager.look(harness.volume, pool_name=contract.TARGET)
    assert look.volume is not None
    assert look.volume.whole_count == 0


async def test_a_namespace_without_mayastor_is_told(api: kube_api.KubeApi, mayastor: None) -> None:
    absent = kube_api.Kind(group="openebs.io", version="v9", plural="mayastorvolumes")
    with pytest.raises(errors.KubernetesApiError, match="is its definition installed"):
        await api.listed(absent)
