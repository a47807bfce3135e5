"""The ports of the migrator, each call of which can go wrong as a call over a network can.

A call that is *late* has no answer, and is carried out before a later call, when others have been.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from couchestor_domain import errors
from couchestor_operator.control import migration, pool, standing
from couchestor_operator.control import volume as volumes
from couchestor_operator.ports import policy_store, volume_manager

T = TypeVar("T")


class Killed(BaseException):
    """The process ends here."""


class Fault(enum.Enum):
    """What becomes of one call."""

    KILLED_BEFORE = enum.auto()
    KILLED_AFTER = enum.auto()
    UNANSWERED = enum.auto()
    """It was carried out, and there was no answer."""
    LOST = enum.auto()
    LATE = enum.auto()
    """Carried out ``LATE_BY_CALLS`` calls later."""


LATE_BY_CALLS = (1, 4)
"""Of a call that is late, how many others come before it; taken in turn."""


class Line:
    """Numbers the calls of both ports, and does to each what was planned for its number."""

    def __init__(self, plan: Mapping[int, Fault]) -> None:
        self.calls_count = 0
        self._plan = plan
        self._late: list[tuple[int, Callable[[], Awaitable[object]]]] = []

    async def call(self, do: Callable[[], Awaitable[T]]) -> T:
        """Make a call, or not."""
        number = self.calls_count
        self.calls_count += 1
        await self.land(up_to=number)
        fault = self._plan.get(number)
        if fault is Fault.KILLED_BEFORE:
            raise Killed
        if fault is Fault.LATE:
            delay = LATE_BY_CALLS[number % len(LATE_BY_CALLS)]
            self._late.append((number + delay, do))
        if fault in (Fault.LATE, Fault.LOST):
            raise errors.KubernetesApiError("no answer came in time: try again")
        answer = await do()
        if fault is Fault.KILLED_AFTER:
            raise Killed
        if fault is Fault.UNANSWERED:
            raise errors.KubernetesApiError("no answer came in time: try again")
        return answer

    async def land(self, *, up_to: int) -> None:
        """Carry out what is late by now."""
        due = [do for when, do in self._late if when <= up_to]
        self._late = [(when, do) for when, do in self._late if when > up_to]
        for do in due:
            try:
                await do()
            except (errors.VersionConflictError, errors.MigrationInProgressError):
                continue


class FaultyVolumes:
    """A ``VolumeManager`` behind a line."""

    def __init__(self, inner: volume_manager.VolumeManager, line: Line) -> None:
        self._inner = inner
        self._line = line

    async def fleet(self) -> Sequence[volumes.Volume]:
        """As the inner one."""
        return await self._line.call(self._inner.fleet)

    async def pools(self) -> Sequence[pool.Pool]:
        """As the inner one."""
        return await self._line.call(self._inner.pools)

    async def look(self, volume_name: str, *, pool_name: str) -> volume_manager.Look:
        """As the inner one."""
        return await self._line.call(lambda: self._inner.look(volume_name, pool_name=pool_name))

    async def add_replica(self, command: migration.AddReplica) -> None:
        """As the inner one."""
        await self._line.call(lambda: self._inner.add_replica(command))

    async def remove_replica(self, command: migration.RemoveReplica) -> None:
        """As the inner one."""
        await self._line.call(lambda: self._inner.remove_replica(command))

    async def seal(self, command: migration.Seal) -> None:
        """As the inner one."""
        await self._line.call(lambda: self._inner.seal(command))


class FaultyPolicies:
    """A ``PolicyStore`` behind a line."""

    def __init__(self, inner: policy_store.PolicyStore, line: Line) -> None:
        self._inner = inner
        self._line = line

    async def names(self) -> Sequence[str]:
        """As the inner one."""
        return await self._line.call(self._inner.names)

    async def read(self, policy_name: str) -> policy_store.PolicyState | None:
        """As the inner one."""
        return await self._line.call(lambda: self._inner.read(policy_name))

    async def begin(self, state: policy_store.PolicyState, record: migration.Record) -> None:
        """As the inner one."""
        await self._line.call(lambda: self._inner.begin(state, record))

    async def advance(self, state: policy_store.PolicyState, record: migration.Record) -> None:
        """As the inner one."""
        await self._line.call(lambda: self._inner.advance(state, record))

    async def end(
        self, state: policy_store.PolicyState, record: migration.Record, *, end: migration.End
    ) -> None:
        """As the inner one."""
        await self._line.call(lambda: self._inner.end(state, record, end=end))

    async def report(self, state: policy_store.PolicyState, told: standing.Standing) -> None:
        """As the inner one."""
        await self._line.call(lambda: self._inner.report(state, told))

    async def release(self, state: policy_store.PolicyState) -> None:
        """As the inner one."""
        await self._line.call(lambda: self._inner.release(state))
