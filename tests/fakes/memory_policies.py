"""Policies in memory, kept as the API server would keep them: as resources and their statuses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from couchestor_domain import errors
from couchestor_operator.control import migration, policy, standing
from couchestor_operator.ports import policy_store
from couchestor_operator.resources import migration_status, policy_status, storage_policy


@dataclasses.dataclass(slots=True, kw_only=True)
class _Kept:
    rule: policy.Policy | None
    status: storage_policy.StoragePolicyStatus
    version: int
    refusal: str | None = None


class MemoryPolicies:
    """Implements ``ports.policy_store.PolicyStore``."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}

    # -- the port -------------------------------------------------------------------------------

    async def names(self) -> Sequence[str]:
        """Every policy."""
        return list(self._kept)

    async def read(self, policy_name: str) -> policy_store.PolicyState | None:
        """A policy as it is."""
        kept = self._kept.get(policy_name)
        if kept is None:
            return None
        return policy_store.PolicyState(
            name=policy_name,
            version=str(kept.version),
            policy=kept.rule,
            records=tuple(map(migration_status.record_of, kept.status.migrations)),
            history=tuple(map(migration_status.past_of, kept.status.migration_history)),
            refusal=kept.refusal,
            is_being_deleted=kept.rule is None and kept.refusal is None,
        )

    async def begin(self, state: policy_store.PolicyState, record: migration.Record) -> None:
        """One migration more."""
        self._write(state, lambda status: migration_status.begun(status, record))

    async def advance(self, state: policy_store.PolicyState, record: migration.Record) -> None:
        """A record in place of the one before."""
        self._write(state, lambda status: migration_status.advanced(status, record))

    async def end(
        self, state: policy_store.PolicyState, record: migration.Record, *, end: migration.End
    ) -> None:
        """A record becomes history."""
        self._write(state, lambda status: migration_status.ended(status, record, end=end))

    async def report(self, state: policy_store.PolicyState, told: standing.Standing) -> None:
        """What people see of it."""
        self._write(state, lambda status: policy_status.reported(status, told, generation=1))

    async def release(self, state: policy_store.PolicyState) -> None:
        """Gone for good."""
        self._write(state, lambda status: status)
        del self._kept[state.name]

    def _write(
        self,
        state: policy_store.PolicyState,
        change: Callable[[storage_policy.StoragePolicyStatus], storage_policy.StoragePolicyStatus],
    ) -> None:
        kept = self._kept.get(state.name)
        if kept is None or str(kept.version) != state.version:
            raise errors.VersionConflictError(
                f"policy {state.name} is not of version {state.version} any more: read it again",
                policy=state.name,
            )
        kept.status = change(kept.status)
        kept.version += 1

    # -- what a test does to it -----------------------------------------------------------------

    def put(self, name: str, rule: policy.Policy | None, *, refusal: str | None = None) -> None:
        """Have a policy be so; None: it is being deleted, or is refused for that reason."""
        kept = self._kept.get(name)
        status = storage_policy.StoragePolicyStatus() if kept is None else kept.status
        version = 1 if kept is None else kept.version + 1
        self._kept[name] = _Kept(rule=rule, status=status, version=version, refusal=refusal)

    def status(self, name: str) -> storage_policy.StoragePolicyStatus:
        """What people see of it."""
        return self._kept[name].status
