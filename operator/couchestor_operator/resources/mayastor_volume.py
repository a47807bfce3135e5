"""MayastorVolumes of Mayastor's older control plane (``openebs.io/v1alpha1``).

What is wanted stands in the spec, which people and this operator write; what there is in the
status, which the manager writes. ``replicaCount`` is the number of replicas. Its manager takes no
pools and no replicas by name: it places a new replica on a preferred node first, and gives one up
that is offline, else one on a node that is not preferred. So a command also writes
``preferredNodes``. Two annotations say exactly what is meant, for managers that read them and for
people:

``.../target-pool``       the pool that the next new replica belongs in
``.../leaving-replica``   the replica that is to go, once there are more than wanted

A replica is named by its pool: a pool holds one of a volume at most. Whether it is synced is known
of the children of the volume's nexus alone, so of a volume that is not in use no replica counts as
synced, and it does not move.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from couchestor_domain import errors
from couchestor_operator.control import migration
from couchestor_operator.control import volume as volumes
from couchestor_operator.resources import field_types, persistent_volume, volume_marks

GROUP: Final = "openebs.io"
VERSION: Final = "v1alpha1"
PLURAL: Final = "mayastorvolumes"

TARGET_POOL: Final = f"{field_types.GROUP}/target-pool"
LEAVING_REPLICA: Final = f"{field_types.GROUP}/leaving-replica"

_STATES: Final = {
    "CHILD_ONLINE": volumes.ReplicaState.ONLINE,
    "CHILD_DEGRADED": volumes.ReplicaState.DEGRADED,
    "CHILD_FAULTED": volumes.ReplicaState.FAULTED,
}


class MayastorReplica(msgspec.Struct, frozen=True, kw_only=True):
    """Where a replica is."""

    node: str
    pool: str
    uri: str
    offline: bool = False


class NexusChild(msgspec.Struct, frozen=True, kw_only=True):
    """How a replica is, as whoever writes to it sees it."""

    uri: str
    state: str = ""


class Nexus(msgspec.Struct, frozen=True, kw_only=True):
    """What a volume in use is written through."""

    children: list[NexusChild] = msgspec.field(default_factory=list)


class MayastorVolumeSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What is wanted."""

    replica_count: int
    required_bytes: int = 0


class MayastorVolumeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What there is."""

    size: int = 0
    replicas: list[MayastorReplica] = msgspec.field(default_factory=list)
    nexus: Nexus | None = None


class MayastorVolume(msgspec.Struct, frozen=True, kw_only=True):
    """A volume; its name is its id."""

    metadata: field_types.ObjectMeta
    spec: MayastorVolumeSpec
    status: MayastorVolumeStatus = MayastorVolumeStatus()


def volume_of(
    document: Mapping[str, Any], claimed: persistent_volume.PersistentVolume | None
) -> volumes.Volume:
    """The volume that a document describes.

    Args:
        claimed: Its PersistentVolume; None: it has none, so that no policy wants it.

    Raises:
        KubernetesApiError: the document is none of a MayastorVolume.
    """
    try:
        read = msgspec.convert(document, MayastorVolume)
    except msgspec.ValidationError as exc:
        raise errors.KubernetesApiError(
            f"a MayastorVolume cannot be read: {exc}. Version {VERSION} is known"
        ) from exc
    children = {each.uri: each.state for each in (read.status.nexus or Nexus()).children}
    marks = volume_marks.marks_of(read.metadata.annotations)
    claim_labels = {} if claimed is None else claimed.metadata.labels
    return volumes.Volume(
        name=read.metadata.name,
        version=read.metadata.resource_version or "",
        # As large as it has become; before that, as large as it has to be.
        size_bytes=read.status.size or read.spec.required_bytes,
        storage_class="" if claimed is None else claimed.spec.storage_class_name,
        replicas_wanted_count=read.spec.replica_count,
        replicas=tuple(_replica(each, children.get(each.uri)) for each in read.status.replicas),
        labels={**read.metadata.labels, **claim_labels},
        last_migration_seconds=marks.moved_seconds,
        last_migration_tier=marks.moved_to,
        seals=marks.seals,
    )


def grown(
    document: Mapping[str, Any], command: migration.AddReplica, *, node: str
) -> dict[str, Any]:
    """The document that asks for one more.

    Args:
        node: Of the pool that is named.
    """
    preferred = [node, *(each for each in _preferred(document) if each != node)]
    return _wanting(
        document,
        command.replicas_count,
        preferred=preferred,
        annotations={TARGET_POOL: command.pool, LEAVING_REPLICA: None},
    )


def shrunk(
    document: Mapping[str, Any], command: migration.RemoveReplica, *, staying: Sequence[str]
) -> dict[str, Any]:
    """The document that asks for one less.

    Args:
        staying: The nodes of the replicas that stay.
    """
    return _wanting(
        document,
        command.replicas_count,
        preferred=list(staying),
        annotations={TARGET_POOL: None, LEAVING_REPLICA: command.replica_id},
    )


def _wanting(
    document: Mapping[str, Any],
    replicas_count: int,
    *,
    preferred: list[str],
    annotations: Mapping[str, str | None],
) -> dict[str, Any]:
    metadata = document["metadata"]
    changed = {**(metadata.get("annotations") or {}), **annotations}
    return {
        **document,
        "metadata": {
            **metadata,
            "annotations": {name: text for name, text in changed.items() if text is not None},
        },
        "spec": {**document["spec"], "replicaCount": replicas_count, "preferredNodes": preferred},
    }


def _preferred(document: Mapping[str, Any]) -> Sequence[str]:
    preferred: Sequence[str] = document["spec"].get("preferredNodes") or ()
    return preferred


def _replica(read: MayastorReplica, child_state: str | None) -> volumes.Replica:
    state = _STATES.get(child_state or "", volumes.ReplicaState.UNKNOWN)
    if read.offline and state is not volumes.ReplicaState.FAULTED:
        state = volumes.ReplicaState.UNKNOWN
    return volumes.Replica(
        replica_id=read.pool,
        pool=read.pool,
        node=read.node,
        state=state,
        synced=state is volumes.ReplicaState.ONLINE,
    )
