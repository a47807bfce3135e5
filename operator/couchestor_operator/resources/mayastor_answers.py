"""Answers of Mayastor's REST API v0, as far as migrations need them.

A replica counts as synced when the volume's target says so of the child that it is: of a volume
that is not published nothing is known, so none of its replicas is, and it does not move.

Source: the OpenAPI document of the control plane, ``v0_api_spec.yaml`` of
github.com/openebs/mayastor-control-plane.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import Any, Final, TypeVar

import msgspec

from couchestor_domain import errors
from couchestor_operator.control import pool
from couchestor_operator.control import volume as volumes
from couchestor_operator.resources import field_types, persistent_volume, volume_marks

ONLINE: Final = "Online"
CREATED: Final = "Created"

_STATES: Final = {
    "Online": volumes.ReplicaState.ONLINE,
    "Degraded": volumes.ReplicaState.DEGRADED,
    "Faulted": volumes.ReplicaState.FAULTED,
}


class NodeSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted of a node."""

    cordondrainstate: dict[str, Any] | None = None
    """There: it is to take nothing new."""


class NodeState(msgspec.Struct, frozen=True, kw_only=True):
    """How a node is."""

    status: str


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A storage node."""

    id: str
    spec: NodeSpec | None = None
    state: NodeState | None = None

    @property
    def takes_replicas(self) -> bool:
        """Whether it is there and not cordoned."""
        is_online = self.state is not None and self.state.status == ONLINE
        return is_online and (self.spec is None or self.spec.cordondrainstate is None)


class PoolSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted of a pool."""

    node: str
    status: str
    labels: dict[str, str] = msgspec.field(default_factory=dict)


class PoolState(msgspec.Struct, frozen=True, kw_only=True):
    """How a pool is."""

    node: str
    status: str
    capacity: int
    used: int


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """A pool of one node."""

    id: str
    spec: PoolSpec | None = None
    state: PoolState | None = None


class ReplicaTopology(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """Where a replica is, and how; what a version does not tell is unknown."""

    state: str
    node: str = ""
    pool: str = ""
    child_status: str = ""
    rebuild_progress: int | None = None


class VolumeSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted of a volume."""

    uuid: str
    size: int
    num_replicas: int
    status: str
    labels: dict[str, str] | None = None


class VolumeState(msgspec.Struct, frozen=True, kw_only=True):
    """How a volume is."""

    replica_topology: dict[str, ReplicaTopology]


class Volume(msgspec.Struct, frozen=True, kw_only=True):
    """A volume."""

    spec: VolumeSpec
    state: VolumeState


class Volumes(msgspec.Struct, frozen=True, kw_only=True):
    """A page of volumes."""

    entries: list[Volume]
    next_token: int | None = None


class Complaint(msgspec.Struct, frozen=True, kw_only=True):
    """What is answered in place of what was asked for."""

    kind: str
    details: str = ""
    message: str = ""


T = TypeVar("T")


def decoded(body: bytes | bytearray, model: type[T], *, where: str) -> T:
    """An answer as its model.

    Raises:
        MayastorApiError: it is none.
    """
    try:
        return msgspec.json.decode(body, type=model)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise errors.MayastorApiError(
            f"{where} answered what is not of its API v0 ({exc}): set the URL of Mayastor's REST"
            " API, of a version that has v0"
        ) from exc


def pool_of(read: Pool, nodes: Collection[Node]) -> pool.Pool:
    """A pool; one whose node takes nothing is not online.

    Args:
        nodes: At least the pool's.
    """
    node = read.state.node if read.state is not None else read.spec.node if read.spec else ""
    state, spec = read.state, read.spec
    return pool.Pool(
        name=read.id,
        node=node,
        online=(
            state is not None
            and state.status == ONLINE
            # One that somebody imported and nobody asked for has no spec.
            and (spec is None or spec.status == CREATED)
            and any(each.id == node and each.takes_replicas for each in nodes)
        ),
        available_bytes=0 if state is None else max(0, state.capacity - state.used),
        labels={} if spec is None else spec.labels,
    )


def volume_of(read: Volume, claim: Mapping[str, Any]) -> volumes.Volume:
    """A volume, its marks and its class from its PersistentVolume.

    The version is a digest of all that decisions look at: the API has none. It has the version of
    the PersistentVolume in it, so what was sealed is never again of a version from before.

    Raises:
        KubernetesApiError: the claim is no PersistentVolume.
    """
    claimed = persistent_volume.read(claim)
    marks = volume_marks.marks_of(claimed.metadata.annotations)
    replicas = tuple(
        _replica(replica_id, read.state.replica_topology[replica_id])
        for replica_id in sorted(read.state.replica_topology)
    )
    return volumes.Volume(
        name=read.spec.uuid,
        version=_digest(read.spec, replicas, claimed.metadata),
        size_bytes=read.spec.size,
        storage_class=claimed.spec.storage_class_name,
        replicas_wanted_count=read.spec.num_replicas,
        replicas=replicas,
        labels={**(read.spec.labels or {}), **claimed.metadata.labels},
        last_migration_seconds=marks.moved_seconds,
        last_migration_tier=marks.moved_to,
        seals=marks.seals,
    )


def _replica(replica_id: str, read: ReplicaTopology) -> volumes.Replica:
    own = _STATES.get(read.state, volumes.ReplicaState.UNKNOWN)
    child = _STATES.get(read.child_status, volumes.ReplicaState.UNKNOWN)
    # The worse of what its node and what the target says; the target need not say anything.
    faulted = volumes.ReplicaState.FAULTED in (own, child)
    return volumes.Replica(
        replica_id=replica_id,
        pool=read.pool,
        node=read.node,
        state=volumes.ReplicaState.FAULTED if faulted else own,
        synced=(own is child is volumes.ReplicaState.ONLINE and read.rebuild_progress is None),
    )


def _digest(
    spec: VolumeSpec, replicas: tuple[volumes.Replica, ...], claim: field_types.ObjectMeta
) -> str:
    seen = [
        [spec.uuid, spec.size, spec.num_replicas, spec.status],
        [[each.replica_id, each.pool, each.state.value, each.synced] for each in replicas],
        [claim.uid, claim.resource_version],
    ]
    return hashlib.sha256(msgspec.json.encode(seen)).hexdigest()
