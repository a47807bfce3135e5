"""What must hold whatever happens to a migration; each breach is a Violation that says which."""

from __future__ import annotations

import migration_cluster

from couchestor_operator.control import migration


class Violation(AssertionError):
    """A promise of the machine that some order of events breaks."""


def copies(cluster: migration_cluster.Cluster, *, start_count: int) -> None:
    """No whole copy is missing but those that faults and people took."""
    if cluster.exists and cluster.whole + cluster.lost < start_count:
        raise Violation(f"fewer whole copies than at the start: {cluster}")


def record_tells(cluster: migration_cluster.Cluster, record: migration.Record) -> None:
    """While the operator has asked for a replica, the record says so."""
    if cluster.asked_beside and record.step is migration.Step.ANALYZE:
        raise Violation(f"no record tells of the replica that was asked for: {cluster}")


def is_another_revision(after: migration.Record, before: migration.Record) -> None:
    """A record that is changed has a seal that none before it had."""
    if after.revision != before.revision + 1:
        raise Violation(f"revision {after.revision} follows {before.revision}: {after}")


def removal(
    cluster: migration_cluster.Cluster, command: migration.RemoveReplica, *, start_count: int
) -> None:
    """At the one moment at which the operator takes something away, all that stays is whole."""
    survivors = [copy for copy in cluster.copies if copy.name != migration_cluster.SOURCE]
    if command.replica_id != migration_cluster.SOURCE:
        raise Violation(f"{command} takes another than the source")
    if command.replicas_count != len(survivors):
        raise Violation(f"{command} takes more or less than the source of {cluster}")
    if any(copy.state != migration_cluster.WHOLE for copy in survivors):
        raise Violation(f"the source goes while not all that stay are whole: {survivors}")
    if len(survivors) + cluster.lost < start_count:
        raise Violation(f"the source goes and too few stay: {survivors}")
    if all(copy.home != migration_cluster.TARGET for copy in survivors):
        raise Violation(f"the source goes with nothing in the target pool: {survivors}")


def history_is_true(cluster: migration_cluster.Cluster, end: migration.End) -> None:
    """What is written when a migration ends is so."""
    if not cluster.exists:
        return
    source_is_there = migration_cluster.SOURCE in cluster.names
    completed = end.ending.outcome is migration.Outcome.COMPLETED
    if completed and source_is_there:
        raise Violation(f"Completed, and the source is there: {cluster}")
    if cluster.asked_beside and not completed and end.surplus is migration.Surplus.NONE:
        raise Violation(f"the history tells of no surplus: {cluster}")
    is_leaving = cluster.leaving is not None and len(cluster.copies) > cluster.wanted
    given_up = end.ending.outcome in (migration.Outcome.ABORTED, migration.Outcome.PRESERVED)
    if (end.source_kept or given_up) and (is_leaving or cluster.taken):
        raise Violation(f"the history says that the source stays: {cluster}")


def nothing_after_the_end(command: migration.Command) -> None:
    """Once the record is gone no command may be accepted: nobody would know of what it did."""
    if not isinstance(command, migration.Seal):
        raise Violation(f"{command} was carried out after the end")
