"""The ports of the migrator and the pass, which write nothing when the Lease is not held.

Work is cancelled when the Lease is lost, by a timer. A process that was stopped for a while wakes
in the middle of its work, before any timer of it: that is what these are for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from couchestor_domain import errors
from couchestor_operator.control import migration, pool, standing
from couchestor_operator.control import volume as volumes
from couchestor_operator.ports import policy_store, volume_manager


class LeadingVolumes:
    """A ``VolumeManager``; commands raise ``LeaseLostError`` where ``is_leading`` is False."""

    def __init__(self, inner: volume_manager.VolumeManager, is_leading: Callable[[], bool]) -> None:
        self._inner = inner
        self._is_leading = is_leading

    async def fleet(self) -> Sequence[volumes.Volume]:
        """As the inner one."""
        return await self._inner.fleet()

    async def pools(self) -> Sequence[pool.Pool]:
        """As the inner one."""
        return await self._inner.pools()

    async def look(self, volume_name: str, *, pool_name: str) -> volume_manager.Look:
        """As the inner one."""
        return await self._inner.look(volume_name, pool_name=pool_name)

    async def add_replica(self, command: migration.AddReplica) -> None:
        """As the inner one."""
        check(self._is_leading)
        await self._inner.add_replica(command)

    async def remove_replica(self, command: migration.RemoveReplica) -> None:
        """As the inner one."""
        check(self._is_leading)
        await self._inner.remove_replica(command)

    async def seal(self, command: migration.Seal) -> None:
        """As the inner one."""
        check(self._is_leading)
        await self._inner.seal(command)


class LeadingPolicies:
    """A ``PolicyStore``; writes raise ``LeaseLostError`` where ``is_leading`` is False."""

    def __init__(self, inner: policy_store.PolicyStore, is_leading: Callable[[], bool]) -> None:
        self._inner = inner
        self._is_leading = is_leading

    async def names(self) -> Sequence[str]:
        """As the inner one."""
        return await self._inner.names()

    async def read(self, policy_name: str) -> policy_store.PolicyState | None:
        """As the inner one."""
        return await self._inner.read(policy_name)

    async def begin(self, state: policy_store.PolicyState, record: migration.Record) -> None:
        """As the inner one."""
        check(self._is_leading)
        await self._inner.begin(state, record)

    async def advance(self, state: policy_store.PolicyState, record: migration.Record) -> None:
        """As the inner one."""
        check(self._is_leading)
        await self._inner.advance(state, record)

    async def end(
        self, state: policy_store.PolicyState, record: migration.Record, *, end: migration.End
    ) -> None:
        """As the inner one."""
        check(self._is_leading)
        await self._inner.end(state, record, end=end)

    async def report(self, state: policy_store.PolicyState, told: standing.Standing) -> None:
        """As the inner one."""
        check(self._is_leading)
        await self._inner.report(state, told)

    async def release(self, state: policy_store.PolicyState) -> None:
        """As the inner one."""
        check(self._is_leading)
        await self._inner.release(state)


def check(is_leading: Callable[[], bool]) -> None:
    """Asked right before anything is changed.

    Raises:
        LeaseLostError: another one may act.
    """
    if not is_leading():
        raise errors.LeaseLostError(
            "this operator does not hold the lease any more, and another one may: nothing was done"
        )
