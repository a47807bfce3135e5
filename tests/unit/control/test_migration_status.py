"""Migrations in a policy's status: nothing a record holds is lost, and the history is bounded."""

from __future__ import annotations

import dataclasses

import admission
import hypothesis
import msgspec
import pytest
from hypothesis import strategies

from couchestor_domain import errors, tiers
from couchestor_operator.control import migration
from couchestor_operator.resources import (
    definition,
    migration_entry,
    migration_status,
    storage_policy,
)

STARTED = 1_700_000_000.0
RECORD = migration.Record(
    migration_id="5f0c",
    volume_name="pvc-1",
    source_tier=tiers.Tier.COLD,
    target_tier=tiers.Tier.HOT,
    source_replica="r0",
    source_pool="sata-0",
    target_pool="nvme-0",
    started_seconds=STARTED,
    step_since_seconds=STARTED + 60,
    deadline_seconds=STARTED + 1800,
    trigger_iops=9000.5,
    step=migration.Step.SCALE_DOWN,
    revision=4,
    synced_at_start_count=2,
    replicas_at_start=("r0", "r1"),
    new_replica="n0",
    ending=migration.Ending(
        outcome=migration.Outcome.COMPLETED, reason="moved", decided_seconds=STARTED + 90.25
    ),
)


def _end(outcome: migration.Outcome, reason: str = "why") -> migration.End:
    return migration.End(
        ending=migration.Ending(outcome=outcome, reason=reason, decided_seconds=STARTED + 90.25),
        surplus=migration.Surplus.KEPT,
        source_kept=True,
    )


# To the microsecond, which is what the API's times hold.
SECONDS = strategies.integers(0, 4_000_000_000 * 64).map(lambda ticks: ticks / 64)
NAMES = strategies.text("abc-0", min_size=1, max_size=9)


@hypothesis.given(
    strategies.builds(
        migration.Record,
        migration_id=NAMES,
        volume_name=NAMES,
        source_tier=strategies.none() | strategies.sampled_from(tiers.Tier),
        target_tier=strategies.sampled_from(tiers.Tier),
        source_replica=NAMES,
        source_pool=NAMES,
        target_pool=NAMES,
        started_seconds=SECONDS,
        step_since_seconds=SECONDS,
        deadline_seconds=SECONDS,
        trigger_iops=strategies.floats(0, 1e9),
        step=strategies.sampled_from(migration.Step),
        revision=strategies.integers(0, 99),
        synced_at_start_count=strategies.integers(0, 9),
        replicas_at_start=strategies.lists(NAMES, max_size=4).map(tuple),
        new_replica=strategies.none() | NAMES,
        ending=strategies.none()
        | strategies.builds(
            migration.Ending,
            outcome=strategies.sampled_from(migration.Outcome),
            reason=strategies.text(max_size=20),
            decided_seconds=SECONDS,
        ),
    )
)
def test_a_record_comes_back_from_the_api_as_it_was(record: migration.Record) -> None:
    written = msgspec.json.encode(migration_status.entry_of(record))
    entry = msgspec.json.decode(written, type=migration_entry.MigrationEntry)
    assert migration_status.record_of(entry) == record


def test_the_names_in_the_status_are_those_of_the_machine() -> None:
    for mine, theirs in [
        (tiers.Tier, migration_entry.TierName),
        (migration.Step, migration_entry.StepName),
        (migration.Outcome, migration_entry.OutcomeName),
        (migration.Surplus, migration_entry.SurplusName),
    ]:
        assert {each.name: each.value for each in mine} == {
            each.name: each.value for each in theirs
        }


def test_a_migration_from_its_begin_to_the_history() -> None:
    status = migration_status.begun(
        storage_policy.StoragePolicyStatus(), dataclasses.replace(RECORD, ending=None)
    )
    assert (status.active_migrations, status.total_migrations) == (1, 1)
    status = migration_status.advanced(status, RECORD)
    (entry,) = status.migrations
    assert migration_status.record_of(entry) == RECORD
    other = dataclasses.replace(RECORD, migration_id="77", volume_name="pvc-2")
    status = migration_status.begun(status, other)
    status = migration_status.ended(status, RECORD, end=_end(migration.Outcome.COMPLETED))
    assert [entry.volume for entry in status.migrations] == ["pvc-2"]
    assert (status.active_migrations, status.total_migrations) == (1, 2)
    assert status.failed_migrations == 0
    (past,) = status.migration_history
    assert (past.volume_name, past.migration_id) == ("pvc-1", "5f0c")
    assert (past.success, past.error, past.duration) == (True, None, "90s")
    assert past.timestamp.timestamp() == STARTED + 90.25
    assert (past.from_pool, past.to_pool, past.new_replica) == ("sata-0", "nvme-0", "n0")


@pytest.mark.parametrize("outcome", list(migration.Outcome))
def test_what_did_not_move_the_volume_counts_as_failed_and_says_why(
    outcome: migration.Outcome,
) -> None:
    begun = migration_status.begun(storage_policy.StoragePolicyStatus(), RECORD)
    ended = migration_status.ended(begun, RECORD, end=_end(outcome, "x" * 5000))
    (past,) = ended.migration_history
    moved = outcome in (migration.Outcome.COMPLETED, migration.Outcome.PRESERVED)
    assert past.success is moved
    assert ended.failed_migrations == (not moved)
    assert past.error == (None if moved else "x" * migration_entry.REASON_LENGTH_MAX)
    assert (past.surplus.value, past.source_kept) == ("Kept", True)


def test_the_history_holds_the_last_fifty() -> None:
    status = storage_policy.StoragePolicyStatus()
    for number in range(60):
        record = dataclasses.replace(RECORD, migration_id=f"m{number}")
        status = migration_status.begun(status, record)
        status = migration_status.ended(status, record, end=_end(migration.Outcome.COMPLETED))
    kept = [past.migration_id for past in status.migration_history]
    assert kept == [f"m{number}" for number in range(10, 60)]
    assert status.total_migrations == 60


def test_a_volume_has_one_migration_at_a_time() -> None:
    status = migration_status.begun(storage_policy.StoragePolicyStatus(), RECORD)
    again = dataclasses.replace(RECORD, migration_id="other")
    with pytest.raises(errors.MigrationInProgressError, match="pvc-1"):
        migration_status.begun(status, again)


def test_a_status_with_migrations_fits_the_schema_of_the_definition() -> None:
    status = migration_status.begun(storage_policy.StoragePolicyStatus(), RECORD)
    other = dataclasses.replace(RECORD, migration_id="77", volume_name="pvc-2")
    status = migration_status.ended(
        migration_status.begun(status, other), other, end=_end(migration.Outcome.FAILED)
    )
    document: admission.Document = {
        "metadata": {"name": "p"},
        "spec": {},
        "status": {
            name: value
            for name, value in msgspec.to_builtins(status).items()
            if name in ("migrations", "migrationHistory")
        },
    }
    assert admission.complaints(definition.STORAGE_POLICY, document) == []
    document["status"]["migrations"][0]["step"] = "Dance"
    assert admission.complaints(definition.STORAGE_POLICY, document) != []
