"""A manager of volumes in memory, with the clock of its works in the test's hands."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from couchestor_domain import errors
from couchestor_operator.control import migration, pool
from couchestor_operator.control import volume as volumes
from couchestor_operator.ports import volume_manager


class MemoryVolumes:
    """Implements ``ports.volume_manager.VolumeManager``.

    Commands are accepted at once and carried out by ``settle``, as by a manager that works towards
    what is wanted. Every state a volume goes through is shown to the watchers.
    """

    def __init__(self, pools: Sequence[pool.Pool]) -> None:
        self._pools = {each.name: each for each in pools}
        self._volumes: dict[str, volumes.Volume] = {}
        self._asked_pool: dict[str, str] = {}
        self._leaving: dict[str, str] = {}
        self._made_count = 0
        self._versions_count = 0
        self.watchers: list[Callable[[volumes.Volume], None]] = []

    # -- the port -------------------------------------------------------------------------------

    async def fleet(self) -> Sequence[volumes.Volume]:
        """Every volume."""
        return list(self._volumes.values())

    async def pools(self) -> Sequence[pool.Pool]:
        """Every pool."""
        return list(self._pools.values())

    async def look(self, volume_name: str, *, pool_name: str) -> volume_manager.Look:
        """A volume and a pool as they are."""
        return volume_manager.Look(
            volume=self._volumes.get(volume_name), target=self._pools.get(pool_name)
        )

    async def add_replica(self, command: migration.AddReplica) -> None:
        """Want one more."""
        found = self._at(command)
        home = self._pools.get(command.pool)
        if home is None or not home.online or home.available_bytes < found.size_bytes:
            raise errors.NoSuitablePoolError(
                f"pool {command.pool} cannot take a replica of volume {found.name}",
                pool=command.pool,
            )
        self._asked_pool[found.name] = command.pool
        self._leaving.pop(found.name, None)
        self.put(dataclasses.replace(found, replicas_wanted_count=command.replicas_count))

    async def remove_replica(self, command: migration.RemoveReplica) -> None:
        """Want one less, and which."""
        found = self._at(command)
        if found.replica(command.replica_id) is None:
            raise errors.MigrationFailedError(
                f"volume {found.name} has no replica {command.replica_id} to remove",
                volume=found.name,
            )
        self._leaving[found.name] = command.replica_id
        self.put(dataclasses.replace(found, replicas_wanted_count=command.replicas_count))

    async def seal(self, command: migration.Seal) -> None:
        """Write the seals."""
        sealed = dataclasses.replace(self._at(command), seals=command.seals)
        if command.moved_to is not None:
            sealed = dataclasses.replace(
                sealed,
                last_migration_seconds=command.ended_seconds,
                last_migration_tier=command.moved_to,
            )
        self.put(sealed)

    def _at(self, command: migration.Command) -> volumes.Volume:
        found = self._volumes.get(command.volume_name)
        if found is None or found.version != command.volume_version:
            raise errors.VersionConflictError(
                f"volume {command.volume_name} is not of version {command.volume_version} any "
                "more: look at it again",
                volume=command.volume_name,
            )
        return found

    # -- what a test does to it -----------------------------------------------------------------

    def volume(self, volume_name: str) -> volumes.Volume:
        """A volume as it is."""
        return self._volumes[volume_name]

    def put(self, volume: volumes.Volume) -> None:
        """Have the volume be so, at a new version."""
        self._versions_count += 1
        put = dataclasses.replace(volume, version=str(self._versions_count))
        self._volumes[put.name] = put
        for watcher in self.watchers:
            watcher(put)

    def put_replica(self, volume_name: str, replica: volumes.Replica) -> None:
        """Have one replica of it be so."""
        found = self._volumes[volume_name]
        self.put(
            dataclasses.replace(
                found,
                replicas=tuple(
                    replica if each.replica_id == replica.replica_id else each
                    for each in found.replicas
                ),
            )
        )

    def delete(self, volume_name: str) -> None:
        """Have the volume be gone."""
        del self._volumes[volume_name]

    def put_pool(self, changed: pool.Pool) -> None:
        """Have a pool be so."""
        self._pools[changed.name] = changed

    def drop_pool(self, pool_name: str) -> None:
        """Have a pool be gone."""
        del self._pools[pool_name]

    def settle(self, volume_name: str) -> None:
        """Take one step towards what is wanted: make a replica, sync one, take one away."""
        found = self._volumes.get(volume_name)
        if found is None:
            return
        too_many = len(found.replicas) - found.replicas_wanted_count
        leaving = found.replica(self._leaving.get(volume_name, ""))
        young = next((each for each in found.replicas if not each.synced), None)
        if too_many > 0 and leaving is not None:
            kept = tuple(each for each in found.replicas if each is not leaving)
            self.put(dataclasses.replace(found, replicas=kept))
        elif too_many < 0:
            self._made_count += 1
            home = self._pools[self._asked_pool[volume_name]]
            made = volumes.Replica(
                replica_id=f"{volume_name}-n{self._made_count}",
                pool=home.name,
                node=home.node,
                state=volumes.ReplicaState.ONLINE,
                synced=False,
            )
            self.put(dataclasses.replace(found, replicas=(*found.replicas, made)))
        elif young is not None:
            self.put_replica(volume_name, dataclasses.replace(young, synced=True))
