"""A cluster in memory with policies, volumes and heat, and operators that come and go."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import faulty_ports
import memory_heat
import memory_policies
import memory_volumes
import set_clock

from couchestor_domain import events, tiers
from couchestor_operator.control import policy, pool, selector
from couchestor_operator.control import volume as volumes
from couchestor_operator.ports import policy_store, volume_manager
from couchestor_operator.services import migrator, tiering_pass

POLICY = "p"
TIMEOUT_SECONDS = 1800.0
COOLDOWN_SECONDS = 86_400.0
SIZE_BYTES = 100
PASSES_COUNT_MAX = 100

# Of each tier on three nodes.
POOLS = tuple(f"{tier.value}-{index}" for tier in tiers.Tier for index in range(3))


def rule(name: str = POLICY, **changes: Any) -> policy.Policy:
    """A policy of three tiers."""
    made = policy.Policy(
        name=name,
        created_at_seconds=1.0,
        watermarks=policy.Watermarks(low_iops=500, warm_iops=2000, high_iops=5000),
        sampling_window_seconds=600.0,
        cooldown_seconds=COOLDOWN_SECONDS,
        migration_timeout_seconds=TIMEOUT_SECONDS,
        storage_class="mayastor",
        pool_selectors={
            tier: selector.Selector(match_labels={"tier": tier.value}) for tier in tiers.Tier
        },
        migrations_count_max=5,
    )
    return dataclasses.replace(made, **changes)


def volume(name: str, *homes: str, **changes: Any) -> volumes.Volume:
    """A volume with a whole replica in each of the pools."""
    made = volumes.Volume(
        name=name,
        version="",
        size_bytes=SIZE_BYTES,
        storage_class="mayastor",
        replicas_wanted_count=len(homes),
        replicas=tuple(
            volumes.Replica(
                replica_id=f"{name}-{home}",
                pool=home,
                node=f"node-{home[-1]}",
                state=volumes.ReplicaState.ONLINE,
                synced=True,
            )
            for home in homes
        ),
    )
    return dataclasses.replace(made, **changes)


class Heard:
    """Events in the order in which they were published."""

    def __init__(self) -> None:
        self.events: list[events.DomainEvent] = []

    def publish(self, event: events.DomainEvent) -> None:
        """Remember it."""
        self.events.append(event)


class Stage:
    """Pools of three tiers on three nodes, and what the test puts there."""

    def __init__(self, *, preservation_mode: bool = False, migrations_count_max: int = 10) -> None:
        self.memory = memory_volumes.MemoryVolumes(
            [
                pool.Pool(
                    name=name,
                    node=f"node-{name[-1]}",
                    online=True,
                    available_bytes=100 * SIZE_BYTES,
                    labels={"tier": name[:-2]},
                )
                for name in POOLS
            ]
        )
        self.policies = memory_policies.MemoryPolicies()
        self.heat = memory_heat.MemoryHeat()
        self.clock = set_clock.SetClock()
        self.heard = Heard()
        self.whole_counts: list[int] = []
        self.memory.watchers.append(lambda seen: self.whole_counts.append(seen.whole_count))
        self._preservation_mode = preservation_mode
        self._migrations_count_max = migrations_count_max
        self._ids = itertools.count()

    def put(self, made: volumes.Volume, *, iops: float) -> None:
        """Have a volume, so much used."""
        self.memory.put(made)
        self.heat.put(made.name, iops)

    def operator(
        self,
        line: faulty_ports.Line | None = None,
        *,
        manager: volume_manager.VolumeManager | None = None,
        policies: policy_store.PolicyStore | None = None,
    ) -> tiering_pass.TieringPass:
        """One that has just started."""
        line = line or faulty_ports.Line({})
        volumes_port = manager or faulty_ports.FaultyVolumes(self.memory, line)
        policies_port = policies or faulty_ports.FaultyPolicies(self.policies, line)
        mover = migrator.Migrator(
            manager=volumes_port,
            policies=policies_port,
            time=self.clock,
            publisher=self.heard,
            new_id=lambda: f"m{next(self._ids)}",
            preservation_mode=self._preservation_mode,
        )
        return tiering_pass.TieringPass(
            manager=volumes_port,
            policies=policies_port,
            metrics=self.heat,
            time=self.clock,
            mover=mover,
            migrations_count_max=self._migrations_count_max,
            preservation_mode=self._preservation_mode,
        )

    async def settle(self) -> None:
        """Let the manager take one step for each volume."""
        for seen in await self.memory.fleet():
            self.memory.settle(seen.name)

    async def to_rest(self, operator: tiering_pass.TieringPass) -> int:
        """Passes and the manager's work in turn, until nothing is under way and nothing begins.

        Returns:
            How many migrations were begun.
        """
        begun_count = 0
        for _ in range(PASSES_COUNT_MAX):
            summary = await operator.run()
            begun_count += summary.begun_count
            if summary.begun_count == 0 and summary.under_way_count == 0:
                return begun_count
            await self.settle()
        raise AssertionError(f"no rest: {self.policies.status(POLICY).migrations}")

    def homes(self, name: str) -> list[str]:
        """The pools of a volume's replicas."""
        return [replica.pool for replica in self.memory.volume(name).replicas]

    def outcomes(self, name: str = POLICY) -> list[str]:
        """Of the migrations of a policy that ended."""
        return [past.outcome.value for past in self.policies.status(name).migration_history]

    def condition(self, aspect: str, name: str = POLICY) -> tuple[str, str, str]:
        """Status, reason and message of one condition of a policy."""
        (found,) = [each for each in self.policies.status(name).conditions if each.type == aspect]
        return found.status.value, found.reason, found.message
