"""Managers of volumes that need no API server keep what ``ports.volume_manager`` promises."""

from __future__ import annotations

import dataclasses
from typing import Final

import memory_volumes
import pytest
import volume_manager_contract as contract

from couchestor_operator.control import pool
from couchestor_operator.control import volume as volumes
from couchestor_operator.ports import volume_manager

VOLUME: Final = "pvc-1"


class MemoryHarness:
    """Over the fake."""

    volume = VOLUME
    missing_volume = "pvc-9"

    def __init__(self) -> None:
        self._memory = memory_volumes.MemoryVolumes(
            [
                pool.Pool(name=name, node=f"node-of-{name}", online=True, available_bytes=1000)
                for name in (*contract.SOURCE_POOLS, contract.TARGET)
            ]
        )
        self.manager: volume_manager.VolumeManager = self._memory
        self._memory.put(
            volumes.Volume(
                name=VOLUME,
                version="",
                size_bytes=contract.SIZE_BYTES,
                storage_class="mayastor",
                replicas_wanted_count=2,
                replicas=tuple(
                    volumes.Replica(
                        replica_id=f"r{index}",
                        pool=f"sata-{index}",
                        node=f"node-of-sata-{index}",
                        state=volumes.ReplicaState.ONLINE,
                        synced=True,
                    )
                    for index in range(2)
                ),
            )
        )

    async def settle(self) -> None:
        """One step."""
        self._memory.settle(VOLUME)

    async def break_replica(self, pool_name: str) -> None:
        """A fault."""
        replicas = self._memory.volume(VOLUME).replicas
        (found,) = [each for each in replicas if each.pool == pool_name]
        faulted = dataclasses.replace(found, state=volumes.ReplicaState.FAULTED, synced=False)
        self._memory.put_replica(VOLUME, faulted)

    async def fill_target(self) -> None:
        """No room."""
        self._memory.put_pool(
            pool.Pool(
                name=contract.TARGET,
                node=f"node-of-{contract.TARGET}",
                online=True,
                available_bytes=1,
            )
        )

    async def delete_volume(self) -> None:
        """Gone."""
        self._memory.delete(VOLUME)

    async def shows(self, expected: bool) -> None:
        """Here it is of no age."""
        names = {each.name for each in await self.manager.fleet()}
        assert (VOLUME in names) is expected


@pytest.mark.parametrize(
    "check",
    contract.CHECKS + contract.NAMED_CHECKS,
    ids=lambda check: str(check.__name__),
)
async def test_volumes_in_memory(check: contract.Check) -> None:
    await check(MemoryHarness())
