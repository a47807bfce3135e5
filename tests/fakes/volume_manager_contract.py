"""What every ``ports.volume_manager.VolumeManager`` must do, as checks over a harness.

Run over the one in memory and over the REST API in ``tests/contracts``, and over MayastorVolumes in
a real API server in ``tests/kube``. ``NAMED_CHECKS`` are for managers that are told which pool and
which replica; one that chooses by itself is held to the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import pytest

from couchestor_domain import errors, tiers
from couchestor_operator.control import migration
from couchestor_operator.control import volume as volumes
from couchestor_operator.ports import volume_manager

SIZE_BYTES: Final = 100
SOURCE_POOLS: Final = ("sata-0", "sata-1")
TARGET: Final = "nvme-0"


class Harness(Protocol):
    """One volume of two whole replicas in ``SOURCE_POOLS``, and ``TARGET``, a pool with room."""

    manager: volume_manager.VolumeManager
    volume: str
    """Its name."""
    missing_volume: str
    """A name that no volume has."""

    async def settle(self) -> None:
        """Let the manager take one step towards what is wanted."""
        ...

    async def break_replica(self, pool_name: str) -> None:
        """Have the replica in a pool fault."""
        ...

    async def fill_target(self) -> None:
        """Leave too little room in the pool."""
        ...

    async def delete_volume(self) -> None:
        """Have the volume be gone, as far as anybody can see."""
        ...

    async def shows(self, expected: bool) -> None:
        """Wait until it is, or is not, in the fleet, which may be of some age."""
        ...


async def _volume(harness: Harness) -> volumes.Volume:
    look = await harness.manager.look(harness.volume, pool_name=TARGET)
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
        volume_name=volume.name, volume_version=volume.version, replicas_count=count, pool=TARGET
    )


def _source(volume: volumes.Volume) -> volumes.Replica:
    (found,) = [each for each in volume.replicas if each.pool == SOURCE_POOLS[0]]
    return found


def _remove(volume: volumes.Volume, replica_id: str | None = None) -> migration.RemoveReplica:
    return migration.RemoveReplica(
        volume_name=volume.name,
        volume_version=volume.version,
        replicas_count=2,
        replica_id=replica_id or _source(volume).replica_id,
    )


def seal_of(volume: volumes.Volume, *seals: str, moved: bool = False) -> migration.Seal:
    """The command to write these seals on it."""
    return migration.Seal(
        volume_name=volume.name,
        volume_version=volume.version,
        seals=seals,
        moved_to=tiers.Tier.HOT if moved else None,
        ended_seconds=1234.0,
    )


async def a_look_shows_the_volume_and_the_pool(harness: Harness) -> None:
    look = await harness.manager.look(harness.volume, pool_name=TARGET)
    assert look.volume is not None
    assert look.target is not None
    assert look.volume.is_settled
    assert sorted(each.pool for each in look.volume.replicas) == list(SOURCE_POOLS)
    assert (look.volume.seals, look.target.name) == ((), TARGET)
    assert look.target.available_bytes >= SIZE_BYTES
    assert look.volume.size_bytes == SIZE_BYTES
    await harness.shows(True)
    assert [each.name for each in await harness.manager.fleet()] == [harness.volume]
    assert TARGET in {each.name for each in await harness.manager.pools()}


async def what_is_not_there_is_said_to_be_not_there(harness: Harness) -> None:
    look = await harness.manager.look(harness.missing_volume, pool_name="nvme-9")
    assert (look.volume, look.target) == (None, None)


async def one_more_is_wanted_and_comes(harness: Harness) -> None:
    before = await _volume(harness)
    await harness.manager.add_replica(_add(before))
    accepted = await _volume(harness)
    assert accepted.replicas_wanted_count == 3
    assert accepted.version != before.version
    grown = await _settled(harness)
    assert grown.whole_count == 3
    assert len([each for each in grown.replicas if before.replica(each.replica_id) is None]) == 1


async def one_less_is_wanted_and_one_goes(harness: Harness) -> None:
    await harness.manager.add_replica(_add(await _volume(harness)))
    grown = await _settled(harness)
    await harness.manager.remove_replica(_remove(grown))
    assert (await _volume(harness)).replicas_wanted_count == 2
    left = await _settled(harness)
    assert left.version != grown.version
    assert all(grown.replica(each.replica_id) == each for each in left.replicas)


async def a_replica_is_added_where_it_was_asked_for(harness: Harness) -> None:
    before = await _volume(harness)
    await harness.manager.add_replica(_add(before))
    grown = await _settled(harness)
    (new,) = [each for each in grown.replicas if before.replica(each.replica_id) is None]
    assert new.pool == TARGET


async def a_new_replica_is_not_synced_at_once(harness: Harness) -> None:
    before = await _volume(harness)
    await harness.manager.add_replica(_add(before))
    while len((seen := await _volume(harness)).replicas) < 3:
        await harness.settle()
    assert seen.whole_count == 2


async def the_replica_that_is_named_goes_and_no_other(harness: Harness) -> None:
    await harness.manager.add_replica(_add(await _volume(harness)))
    grown = await _settled(harness)
    await harness.manager.remove_replica(_remove(grown))
    assert (await _volume(harness)).replicas_wanted_count == 2
    left = await _settled(harness)
    expected = {each.replica_id for each in grown.replicas} - {_source(grown).replica_id}
    assert {each.replica_id for each in left.replicas} == expected


async def a_removal_is_taken_back_by_wanting_more_again(harness: Harness) -> None:
    await harness.manager.add_replica(_add(await _volume(harness)))
    grown = await _settled(harness)
    await harness.manager.remove_replica(_remove(grown))
    await harness.manager.add_replica(_add(await _volume(harness)))
    await harness.settle()
    kept = await _volume(harness)
    assert _source(kept) == _source(grown)
    assert len(kept.replicas) == 3


async def a_command_on_an_old_version_is_refused_and_changes_nothing(
    harness: Harness,
) -> None:
    old = await _volume(harness)
    await harness.manager.add_replica(_add(old))
    grown = await _settled(harness)
    for call in (
        harness.manager.add_replica(_add(old, count=4)),
        harness.manager.remove_replica(_remove(old)),
        harness.manager.seal(seal_of(old, "late")),
    ):
        with pytest.raises(errors.VersionConflictError):
            await call
    assert await _volume(harness) == grown


async def the_same_command_twice_is_the_same_as_once(harness: Harness) -> None:
    command = _add(await _volume(harness))
    await harness.manager.add_replica(command)
    with pytest.raises(errors.VersionConflictError):
        await harness.manager.add_replica(command)
    assert len((await _settled(harness)).replicas) == 3


async def a_replica_that_faults_changes_the_version(harness: Harness) -> None:
    await harness.manager.add_replica(_add(await _volume(harness)))
    grown = await _settled(harness)
    await harness.break_replica(SOURCE_POOLS[1])
    with pytest.raises(errors.VersionConflictError):
        await harness.manager.remove_replica(_remove(grown))
    left = await _volume(harness)
    assert _source(left) == _source(grown)
    assert (left.whole_count, left.replicas_wanted_count) == (2, 3)


async def seals_are_read_back_and_change_only_the_version(harness: Harness) -> None:
    before = await _volume(harness)
    await harness.manager.seal(seal_of(before, "id.2", "id.3"))
    sealed = await _volume(harness)
    assert sealed.seals == ("id.2", "id.3")
    assert sealed.version != before.version
    assert (sealed.last_migration_seconds, sealed.last_migration_tier) == (None, None)
    with pytest.raises(errors.VersionConflictError):
        await harness.manager.add_replica(_add(before))
    same = dataclasses.replace(sealed, version=before.version, seals=())
    assert same == before


async def a_seal_tells_of_a_move_until_the_next_move(harness: Harness) -> None:
    await harness.manager.seal(seal_of(await _volume(harness), "a.5", moved=True))
    await harness.manager.seal(seal_of(await _volume(harness), "b.2"))
    sealed = await _volume(harness)
    assert sealed.seals == ("b.2",)
    assert sealed.last_migration_seconds == 1234.0
    assert sealed.last_migration_tier is tiers.Tier.HOT


async def a_pool_without_room_refuses(harness: Harness) -> None:
    before = await _volume(harness)
    await harness.fill_target()
    with pytest.raises(errors.NoSuitablePoolError, match=TARGET):
        await harness.manager.add_replica(_add(await _volume(harness)))
    after = await _volume(harness)
    assert (after.replicas_wanted_count, after.replicas) == (2, before.replicas)


async def a_replica_that_is_not_there_cannot_be_removed(harness: Harness) -> None:
    await harness.manager.add_replica(_add(await _volume(harness)))
    grown = await _settled(harness)
    with pytest.raises(errors.MigrationFailedError, match="ghost"):
        await harness.manager.remove_replica(_remove(grown, "ghost"))
    assert (await _volume(harness)).replicas_wanted_count == 3


async def a_volume_that_is_gone_takes_no_command(harness: Harness) -> None:
    before = await _volume(harness)
    await harness.delete_volume()
    await harness.shows(False)
    assert (await harness.manager.look(harness.volume, pool_name=TARGET)).volume is None
    with pytest.raises(errors.VersionConflictError):
        await harness.manager.seal(seal_of(before, "id.1"))


Check = Callable[[Harness], Awaitable[None]]
CHECKS: Final[tuple[Check, ...]] = (
    a_look_shows_the_volume_and_the_pool,
    what_is_not_there_is_said_to_be_not_there,
    one_more_is_wanted_and_comes,
    one_less_is_wanted_and_one_goes,
    a_new_replica_is_not_synced_at_once,
    a_command_on_an_old_version_is_refused_and_changes_nothing,
    the_same_command_twice_is_the_same_as_once,
    a_replica_that_faults_changes_the_version,
    seals_are_read_back_and_change_only_the_version,
    a_seal_tells_of_a_move_until_the_next_move,
    a_pool_without_room_refuses,
    a_replica_that_is_not_there_cannot_be_removed,
    a_volume_that_is_gone_takes_no_command,
)
NAMED_CHECKS: Final[tuple[Check, ...]] = (
    a_replica_is_added_where_it_was_asked_for,
    the_replica_that_is_named_goes_and_no_other,
    a_removal_is_taken_back_by_wanting_more_again,
)
