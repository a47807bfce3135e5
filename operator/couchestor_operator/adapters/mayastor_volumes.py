"""Volumes and pools over Mayastor's REST API, which takes numbers of replicas and no names."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from couchestor_domain import errors
from couchestor_operator.adapters import mayastor_api
from couchestor_operator.control import migration, pool
from couchestor_operator.control import volume as volumes
from couchestor_operator.ports import claim_store, monotonic_clock, volume_manager
from couchestor_operator.resources import mayastor_answers, persistent_volume, volume_marks

_LOG = logging.getLogger(__name__)

FLEET_KEPT_SECONDS: Final = 20.0
"""Migrations under way are looked at more often, and each look would read every volume."""


class MayastorVolumes:
    """Implements ``ports.volume_manager.VolumeManager``, as safely as the API lets it.

    A command looks again right before it is sent, and compares. Seals stand on the volume's
    PersistentVolume. A volume without one is not ours: it is passed over, and is said to be gone to
    whoever looks at it.
    """

    def __init__(
        self,
        api: mayastor_api.MayastorApi,
        claims: claim_store.ClaimStore,
        clock: monotonic_clock.MonotonicClock,
    ) -> None:
        self._api = api
        self._claims = claims
        self._clock = clock
        self._fleet: Sequence[volumes.Volume] = ()
        self._fleet_until_seconds = float("-inf")

    async def fleet(self) -> Sequence[volumes.Volume]:
        """See the port; at most ``FLEET_KEPT_SECONDS`` old: the API has no watch."""
        now_seconds = self._clock.monotonic_seconds()
        if now_seconds >= self._fleet_until_seconds:
            self._fleet = await self._every()
            self._fleet_until_seconds = now_seconds + FLEET_KEPT_SECONDS
        return self._fleet

    async def _every(self) -> Sequence[volumes.Volume]:
        claims = self._claims.at_hand()
        found: list[volumes.Volume] = []
        for read in await self._api.volumes():
            claim = claims.get(persistent_volume.name_of(read.spec.uuid))
            if claim is None:
                continue
            try:
                found.append(mayastor_answers.volume_of(read, claim))
            except errors.KubernetesApiError as exc:
                _LOG.warning("volume %s is passed over: %s", read.spec.uuid, exc)
        return found

    async def pools(self) -> Sequence[pool.Pool]:
        """See the port."""
        nodes = await self._api.nodes()
        return [mayastor_answers.pool_of(each, nodes) for each in await self._api.pools()]

    async def look(self, volume_name: str, *, pool_name: str) -> volume_manager.Look:
        """See the port."""
        target = await self._pool(pool_name)
        found = await self._volume(volume_name)
        return volume_manager.Look(volume=None if found is None else found[0], target=target)

    async def add_replica(self, command: migration.AddReplica) -> None:
        """See the port; which pool the new one comes to is seen afterwards."""
        target = await self._pool(command.pool)
        volume, _ = await self._at(command)
        if target is None or not target.online or target.available_bytes < volume.size_bytes:
            raise errors.NoSuitablePoolError(
                f"pool {command.pool} cannot take a replica of volume {volume.name}: it is gone, "
                "not online, or has too little room",
                pool=command.pool,
            )
        await self._api.set_replica_count(volume.name, command.replicas_count)

    async def remove_replica(self, command: migration.RemoveReplica) -> None:
        """See the port; which one goes is seen afterwards."""
        volume, _ = await self._at(command)
        if volume.replica(command.replica_id) is None:
            raise errors.MigrationFailedError(
                f"volume {volume.name} has no replica {command.replica_id} to remove",
                volume=volume.name,
            )
        await self._api.set_replica_count(volume.name, command.replicas_count)

    async def seal(self, command: migration.Seal) -> None:
        """See the port; compared by the API server, too, as far as it is the claim's version."""
        _, claim = await self._at(command)
        await self._claims.replace(volume_marks.sealed(claim, command))

    async def _pool(self, name: str) -> pool.Pool | None:
        read = await self._api.pool(name)
        if read is None:
            return None
        home = read.state or read.spec
        node = None if home is None else await self._api.node(home.node)
        return mayastor_answers.pool_of(read, [] if node is None else [node])

    async def _volume(self, name: str) -> tuple[volumes.Volume, claim_store.Document] | None:
        # The claim first: a seal that comes in between makes what is returned be of the past.
        claim = await self._claims.read(persistent_volume.name_of(name))
        read = await self._api.volume(name)
        if claim is None or read is None:
            return None
        return mayastor_answers.volume_of(read, claim), claim

    async def _at(self, command: migration.Command) -> tuple[volumes.Volume, claim_store.Document]:
        found = await self._volume(command.volume_name)
        if found is None or found[0].version != command.volume_version:
            raise errors.VersionConflictError(
                f"volume {command.volume_name} is not of version {command.volume_version[:12]} any "
                "more: look at it again",
                volume=command.volume_name,
            )
        return found
