"""Records of migrations in a policy's status: from and to what decisions use, and each write."""

from __future__ import annotations

import datetime

import msgspec

from couchestor_domain import errors, tiers
from couchestor_operator.control import migration, past
from couchestor_operator.resources import migration_entry, storage_policy

_SUCCESSES = (migration.Outcome.COMPLETED, migration.Outcome.PRESERVED)


def past_of(entry: migration_entry.MigrationHistoryEntry) -> past.PastMigration:
    """What an entry of the history says to those who plan."""
    return past.PastMigration(
        migration_id=entry.migration_id,
        volume_name=entry.volume_name,
        outcome=migration.Outcome(entry.outcome.value),
        surplus=migration.Surplus(entry.surplus.value),
        ended_seconds=entry.timestamp.timestamp(),
        replicas_before_count=entry.replicas_before,
        target_pool=entry.to_pool,
        new_replica=entry.new_replica,
    )


def record_of(entry: migration_entry.MigrationEntry) -> migration.Record:
    """The record that an entry keeps."""
    ending = entry.ending
    return migration.Record(
        migration_id=entry.migration_id,
        volume_name=entry.volume,
        source_tier=None if entry.source_tier is None else tiers.Tier(entry.source_tier.value),
        target_tier=tiers.Tier(entry.target_tier.value),
        source_replica=entry.source_replica,
        source_pool=entry.source_pool,
        target_pool=entry.target_pool,
        started_seconds=entry.started_at.timestamp(),
        step_since_seconds=entry.step_since.timestamp(),
        deadline_seconds=entry.deadline.timestamp(),
        trigger_iops=entry.trigger_iops,
        step=migration.Step(entry.step.value),
        revision=entry.revision,
        synced_at_start_count=entry.synced_at_start,
        replicas_at_start=tuple(entry.replicas_at_start),
        new_replica=entry.new_replica,
        ending=None
        if ending is None
        else migration.Ending(
            outcome=migration.Outcome(ending.outcome.value),
            reason=ending.reason,
            decided_seconds=ending.decided_at.timestamp(),
        ),
    )


def entry_of(record: migration.Record) -> migration_entry.MigrationEntry:
    """The entry that keeps a record; times to the microsecond, reasons up to their limit."""
    ending = record.ending
    return migration_entry.MigrationEntry(
        volume=record.volume_name,
        migration_id=record.migration_id,
        revision=record.revision,
        source_tier=_tier_name(record.source_tier),
        target_tier=migration_entry.TierName(record.target_tier.value),
        source_replica=record.source_replica,
        source_pool=record.source_pool,
        target_pool=record.target_pool,
        step=migration_entry.StepName(record.step.value),
        started_at=_moment(record.started_seconds),
        step_since=_moment(record.step_since_seconds),
        deadline=_moment(record.deadline_seconds),
        trigger_iops=record.trigger_iops,
        synced_at_start=record.synced_at_start_count,
        replicas_at_start=list(record.replicas_at_start),
        new_replica=record.new_replica,
        ending=None
        if ending is None
        else migration_entry.EndingEntry(
            outcome=migration_entry.OutcomeName(ending.outcome.value),
            reason=_reason(ending),
            decided_at=_moment(ending.decided_seconds),
        ),
    )


def begun(
    status: storage_policy.StoragePolicyStatus, record: migration.Record
) -> storage_policy.StoragePolicyStatus:
    """The status with one migration more.

    Raises:
        MigrationInProgressError: the volume is being migrated already.
    """
    if any(entry.volume == record.volume_name for entry in status.migrations):
        raise errors.MigrationInProgressError(
            f"volume {record.volume_name} is being migrated already: wait for the end of that",
            volume=record.volume_name,
        )
    entries = [*status.migrations, entry_of(record)]
    return msgspec.structs.replace(
        status,
        migrations=entries,
        active_migrations=len(entries),
        total_migrations=status.total_migrations + 1,
    )


def advanced(
    status: storage_policy.StoragePolicyStatus, record: migration.Record
) -> storage_policy.StoragePolicyStatus:
    """The status with the record in place of the one of the same migration."""
    entries = [
        entry_of(record) if entry.migration_id == record.migration_id else entry
        for entry in status.migrations
    ]
    return msgspec.structs.replace(status, migrations=entries)


def ended(
    status: storage_policy.StoragePolicyStatus, record: migration.Record, *, end: migration.End
) -> storage_policy.StoragePolicyStatus:
    """The status without the record, and with what became of it in the history.

    Where that is full the oldest entry goes, but those last that tell of a surplus replica and are
    the last of their volume: as long as they stand nothing moves it.
    """
    entries = [entry for entry in status.migrations if entry.migration_id != record.migration_id]
    history = [*status.migration_history, _history_entry(record, end)]
    succeeded = end.ending.outcome in _SUCCESSES
    return msgspec.structs.replace(
        status,
        migrations=entries,
        active_migrations=len(entries),
        failed_migrations=status.failed_migrations + (not succeeded),
        migration_history=_bounded(history),
    )


def _bounded(
    history: list[migration_entry.MigrationHistoryEntry],
) -> list[migration_entry.MigrationHistoryEntry]:
    kept = list(history)
    while len(kept) > storage_policy.HISTORY_COUNT_MAX:
        last_index = {entry.volume_name: index for index, entry in enumerate(kept)}
        dispensable = (
            index
            for index, entry in enumerate(kept[:-1])
            if entry.surplus is migration_entry.SurplusName.NONE
            or index != last_index[entry.volume_name]
        )
        del kept[next(dispensable, 0)]
    return kept


def _history_entry(
    record: migration.Record, end: migration.End
) -> migration_entry.MigrationHistoryEntry:
    succeeded = end.ending.outcome in _SUCCESSES
    duration_seconds = max(0.0, end.ending.decided_seconds - record.started_seconds)
    return migration_entry.MigrationHistoryEntry(
        volume_name=record.volume_name,
        migration_id=record.migration_id,
        timestamp=_moment(end.ending.decided_seconds),
        from_tier=_tier_name(record.source_tier),
        to_tier=migration_entry.TierName(record.target_tier.value),
        from_pool=record.source_pool,
        to_pool=record.target_pool,
        trigger_iops=record.trigger_iops,
        duration=f"{duration_seconds:.0f}s",
        success=succeeded,
        outcome=migration_entry.OutcomeName(end.ending.outcome.value),
        step=migration_entry.StepName(record.step.value),
        surplus=migration_entry.SurplusName(end.surplus.value),
        replicas_before=len(record.replicas_at_start),
        source_replica=record.source_replica,
        source_kept=end.source_kept,
        new_replica=record.new_replica,
        error=None if succeeded else _reason(end.ending),
    )


def _reason(ending: migration.Ending) -> str:
    return ending.reason[: migration_entry.REASON_LENGTH_MAX]


def _tier_name(tier: tiers.Tier | None) -> migration_entry.TierName | None:
    return None if tier is None else migration_entry.TierName(tier.value)


def _moment(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, tz=datetime.UTC)
