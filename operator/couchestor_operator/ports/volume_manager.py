"""Whoever owns the volumes: what is read of it, and the three commands that a migration gives it.

Two kinds of manager stand behind this port, and they are not equally safe.

========================  ===============================  ====================================
                          resources (MayastorVolume)       REST (Mayastor control plane, v0)
========================  ===============================  ====================================
``Volume.version``        ``metadata.resourceVersion``     digest of the volume as it was read
precondition              compared by the API server, in   the adapter reads again right before
                          the write itself                 the call and compares
a call that lands late    refused, whenever it lands       carried out, if it was on its way
which pool, which one     written as commanded; one that   the manager's own choice; the adapter
goes                      knows only nodes prefers theirs  cannot say, only see afterwards
``Volume.seals``          annotation of the volume         annotation of the PersistentVolume
========================  ===============================  ====================================

So over REST a late call may add a replica that no history tells of, or remove one after a migration
was given up. What is left then is that the number is absolute (the same call twice is the same as
once), and that the manager takes a replica that is not whole first, if one has to go: as long as it
does, no more whole replicas are lost than there are too many. The model of the machine is explored
over such a manager too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from couchestor_operator.control import migration, pool
from couchestor_operator.control import volume as volumes


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A pool and a volume as their APIs showed them just now, the pool first."""

    volume: volumes.Volume | None
    """None: the manager answered that there is no such volume. Never: it did not answer."""
    target: pool.Pool | None


class VolumeManager(Protocol):
    """Reads volumes and pools, and changes the replicas of one volume at a time.

    Every command names the version of the volume that it was decided on and is carried out only on
    that very version, as one step with the comparison. A version is never used twice, and differs
    from before whenever the number of replicas wanted, the replicas, the state of one of them, or
    the seals do. A command that was accepted shows in every fresh look from then on; what it asks
    for comes about later, or never.

    Every method raises a ``TransientError`` (``KubernetesApiError`` over resources) where there was
    no answer, or none in time: a command may then have been accepted, or may yet be. Cancelling a
    call says as little. Nothing is repeated in here.
    """

    async def fleet(self) -> Sequence[volumes.Volume]:
        """Every volume, of any age: good for choosing what to look at, and for nothing else."""
        ...

    async def pools(self) -> Sequence[pool.Pool]:
        """Every pool, of any age."""
        ...

    async def look(self, volume_name: str, *, pool_name: str) -> Look:
        """A volume and a pool at once, fresh: after every write that was answered before the call.

        A watch's cache will not do: it may be behind, or not have heard of the volume yet.
        """
        ...

    async def add_replica(self, command: migration.AddReplica) -> None:
        """Have one replica more, on the pool that is named.

        From then on ``replicas_wanted_count`` is the number commanded, and a new replica appears
        that is not synced. It stays until it is removed by name.

        Raises:
            VersionConflictError: the volume is gone or not of that version; nothing was done.
            NoSuitablePoolError: the pool cannot take it; nothing was done.
            MigrationFailedError: refused for good, whatever the version; nothing was done.
        """
        ...

    async def remove_replica(self, command: migration.RemoveReplica) -> None:
        """Have one replica less: the one that is named, and no other.

        From then on ``replicas_wanted_count`` is the number commanded, and the replica goes once
        there are more than that. If more are wanted again before, it stays.

        Raises:
            VersionConflictError: the volume is gone or not of that version; nothing was done.
            MigrationFailedError: refused for good, whatever the version; nothing was done.
        """
        ...

    async def seal(self, command: migration.Seal) -> None:
        """Write the seals on the volume, and with them that it moved, if it did.

        From then on ``Volume.seals`` are those commanded, and the version another: every command
        decided before is refused. The replicas are as before.

        Raises:
            VersionConflictError: the volume is gone or not of that version; nothing was done.
        """
        ...
