"""Policies whose migrations are told of, in the log and in figures, once they are written."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from couchestor_operator.control import migration, standing
from couchestor_operator.ports import operator_figures, policy_store

_LOG = logging.getLogger(__name__)


class ToldPolicies:
    """A ``PolicyStore``. What is written there once is logged and counted once.

    A write that was carried out and not answered is not told of: the history has it.
    """

    def __init__(
        self, inner: policy_store.PolicyStore, figures: operator_figures.MigrationFigures
    ) -> None:
        self._inner = inner
        self._figures = figures

    async def names(self) -> Sequence[str]:
        """As the inner one."""
        return await self._inner.names()

    async def read(self, policy_name: str) -> policy_store.PolicyState | None:
        """As the inner one."""
        return await self._inner.read(policy_name)

    async def begin(self, state: policy_store.PolicyState, record: migration.Record) -> None:
        """As the inner one."""
        await self._inner.begin(state, record)
        self._figures.begun(state.name)
        source = "" if record.source_tier is None else f" ({record.source_tier.value})"
        _LOG.info(
            "volume %s is to move from pool %s%s to %s (%s): %.0f IOPS",
            record.volume_name,
            record.source_pool,
            source,
            record.target_pool,
            record.target_tier.value,
            record.trigger_iops,
            extra={"policy": state.name, "migration": record.migration_id},
        )

    async def advance(self, state: policy_store.PolicyState, record: migration.Record) -> None:
        """As the inner one."""
        before = state.record_of(record.volume_name)
        await self._inner.advance(state, record)
        about = {"policy": state.name, "migration": record.migration_id}
        if before is not None and before.step is not record.step:
            seconds = max(0.0, record.step_since_seconds - before.step_since_seconds)
            self._figures.stepped(before.step, seconds=seconds)
            _LOG.info(
                "volume %s goes on to %s after %.1f s of %s",
                record.volume_name,
                record.step.value,
                seconds,
                before.step.value,
                extra=about,
            )
        ending = record.ending
        if ending is not None and (before is None or before.ending is None):
            _LOG.info(
                "the migration of volume %s is to end in %s: %s",
                record.volume_name,
                record.step.value,
                ending.reason,
                extra=about,
            )

    async def end(
        self, state: policy_store.PolicyState, record: migration.Record, *, end: migration.End
    ) -> None:
        """As the inner one."""
        await self._inner.end(state, record, end=end)
        ending = end.ending
        step_seconds = max(0.0, ending.decided_seconds - record.step_since_seconds)
        seconds = max(0.0, ending.decided_seconds - record.started_seconds)
        self._figures.stepped(record.step, seconds=step_seconds)
        self._figures.ended(state.name, ending.outcome, seconds=seconds)
        done = ending.outcome in (migration.Outcome.COMPLETED, migration.Outcome.PRESERVED)
        _LOG.log(
            logging.INFO if done else logging.WARNING,
            "volume %s: %s after %.1f s: %s",
            record.volume_name,
            ending.outcome.value,
            seconds,
            ending.reason,
            extra={"policy": state.name, "migration": record.migration_id},
        )

    async def report(self, state: policy_store.PolicyState, told: standing.Standing) -> None:
        """As the inner one."""
        await self._inner.report(state, told)

    async def release(self, state: policy_store.PolicyState) -> None:
        """As the inner one."""
        await self._inner.release(state)
        _LOG.info("policy %s is gone", state.name)
