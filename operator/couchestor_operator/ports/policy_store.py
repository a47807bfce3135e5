"""Where policies stand, and with them the records of their migrations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from couchestor_operator.control import migration, past, policy, standing


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyState:
    """A policy and its migrations under way, read as one."""

    name: str
    version: str
    """Opaque; changes with the policy and with every write of its status."""
    policy: policy.Policy | None
    """None: it is being deleted, or asks for the impossible; nothing is wanted by it then."""
    records: tuple[migration.Record, ...]
    history: tuple[past.PastMigration, ...] = ()
    """Its last migrations that ended, in that order."""
    refusal: str | None = None
    """Why it asks for the impossible, if it does."""
    is_being_deleted: bool = False

    def record_of(self, volume_name: str) -> migration.Record | None:
        """The migration of a volume, if one is under way."""
        for record in self.records:
            if record.volume_name == volume_name:
                return record
        return None


class PolicyStore(Protocol):
    """Reads policies, and writes their migrations and what people are told.

    A write names the state it was decided on, and is durable when it returns. It is refused with
    ``VersionConflictError`` if the policy or its migrations have changed since, or are gone. Where
    there was no answer it raises another ``TransientError``: the write may have happened, or may
    yet, and is then refused or leaves exactly what was asked for.
    """

    async def names(self) -> Sequence[str]:
        """Every policy, also those being deleted; of any age."""
        ...

    async def read(self, policy_name: str) -> PolicyState | None:
        """A policy, fresh: after every write that was answered before the call. None: no such."""
        ...

    async def begin(self, state: PolicyState, record: migration.Record) -> None:
        """Write a migration that nothing has been done for.

        Raises:
            MigrationInProgressError: the volume has one under this policy.
        """
        ...

    async def advance(self, state: PolicyState, record: migration.Record) -> None:
        """Write the record in place of the one of the same volume."""
        ...

    async def end(
        self, state: PolicyState, record: migration.Record, *, end: migration.End
    ) -> None:
        """Take the record away and add what became of it to the history, in one write."""
        ...

    async def report(self, state: PolicyState, told: standing.Standing) -> None:
        """Write what a pass saw; migrations and history stay as they are."""
        ...

    async def release(self, state: PolicyState) -> None:
        """Let a policy go that is being deleted and has no migration under way."""
        ...
