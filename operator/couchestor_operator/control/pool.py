"""Pools, and which of them a replica moves to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from couchestor_domain import errors
from couchestor_operator.control import volume as volumes


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """What can hold replicas."""

    name: str
    node: str
    online: bool
    available_bytes: int
    labels: Mapping[str, str] = field(default_factory=dict)


def why_unfit(
    target: Pool, *, volume: volumes.Volume, source: volumes.Replica, promised_bytes: int = 0
) -> str | None:
    """Why a pool cannot take the place of one replica of a volume; None if it can.

    Args:
        promised_bytes: What migrations that are under way will take of the pool.
    """
    if not target.online:
        return "is not online"
    others = [replica for replica in volume.replicas if replica is not source]
    if any(replica.pool == target.name for replica in volume.replicas):
        return "holds a replica of the volume already"
    # Two replicas on a node die with it: a move must not give up what the placement had.
    if any(replica.node == target.node for replica in others):
        return f"is on node {target.node}, which holds another replica of the volume"
    free_bytes = target.available_bytes - promised_bytes
    if free_bytes < volume.size_bytes:
        return f"has {max(0, free_bytes)} bytes free and {volume.size_bytes} are needed"
    return None


def choose(
    candidates: Iterable[Pool],
    *,
    volume: volumes.Volume,
    source: volumes.Replica,
    promised_bytes: Callable[[str], int],
) -> Pool:
    """The pool with the most room among those that can take a replica's place, then by name.

    Raises:
        NoSuitablePoolError: none can; the message says why for each.
    """
    reasons: list[str] = []
    fit: list[tuple[int, str, Pool]] = []
    for candidate in candidates:
        promised = promised_bytes(candidate.name)
        reason = why_unfit(candidate, volume=volume, source=source, promised_bytes=promised)
        if reason is None:
            fit.append((promised - candidate.available_bytes, candidate.name, candidate))
        else:
            reasons.append(f"{candidate.name} {reason}")
    if not fit:
        why = "; ".join(sorted(reasons)[:8]) or "the policy selects no pool of this tier"
        raise errors.NoSuitablePoolError(
            f"no pool can take a replica of volume {volume.name}: {why}", volume=volume.name
        )
    return min(fit, key=lambda ranked: ranked[:2])[2]
