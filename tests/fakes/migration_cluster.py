"""One volume and the pool it is to move to: what is true of them, and what can happen to them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from couchestor_operator.control import pool
from couchestor_operator.control import volume as volumes

SOURCE = "r0"
TARGET = "target"
ELSEWHERE = "elsewhere"
WHOLE, SYNCING, FAULTED = "whole", "syncing", "faulted"
MADE_COUNT_MAX = 2


class Copy(NamedTuple):
    """A replica."""

    name: str
    home: str
    state: str


class Cluster(NamedTuple):
    """The volume and its target pool."""

    copies: tuple[Copy, ...]
    wanted: int
    seals: tuple[str, ...] = ()
    exists: bool = True
    target_exists: bool = True
    # What no look shows:
    leaving: str | None = None
    """The replica that the manager takes away once there is one too many."""
    asked_beside: tuple[str, ...] = ()
    """The copies that were there when the operator asked for one more, as long as the volume has,
    or may yet get, one because of that."""
    taken: bool = False
    """Whether the manager has taken that replica away."""
    made: int = 0
    lost: int = 0
    """Whole copies that were lost to faults and to people."""

    @property
    def whole(self) -> int:
        """Copies that hold everything."""
        return sum(copy.state == WHOLE for copy in self.copies)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the copies."""
        return tuple(copy.name for copy in self.copies)


class Move(NamedTuple):
    """Something that happens to the cluster by itself or by people."""

    after: Cluster
    fault: bool = False
    meddling: bool = False
    bumps_version: bool = True


UNKNOWN = Cluster((), 0, exists=False)
"""A volume that is gone, of which nothing matters any more; and what a cache shows of one that it
has not heard of yet."""


def start(replicas_count: int) -> Cluster:
    """A volume all of whose replicas are whole, none of them in the target pool."""
    copies = tuple(Copy(f"r{index}", f"old-{index}", WHOLE) for index in range(replicas_count))
    return Cluster(copies=copies, wanted=replicas_count)


def shown(cluster: Cluster) -> Cluster:
    """What a look shows of it."""
    return cluster._replace(leaving=None, asked_beside=(), taken=False, made=0, lost=0)


def volume_of(
    cluster: Cluster, *, seals: tuple[str, ...], all_seem_whole: bool = False
) -> volumes.Volume | None:
    """The volume as the operator reads it."""
    if not cluster.exists:
        return None
    replicas = tuple(
        volumes.Replica(
            replica_id=copy.name,
            pool=copy.home,
            node=f"node-of-{copy.home}",
            state=(
                volumes.ReplicaState.FAULTED
                if copy.state == FAULTED and not all_seem_whole
                else volumes.ReplicaState.ONLINE
            ),
            synced=copy.state == WHOLE or all_seem_whole,
        )
        for copy in cluster.copies
    )
    return volumes.Volume(
        name="v",
        version="seen",
        size_bytes=10,
        storage_class="mayastor",
        replicas_wanted_count=cluster.wanted,
        replicas=replicas,
        seals=seals,
    )


def target_of(cluster: Cluster) -> pool.Pool | None:
    """The target pool as the operator reads it."""
    if not cluster.target_exists:
        return None
    return pool.Pool(name=TARGET, node="node-of-target", online=True, available_bytes=10)


def forgets(cluster: Cluster) -> Cluster:
    """What the operator asked for is nobody's concern once others have undone it."""
    beside = cluster.asked_beside
    if cluster.wanted <= len(beside) and set(cluster.names) <= set(beside):
        return cluster._replace(asked_beside=())
    return cluster


def moves(
    cluster: Cluster, *, may_fault: bool, may_meddle: bool, manager_chooses: bool
) -> Iterator[Move]:
    """All that can happen next without the operator."""
    if not cluster.exists:
        return
    if may_meddle:
        toggled = cluster._replace(target_exists=not cluster.target_exists)
        yield Move(toggled, meddling=True, bumps_version=False)
        for change in (1, -1):
            if cluster.wanted + change > 0:
                rescaled = cluster._replace(wanted=cluster.wanted + change, leaving=None)
                yield Move(rescaled, meddling=True)
        yield Move(UNKNOWN, meddling=True)
    yield from _growth(cluster, may_fault=may_fault)
    for position, copy in enumerate(cluster.copies):
        before, after = cluster.copies[:position], cluster.copies[position + 1 :]
        lost = cluster.lost + (copy.state == WHOLE)
        if copy.state != WHOLE:
            synced = (*before, copy._replace(state=WHOLE), *after)
            yield Move(cluster._replace(copies=synced))
        if may_fault:
            yield Move(cluster._replace(copies=before + after, lost=lost), fault=True)
            if copy.state != FAULTED:
                faulted = (*before, copy._replace(state=FAULTED), *after)
                yield Move(cluster._replace(copies=faulted, lost=lost), fault=True)
    yield from _shrinking(cluster, manager_chooses=manager_chooses)


def _growth(cluster: Cluster, *, may_fault: bool) -> Iterator[Move]:
    if len(cluster.copies) >= cluster.wanted or cluster.made >= MADE_COUNT_MAX:
        return
    name = f"n{cluster.made}"
    homes = (TARGET, ELSEWHERE) if may_fault else (TARGET,)
    for home in homes:
        copies = (*cluster.copies, Copy(name, home, SYNCING))
        grown = cluster._replace(copies=copies, made=cluster.made + 1)
        yield Move(grown, fault=home == ELSEWHERE)


def _shrinking(cluster: Cluster, *, manager_chooses: bool) -> Iterator[Move]:
    """The manager keeps to the number: raised again in time, it takes nothing away."""
    if len(cluster.copies) <= cluster.wanted:
        return
    going = [copy for copy in cluster.copies if copy.name == cluster.leaving]
    # Nobody said which: people changed the number, or this manager takes no names.
    going = going or [copy for copy in cluster.copies if copy.state != WHOLE]
    for gone in going or cluster.copies:
        kept = tuple(copy for copy in cluster.copies if copy is not gone)
        by_people = cluster.leaving is None and not manager_chooses
        lost = cluster.lost + (by_people and gone.state == WHOLE)
        taken = cluster.taken or gone.name == cluster.leaving
        yield Move(cluster._replace(copies=kept, lost=lost, leaving=None, taken=taken))
