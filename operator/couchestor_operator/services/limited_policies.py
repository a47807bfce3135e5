"""Policies within the limits that the operator was started with, whatever they ask for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from couchestor_operator.control import migration, policy, standing
from couchestor_operator.ports import policy_store


class LimitedPolicies:
    """A ``PolicyStore`` whose policies ask for no more than is allowed.

    Args:
        dry_run: Whether every policy is in dry run: nothing begins, and what is under way ends as
            it does when people set ``dryRun`` in a policy.
        timeout_seconds_max: No migration that begins takes longer; None: as long as its policy
            allows.
    """

    def __init__(
        self,
        inner: policy_store.PolicyStore,
        *,
        dry_run: bool = False,
        timeout_seconds_max: float | None = None,
    ) -> None:
        self._inner = inner
        self._dry_run = dry_run
        self._timeout_seconds_max = timeout_seconds_max

    async def names(self) -> Sequence[str]:
        """As the inner one."""
        return await self._inner.names()

    async def read(self, policy_name: str) -> policy_store.PolicyState | None:
        """As the inner one, limited."""
        state = await self._inner.read(policy_name)
        if state is None or state.policy is None:
            return state
        return dataclasses.replace(state, policy=self._limited(state.policy))

    async def begin(self, state: policy_store.PolicyState, record: migration.Record) -> None:
        """As the inner one."""
        await self._inner.begin(state, record)

    async def advance(self, state: policy_store.PolicyState, record: migration.Record) -> None:
        """As the inner one."""
        await self._inner.advance(state, record)

    async def end(
        self, state: policy_store.PolicyState, record: migration.Record, *, end: migration.End
    ) -> None:
        """As the inner one."""
        await self._inner.end(state, record, end=end)

    async def report(self, state: policy_store.PolicyState, told: standing.Standing) -> None:
        """As the inner one."""
        await self._inner.report(state, told)

    async def release(self, state: policy_store.PolicyState) -> None:
        """As the inner one."""
        await self._inner.release(state)

    def _limited(self, rule: policy.Policy) -> policy.Policy:
        timeout_seconds = rule.migration_timeout_seconds
        if self._timeout_seconds_max is not None:
            timeout_seconds = min(timeout_seconds, self._timeout_seconds_max)
        return dataclasses.replace(
            rule,
            dry_run=rule.dry_run or self._dry_run,
            migration_timeout_seconds=timeout_seconds,
        )
