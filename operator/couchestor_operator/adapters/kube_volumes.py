"""Volumes as MayastorVolumes, pools as DiskPools."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from couchestor_domain import errors
from couchestor_operator.adapters import kube_api, kube_copy, kube_pools
from couchestor_operator.control import migration, pool
from couchestor_operator.control import volume as volumes
from couchestor_operator.ports import claim_store, volume_manager
from couchestor_operator.resources import mayastor_volume, persistent_volume, volume_marks

_LOG = logging.getLogger(__name__)


def kind_of(namespace: str) -> kube_api.Kind:
    """The MayastorVolumes of a namespace."""
    return kube_api.Kind(
        group=mayastor_volume.GROUP,
        version=mayastor_volume.VERSION,
        plural=mayastor_volume.PLURAL,
        namespace=namespace,
    )


class _Known(NamedTuple):
    """A volume, and the versions of the documents that it was read from."""

    versions: tuple[str, str]
    volume: volumes.Volume | None
    """None: it cannot be read, of which a warning told."""


class KubeVolumes:
    """Implements ``ports.volume_manager.VolumeManager``.

    A command reads the volume, compares its version, and replaces it under that very version, which
    the API server compares once more.

    Args:
        watched: The MayastorVolumes at hand, of ``kind_of``; somebody else keeps them up.
        claims: The PersistentVolumes of the volumes, which say what class they are of.
    """

    def __init__(
        self,
        api: kube_api.KubeApi,
        *,
        namespace: str,
        watched: kube_copy.KubeCopy,
        claims: claim_store.ClaimStore,
        pools: kube_pools.KubePools,
    ) -> None:
        self._api = api
        self._kind = kind_of(namespace)
        self._watched = watched
        self._claims = claims
        self._pools = pools
        self._known: dict[str, _Known] = {}
        """Read once as long as neither document changes: a fleet is asked for every few seconds."""

    async def fleet(self) -> Sequence[volumes.Volume]:
        """See the port; as old as ``KubeCopy`` allows. Of what cannot be read a warning tells."""
        claims = self._claims.at_hand()
        known, self._known = self._known, {}
        for name, document in self._watched.at_hand().items():
            claim = claims.get(persistent_volume.name_of(name))
            versions = (_version_of(document), _version_of(claim))
            kept = known.get(name)
            if kept is None or kept.versions != versions:
                kept = _Known(versions, _readable(name, document, claim))
            self._known[name] = kept
        return [kept.volume for kept in self._known.values() if kept.volume is not None]

    async def pools(self) -> Sequence[pool.Pool]:
        """See the port."""
        return await self._pools.every()

    async def look(self, volume_name: str, *, pool_name: str) -> volume_manager.Look:
        """See the port."""
        target = await self._pools.one(pool_name)
        claim = await self._claims.read(persistent_volume.name_of(volume_name))
        # Last: it has the version that commands name.
        document = await self._api.get(self._kind, volume_name)
        return volume_manager.Look(
            volume=None if document is None else _volume_of(document, claim), target=target
        )

    async def add_replica(self, command: migration.AddReplica) -> None:
        """See the port."""
        target = await self._pools.one(command.pool)
        document = await self._at(command)
        size_bytes = _volume_of(document, None).size_bytes
        if target is None or not target.online or target.available_bytes < size_bytes:
            raise errors.NoSuitablePoolError(
                f"pool {command.pool} cannot take a replica of volume {command.volume_name}: it is "
                "gone, not online, or has too little room",
                pool=command.pool,
            )
        grown = mayastor_volume.grown(document, command, node=target.node)
        await self._api.replace(self._kind, grown)

    async def remove_replica(self, command: migration.RemoveReplica) -> None:
        """See the port."""
        document = await self._at(command)
        volume = _volume_of(document, None)
        if volume.replica(command.replica_id) is None:
            raise errors.MigrationFailedError(
                f"volume {volume.name} has no replica {command.replica_id} to remove",
                volume=volume.name,
            )
        staying = [each.node for each in volume.replicas if each.replica_id != command.replica_id]
        shrunk = mayastor_volume.shrunk(document, command, staying=staying)
        await self._api.replace(self._kind, shrunk)

    async def seal(self, command: migration.Seal) -> None:
        """See the port."""
        document = await self._at(command)
        await self._api.replace(self._kind, volume_marks.sealed(document, command))

    async def _at(self, command: migration.Command) -> kube_api.Document:
        document = await self._api.get(self._kind, command.volume_name)
        version = None if document is None else document["metadata"]["resourceVersion"]
        if document is None or version != command.volume_version:
            raise errors.VersionConflictError(
                f"volume {command.volume_name} is not of version {command.volume_version} any "
                "more: look at it again",
                volume=command.volume_name,
            )
        return document


def _version_of(document: Mapping[str, Any] | None) -> str:
    return "" if document is None else str(document["metadata"]["resourceVersion"])


def _readable(
    name: str, document: Mapping[str, Any], claim: Mapping[str, Any] | None
) -> volumes.Volume | None:
    try:
        return _volume_of(document, claim)
    except errors.KubernetesApiError as exc:
        _LOG.warning("volume %s is passed over: %s", name, exc)
        return None


def _volume_of(document: Mapping[str, Any], claim: Mapping[str, Any] | None) -> volumes.Volume:
    claimed = None if claim is None else persistent_volume.read(claim)
    return mayastor_volume.volume_of(document, claimed)
