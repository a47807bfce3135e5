"""Volumes and their replicas, as the control plane sees them."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from couchestor_domain import tiers


class ReplicaState(enum.Enum):
    """What the volume's manager says of a replica."""

    ONLINE = "Online"
    DEGRADED = "Degraded"
    FAULTED = "Faulted"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """One copy of a volume."""

    replica_id: str
    pool: str
    node: str
    state: ReplicaState
    synced: bool
    """Whether it holds all that the volume holds."""

    @property
    def is_whole(self) -> bool:
        """Whether the volume would survive on it alone."""
        return self.synced and self.state is ReplicaState.ONLINE


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A replicated volume at one version of itself."""

    name: str
    version: str
    """Opaque; changes whenever the volume or what is known of its replicas does."""
    size_bytes: int
    storage_class: str
    replicas_wanted_count: int
    replicas: tuple[Replica, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    last_migration_seconds: float | None = None
    """When the last migration that moved the volume ended, since the epoch."""
    last_migration_tier: tiers.Tier | None = None
    """Where that one led."""
    seals: tuple[str, ...] = ()
    """What the last migrations that ended have written on it: see ``migration.Record.seal``."""

    @property
    def whole_count(self) -> int:
        """Replicas that the volume would survive on."""
        return sum(replica.is_whole for replica in self.replicas)

    @property
    def is_settled(self) -> bool:
        """Whether it has as many replicas as it should, all of them whole."""
        return self.whole_count == len(self.replicas) == self.replicas_wanted_count

    def replica(self, replica_id: str) -> Replica | None:
        """The replica of that id, if the volume has it."""
        for replica in self.replicas:
            if replica.replica_id == replica_id:
                return replica
        return None
