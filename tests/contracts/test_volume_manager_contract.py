"""What every ``ports.volume_manager.VolumeManager`` must do whose manager compares versions.

An adapter joins with a harness that says how its volume is made, and how its manager's works go on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Protocol

import memory_volumes
import pytest

from couchestor_domain import errors, tiers
from couchestor_operator.control import migration, pool
from couchestor_operator.control import volume as volumes
from couchestor_operator.ports import volume_manager

VOLUME, TARGET = "pvc-1", "nvme-0"
SIZE_BYTES = 100


class Harness(Protocol):
    """One volume of two whole replicas in ``sata-0`` and ``sata-1``, and a pool with room."""

    manager: volume_manager.VolumeManager

    async def settle(self) -> None:
        """Let the manager take one step towards what is wanted."""
        ...

    async def break_replica(self, replica_id: str) -> None:
        """Have a replica fault."""
        ...

    async def fill_target(self) -> None:
        """Leave too little room in the pool."""
        ...

    async def delete_volume(self) -> None:
        """Have the volume be gone, as far as anybody can see."""
        ...


class MemoryHarness:
    """Over the fake."""

    def __init__(self) -> None:
        self._memory = memory_volumes.MemoryVolumes(
            [
                pool.Pool(name=name, node=f"node-of-{name}", online=True, available_bytes=1000)
                for name in ("sata-0", "sata-1", TARGET)
            ]
        )
        self.manager: volume_manager.VolumeManager = self._memory
        self._memory.put(
            volumes.Volume(
                name=VOLUME,
                version="",
                size_bytes=SIZE_BYTES,
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

    async def break_replica(self, replica_id: str) -> None:
        """A fault."""
        found = self._memory.volume(VOLUME).replica(replica_id)
        assert found is not None
        faulted = dataclasses.replace(found, state=volumes.ReplicaState.FAULTED, synced=False)
        self._memory.put_replica(VOLUME, faulted)

    async def fill_target(self) -> None:
        """No room."""
        self._memory.put_pool(
            pool.Pool(name=TARGET, node="node-of-nvme-0", online=True, available_bytes=1)
        )

    async def delete_volume(self) -> None:
        """Gone."""
        self._memory.delete(VOLUME)


HARNESSES: dict[str, Callable[[], Harness]] = {"memory": MemoryHarness}


@pytest.fixture(params=sorted(HARNESSES))
def harness(request: pytest.FixtureRequest) -> Harness:
    return HARNESSES[request.param]()


async def _volume(harness: Harness) -> volumes.Volume:
    look = await harness.manager.look(VOLUME, pool_name=TARGET)
    assert look.volume is not None
    return look.volume


async def _settled(harness: Harness) -> volumes.Volume:
    for _ in range(9):
        if (found := await _volume(harness)).is_settled:
            return found
        await harness.settle()
    raise AssertionError("the volume does not settle")


def _add(volume: volumes.Volume, *, count: int = 3) -> migration.AddReplica:
    return migration.AddReplica(
        volume_name=VOLUME, volume_version=volume.version, replicas_count=count, pool=TARGET
    )


def _remove(volume: volumes.Volume, replica_id: str = "r0") -> migration.RemoveReplica:
    return migration.RemoveReplica(
        volume_name=VOLUME,
        volume_version=volume.version,
        replicas_count=2,
        replica_id=replica_id,
    )


def _seal(volume: volumes.Volume, *seals: str, moved: bool = False) -> migration.Seal:
    return migration.Seal(
        volume_name=VOLUME,
        volume_version=volume.version,
        seals=seals,
        moved_to=tiers.Tier.HOT if moved else None,
        ended_seconds=1234.0,
    )


async def test_a_look_shows_the_volume_and_the_pool(harness: Harness) -> None:
    look = await harness.manager.look(VOLUME, pool_name=TARGET)
    assert look.volume is not None
    assert look.target is not None
    assert look.volume.is_settled
    assert [each.pool for each in look.volume.replicas] == ["sata-0", "sata-1"]
    assert (look.volume.seals, look.target.name) == ((), TARGET)
    assert look.target.available_bytes >= SIZE_BYTES
    assert [each.name for each in await harness.manager.fleet()] == [VOLUME]
    assert TARGET in {each.name for each in await harness.manager.pools()}


async def test_what_is_not_there_is_said_to_be_not_there(harness: Harness) -> None:
    look = await harness.manager.look("pvc-9", pool_name="nvme-9")
    assert (look.volume, look.target) == (None, None)


async def test_a_replica_is_added_where_it_was_asked_for(harness: Harness) -> None:
    before = await _volume(harness)
    await harness.manager.add_replica(_add(before))
    accepted = await _volume(harness)
    assert accepted.replicas_wanted_count == 3
    assert accepted.version != before.version
    grown = await _settled(harness)
    (new,) = [each for each in grown.replicas if before.replica(each.replica_id) is None]
    assert new.pool == TARGET
    assert grown.whole_count == 3


async def test_a_new_replica_is_not_synced_at_once(harness: Harness) -> None:
    before = await _volume(harness)
    await harness.manager.add_replica(_add(before))
    while len((seen := await _volume(harness)).replicas) < 3:
        await harness.settle()
    assert seen.whole_count == 2


async def test_the_replica_that_is_named_goes_and_no_other(harness: Harness) -> None:
    await harness.manager.add_replica(_add(await _volume(harness)))
    grown = await _settled(harness)
    await harness.manager.remove_replica(_remove(grown))
    assert (await _volume(harness)).replicas_wanted_count == 2
    left = await _settled(harness)
    assert left.replica("r0") is None
    expected = {each.replica_id for each in grown.replicas} - {"r0"}
    assert {each.replica_id for each in left.replicas} == expected


async def test_a_removal_is_taken_back_by_wanting_more_again(harness: Harness) -> None:
    await harness.manager.add_replica(_add(await _volume(harness)))
    grown = await _settled(harness)
    await harness.manager.remove_replica(_remove(grown))
    await harness.manager.add_replica(_add(await _volume(harness)))
    await harness.settle()
    kept = await _volume(harness)
    assert kept.replica("r0") is not None
    assert len(kept.replicas) == 3


async def test_a_command_on_an_old_version_is_refused_and_changes_nothing(
    harness: Harness,
) -> None:
    old = await _volume(harness)
    await harness.manager.add_replica(_add(old))
    grown = await _settled(harness)
    for call in (
        harness.manager.add_replica(_add(old, count=4)),
        harness.manager.remove_replica(_remove(old)),
        harness.manager.seal(_seal(old, "late")),
    ):
        with pytest.raises(errors.VersionConflictError):
            await call
    assert await _volume(harness) == grown


async def test_the_same_command_twice_is_the_same_as_once(harness: Harness) -> None:
    command = _add(await _volume(harness))
    await harness.manager.add_replica(command)
    with pytest.raises(errors.VersionConflictError):
        await harness.manager.add_replica(command)
    assert len((await _settled(harness)).replicas) == 3


async def test_a_replica_that_faults_changes_the_version(harness: Harness) -> None:
    await harness.manager.add_replica(_add(await _volume(harness)))
    grown = await _settled(harness)
    await harness.break_replica("r1")
    with pytest.raises(errors.VersionConflictError):
        await harness.manager.remove_replica(_remove(grown))
    left = await _volume(harness)
    assert left.replica("r0") is not None
    assert (left.whole_count, left.replicas_wanted_count) == (2, 3)


async def test_seals_are_read_back_and_change_only_the_version(harness: Harness) -> None:
    before = await _volume(harness)
    await harness.manager.seal(_seal(before, "id.2", "id.3"))
    sealed = await _volume(harness)
    assert sealed.seals == ("id.2", "id.3")
    assert sealed.version != before.version
    assert (sealed.last_migration_seconds, sealed.last_migration_tier) == (None, None)
    with pytest.raises(errors.VersionConflictError):
        await harness.manager.add_replica(_add(before))
    same = dataclasses.replace(sealed, version=before.version, seals=())
    assert same == before


async def test_a_seal_tells_of_a_move_until_the_next_move(harness: Harness) -> None:
    await harness.manager.seal(_seal(await _volume(harness), "a.5", moved=True))
    await harness.manager.seal(_seal(await _volume(harness), "b.2"))
    sealed = await _volume(harness)
    assert sealed.seals == ("b.2",)
    assert sealed.last_migration_seconds == 1234.0
    assert sealed.last_migration_tier is tiers.Tier.HOT


async def test_a_pool_without_room_refuses(harness: Harness) -> None:
    before = await _volume(harness)
    await harness.fill_target()
    with pytest.raises(errors.NoSuitablePoolError, match=TARGET):
        await harness.manager.add_replica(_add(await _volume(harness)))
    after = await _volume(harness)
    assert (after.replicas_wanted_count, after.replicas) == (2, before.replicas)


async def test_a_replica_that_is_not_there_cannot_be_removed(harness: Harness) -> None:
    await harness.manager.add_replica(_add(await _volume(harness)))
    grown = await _settled(harness)
    with pytest.raises(errors.MigrationFailedError, match="ghost"):
        await harness.manager.remove_replica(_remove(grown, "ghost"))
    assert (await _volume(harness)).replicas_wanted_count == 3


async def test_a_volume_that_is_gone_takes_no_command(harness: Harness) -> None:
    before = await _volume(harness)
    await harness.delete_volume()
    assert (await harness.manager.look(VOLUME, pool_name=TARGET)).volume is None
    with pytest.raises(errors.VersionConflictError):
        await harness.manager.seal(_seal(before, "id.1"))
