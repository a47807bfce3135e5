"""What every ``ports.policy_store.PolicyStore`` must do, as checks over a harness.

Run over the one in memory in ``tests/contracts``, and over a real API server in ``tests/kube``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import pytest

from couchestor_domain import errors, tiers
from couchestor_operator.control import migration, standing
from couchestor_operator.ports import policy_store
from couchestor_operator.resources import storage_policy

NOW: Final = 1_700_000_000.0
SPEC: Final[dict[str, Any]] = {
    "storageClassName": "fast",
    "hotPoolSelector": {"matchLabels": {"tier": "hot"}},
    "migrationTimeout": "20m",
}
IMPOSSIBLE_SPEC: Final[dict[str, Any]] = {"migrationTimeout": "9999d"}
"""A schema takes it, and it is longer than ten years."""


class Harness(Protocol):
    """A store, and people who make, edit and delete policies in it."""

    store: policy_store.PolicyStore
    name: str
    """Of a policy that is not there yet."""

    async def make(self, spec: dict[str, Any]) -> None:
        """Have the policy."""
        ...

    async def edit(self, spec: dict[str, Any]) -> None:
        """Have it ask for something else."""
        ...

    async def delete(self) -> None:
        """Ask for its deletion."""
        ...

    async def status(self) -> storage_policy.StoragePolicyStatus:
        """What people see."""
        ...

    async def shows(self, expected: bool) -> None:
        """Wait until it is, or is not, among the names, which may be of some age."""
        ...


def record(volume_name: str = "pvc-1", **changes: Any) -> migration.Record:
    """A migration in its first step."""
    made = migration.Record(
        migration_id=f"m-{volume_name}",
        volume_name=volume_name,
        source_tier=tiers.Tier.COLD,
        target_tier=tiers.Tier.HOT,
        source_replica="r0",
        source_pool="sata-0",
        target_pool="nvme-0",
        started_seconds=NOW,
        step_since_seconds=NOW + 1 / 64,
        deadline_seconds=NOW + 1200,
        trigger_iops=9000.0,
    )
    return dataclasses.replace(made, **changes)


def _end() -> migration.End:
    return migration.End(
        ending=migration.Ending(
            outcome=migration.Outcome.ABORTED, reason="because", decided_seconds=NOW + 60
        ),
        surplus=migration.Surplus.KEPT,
        source_kept=True,
    )


def _standing(message: str = "hello") -> standing.Standing:
    return standing.Standing(
        phase=standing.Phase.ACTIVE,
        watched_count=7,
        in_tier={tiers.Tier.HOT: 2, tiers.Tier.COLD: 4},
        conditions=(
            standing.Condition(
                aspect=standing.Aspect.READY, holds=True, reason="Reconciled", message=message
            ),
        ),
        reconciled_seconds=NOW + 5.25,
    )


async def _state(harness: Harness) -> policy_store.PolicyState:
    found = await harness.store.read(harness.name)
    assert found is not None
    return found


async def a_policy_is_read_as_people_made_it(harness: Harness) -> None:
    assert await harness.store.read(harness.name) is None
    await harness.shows(False)
    await harness.make(SPEC)
    await harness.shows(True)
    state = await _state(harness)
    assert (state.name, state.records, state.history) == (harness.name, (), ())
    assert (state.refusal, state.is_being_deleted) == (None, False)
    assert state.policy is not None
    assert (state.policy.storage_class, state.policy.migration_timeout_seconds) == ("fast", 1200)
    assert state.policy.tier_of({"tier": "hot"}) is tiers.Tier.HOT


async def a_policy_that_asks_for_the_impossible_says_so(harness: Harness) -> None:
    await harness.make(IMPOSSIBLE_SPEC)
    state = await _state(harness)
    assert state.policy is None
    assert state.refusal is not None
    assert "migrationTimeout" in state.refusal
    assert not state.is_being_deleted
    fault = standing.Fault(reason="InvalidPolicy", message=state.refusal)
    await harness.store.report(state, standing.of_fault(fault, now_seconds=NOW))
    assert (await harness.status()).phase.value == "Error"


async def a_migration_that_was_begun_is_read_back_whole(harness: Harness) -> None:
    await harness.make(SPEC)
    before = await _state(harness)
    await harness.store.begin(before, record())
    await harness.store.begin(await _state(harness), record("pvc-2"))
    after = await _state(harness)
    assert after.records == (record(), record("pvc-2"))
    assert after.policy == before.policy
    assert after.version != before.version
    status = await harness.status()
    assert (status.active_migrations, status.total_migrations) == (2, 2)


async def a_volume_has_one_migration(harness: Harness) -> None:
    await harness.make(SPEC)
    await harness.store.begin(await _state(harness), record())
    with pytest.raises(errors.MigrationInProgressError):
        await harness.store.begin(await _state(harness), record(migration_id="other"))
    assert (await _state(harness)).records == (record(),)


async def a_record_is_advanced_and_ends_in_the_history(harness: Harness) -> None:
    await harness.make(SPEC)
    await harness.store.begin(await _state(harness), record())
    further = record(
        step=migration.Step.WAIT_SYNC,
        revision=2,
        synced_at_start_count=2,
        replicas_at_start=("r0", "r1"),
        new_replica="n0",
        ending=_end().ending,
    )
    await harness.store.advance(await _state(harness), further)
    assert (await _state(harness)).records == (further,)
    await harness.store.end(await _state(harness), further, end=_end())
    state = await _state(harness)
    assert state.records == ()
    (past,) = state.history
    assert (past.migration_id, past.volume_name) == ("m-pvc-1", "pvc-1")
    assert (past.outcome, past.surplus) == (migration.Outcome.ABORTED, migration.Surplus.KEPT)
    assert (past.replicas_before_count, past.new_replica) == (2, "n0")
    assert (past.ended_seconds, past.target_pool) == (NOW + 60, "nvme-0")
    status = await harness.status()
    assert (status.active_migrations, status.failed_migrations) == (0, 1)


async def a_write_on_an_old_version_is_refused_and_changes_nothing(harness: Harness) -> None:
    await harness.make(SPEC)
    old = await _state(harness)
    await harness.store.begin(old, record())
    state = await _state(harness)
    for write in (
        harness.store.begin(old, record("pvc-2")),
        harness.store.advance(old, record(revision=9)),
        harness.store.end(old, record(), end=_end()),
        harness.store.report(old, _standing()),
        harness.store.release(old),
    ):
        with pytest.raises(errors.VersionConflictError):
            await write
    assert await _state(harness) == state


async def an_edit_by_people_is_a_new_version(harness: Harness) -> None:
    await harness.make(SPEC)
    old = await _state(harness)
    await harness.edit(SPEC | {"enabled": False})
    with pytest.raises(errors.VersionConflictError):
        await harness.store.begin(old, record())
    state = await _state(harness)
    assert state.policy is not None
    assert not state.policy.enabled
    assert state.records == ()


async def what_is_told_is_seen_and_leaves_migrations_as_they_are(harness: Harness) -> None:
    await harness.make(SPEC)
    await harness.store.begin(await _state(harness), record())
    await harness.store.begin(await _state(harness), record("pvc-2"))
    await harness.store.end(await _state(harness), record("pvc-2"), end=_end())
    before = await _state(harness)
    await harness.store.report(before, _standing())
    after = await _state(harness)
    assert after.version != before.version
    assert dataclasses.replace(after, version=before.version) == before
    status = await harness.status()
    assert (status.phase.value, status.watched_volumes) == ("Active", 7)
    assert (status.hot_volumes, status.warm_volumes, status.cold_volumes) == (2, 0, 4)
    assert status.last_reconcile_time is not None
    assert status.last_reconcile_time.timestamp() == NOW + 5.25
    (condition,) = status.conditions
    assert (condition.type, condition.status.value) == ("Ready", "True")
    assert (condition.reason, condition.message) == ("Reconciled", "hello")
    assert condition.last_transition_time.timestamp() == NOW + 5.25


async def a_deleted_policy_stays_until_it_is_released(harness: Harness) -> None:
    await harness.make(SPEC)
    await harness.store.begin(await _state(harness), record())
    await harness.delete()
    state = await _state(harness)
    assert state.is_being_deleted
    assert (state.policy, state.refusal, state.records) == (None, None, (record(),))
    await harness.store.advance(state, record(revision=1))
    await harness.store.end(await _state(harness), record(), end=_end())
    await harness.shows(True)
    await harness.store.release(await _state(harness))
    assert await harness.store.read(harness.name) is None
    await harness.shows(False)


async def what_is_gone_is_of_no_version(harness: Harness) -> None:
    await harness.make(SPEC)
    await harness.store.begin(await _state(harness), record())
    await harness.delete()
    await harness.store.end(await _state(harness), record(), end=_end())
    last = await _state(harness)
    await harness.store.release(last)
    with pytest.raises(errors.VersionConflictError):
        await harness.store.begin(last, record())


Check = Callable[[Harness], Awaitable[None]]
CHECKS: Final[tuple[Check, ...]] = (
    a_policy_is_read_as_people_made_it,
    a_policy_that_asks_for_the_impossible_says_so,
    a_migration_that_was_begun_is_read_back_whole,
    a_volume_has_one_migration,
    a_record_is_advanced_and_ends_in_the_history,
    a_write_on_an_old_version_is_refused_and_changes_nothing,
    an_edit_by_people_is_a_new_version,
    what_is_told_is_seen_and_leaves_migrations_as_they_are,
    a_deleted_policy_stays_until_it_is_released,
    what_is_gone_is_of_no_version,
)
