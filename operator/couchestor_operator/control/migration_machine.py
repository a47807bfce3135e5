"""The machine of one migration: what is seen of the cluster in, one verdict out.

    ANALYZE --> SCALE_UP --> WAIT_SYNC --> SCALE_DOWN      each written before it is acted upon
       |            |            |             |
       |            +------------+-------------+--> ending written --> volume sealed --> End
       +---------------------------------------------------------------------------> End

Invariants, explored over every interleaving in ``tests/unit/control/test_migration_model.py``:

1. A verdict either changes the record or commands something, never both. Whatever is commanded
   belongs to a record that was written before, so a kill between two instructions loses nothing.
2. Commands are absolute and name the version of the volume they were decided on. One that comes
   late or twice is refused or changes nothing.
3. Only SCALE_DOWN removes, only the source, and only while the new replica and every other one are
   online and synced in the very look whose version the command names.
4. A record goes only when its volume carries its seal, or is gone: whoever still holds a command of
   the migration holds an older version. What is left behind stands in the verdict that ends it.
5. Past the deadline every migration ends, whatever the cluster does.

Only a fresh look decides: what a cache shows can say no more than that nothing is to be done yet.
"""

from __future__ import annotations

import dataclasses

from couchestor_operator.control import migration, pool, sight
from couchestor_operator.control import volume as volumes


def decide(seen: sight.FreshSight) -> migration.Verdict:
    """What to do about a migration now. Pure: the same sight gives the same verdict."""
    record, volume = seen.record, seen.volume
    if volume is None:
        # Nothing is left that a command could reach: its version names the volume that was.
        return migration.End(
            ending=record.ending or _ending(seen, migration.Outcome.ABORTED, "the volume is gone"),
            surplus=migration.Surplus.NONE,
            source_kept=False,
        )
    if record.ending is not None:
        return _close(seen, volume, decided=record.ending)
    match record.step:
        case migration.Step.ANALYZE:
            return _analyze(seen, volume)
        case migration.Step.SCALE_UP:
            return _scale_up(seen, volume)
        case migration.Step.WAIT_SYNC:
            return _wait_sync(seen, volume)
        case migration.Step.SCALE_DOWN:
            return _scale_down(seen, volume)


def glance(seen: sight.CachedSight) -> migration.Wait | migration.LookAfresh:
    """Whether there may be something to do, by what is at hand. Saves looks and decides nothing."""
    supposed = sight.FreshSight(
        volume=seen.volume,
        target=seen.target,
        record=seen.record,
        wishes=seen.wishes,
        now_seconds=seen.now_seconds,
    )
    verdict = decide(supposed)
    return verdict if isinstance(verdict, migration.Wait) else migration.LookAfresh()


def _analyze(seen: sight.FreshSight, volume: volumes.Volume) -> migration.Verdict:
    record = seen.record
    source = volume.replica(record.source_replica)
    why_not = _why_give_up(seen)
    if why_not is None and source is None:
        why_not = f"the volume has no replica {record.source_replica} any more"
    if why_not is None and source is not None:
        if not volume.is_settled:
            return migration.Wait(reason="not all replicas are online and synced")
        why_not = _why_unfit(seen, volume, source=source)
    if why_not is not None:
        # Nothing was ever commanded, so there is nothing to fence off.
        return _end(record, volume, decided=_ending(seen, migration.Outcome.ABORTED, why_not))
    begun = dataclasses.replace(
        record,
        replicas_at_start=tuple(replica.replica_id for replica in volume.replicas),
        synced_at_start_count=volume.whole_count,
    )
    return migration.advanced(begun, migration.Step.SCALE_UP, now_seconds=seen.now_seconds)


def _scale_up(seen: sight.FreshSight, volume: volumes.Volume) -> migration.Verdict:
    record = seen.record
    start_count = len(record.replicas_at_start)
    if lost := _lost(record, volume):
        return _failed(seen, f"replica {lost} vanished")
    new = _new(record, volume)
    asked = volume.replicas_wanted_count == start_count + 1
    if asked and len(new) == 1:
        grown = dataclasses.replace(record, new_replica=new[0].replica_id)
        return migration.advanced(grown, migration.Step.WAIT_SYNC, now_seconds=seen.now_seconds)
    if new or not (asked or volume.replicas_wanted_count == start_count):
        return _changed(seen, volume)
    if why := _why_give_up(seen):
        return _aborted(seen, why)
    if asked:
        return migration.Wait(reason="the new replica is not there yet")
    source = volume.replica(record.source_replica)
    if source is None:
        return _failed(seen, f"replica {record.source_replica} vanished")
    if unfit := _why_unfit(seen, volume, source=source):
        return _aborted(seen, unfit)
    if not volume.is_settled:
        return migration.Wait(reason="not all replicas are online and synced")
    return migration.AddReplica(
        volume_name=volume.name,
        volume_version=volume.version,
        replicas_count=start_count + 1,
        pool=record.target_pool,
    )


def _wait_sync(seen: sight.FreshSight, volume: volumes.Volume) -> migration.Verdict:
    record = seen.record
    if lost := _lost(record, volume):
        return _failed(seen, f"replica {lost} vanished")
    new = volume.replica(record.new_replica or "")
    if new is None:
        return _failed(seen, "the new replica vanished")
    if new.pool != record.target_pool:
        return _aborted(
            seen, f"the new replica is in pool {new.pool} and not in {record.target_pool}"
        )
    if new.state is volumes.ReplicaState.FAULTED:
        return _failed(seen, "the new replica is faulted")
    together_count = len(record.replicas_at_start) + 1
    if not (volume.replicas_wanted_count == len(volume.replicas) == together_count):
        return _changed(seen, volume)
    if why := _why_give_up(seen):
        return _aborted(seen, why)
    if not volume.is_settled:
        return migration.Wait(reason="not all replicas are online and synced")
    if seen.wishes.preservation_mode:
        return _preserved(seen)
    return migration.advanced(record, migration.Step.SCALE_DOWN, now_seconds=seen.now_seconds)


def _scale_down(seen: sight.FreshSight, volume: volumes.Volume) -> migration.Verdict:
    record = seen.record
    start_count = len(record.replicas_at_start)
    source = volume.replica(record.source_replica)
    removal_accepted = volume.replicas_wanted_count == start_count
    if volume.replica(record.new_replica or "") is None:
        return _failed(seen, "the new replica vanished")
    if source is None and removal_accepted:
        return _to_end(seen, migration.Outcome.COMPLETED, _moved(record))
    if lost := _lost(record, volume):
        return _failed(seen, f"replica {lost} vanished")
    if removal_accepted:
        # Taking it back could cost a whole replica if it is under way: only time ends this.
        if _is_over(seen):
            return _failed(seen, "the removal of the old replica was accepted and not carried out")
        return migration.Wait(reason="the old replica is being removed")
    if not (volume.replicas_wanted_count == len(volume.replicas) == start_count + 1):
        return _changed(seen, volume)
    if why := _why_give_up(seen):
        return _aborted(seen, why)
    if seen.wishes.preservation_mode:
        return _preserved(seen)
    survivors = [each for each in volume.replicas if each.replica_id != record.source_replica]
    whole_count = sum(each.is_whole for each in survivors)
    # The record stands where people can edit it: no number in it may allow a loss.
    needed_count = max(1, len(survivors), record.synced_at_start_count)
    if whole_count < needed_count:
        return migration.Wait(reason="not all replicas that stay are online and synced")
    return migration.RemoveReplica(
        volume_name=volume.name,
        volume_version=volume.version,
        replicas_count=start_count,
        replica_id=record.source_replica,
    )


def _close(
    seen: sight.FreshSight, volume: volumes.Volume, *, decided: migration.Ending
) -> migration.Verdict:
    record = seen.record
    if _is_overtaken(record, volume, decided=decided):
        return migration.ending(record, None)
    if record.seal in volume.seals:
        return _end(record, volume, decided=decided)
    moved = decided.outcome in (migration.Outcome.COMPLETED, migration.Outcome.PRESERVED)
    return migration.Seal(
        volume_name=volume.name,
        volume_version=volume.version,
        seals=(*volume.seals, record.seal)[-migration.SEALS_COUNT_MAX :],
        moved_to=record.target_tier if moved else None,
        ended_seconds=decided.decided_seconds,
    )


def _is_overtaken(
    record: migration.Record, volume: volumes.Volume, *, decided: migration.Ending
) -> bool:
    """Whether a removal that was on its way when the ending was written has come first.

    The step then decides again, by what there is now: it never gives up what was removed.
    """
    if record.step is not migration.Step.SCALE_DOWN:
        return False
    removal_accepted = volume.replicas_wanted_count == len(record.replicas_at_start)
    new_is_there = volume.replica(record.new_replica or "") is not None
    source_is_there = volume.replica(record.source_replica) is not None
    match decided.outcome:
        case migration.Outcome.COMPLETED:
            return False
        case migration.Outcome.FAILED:
            return removal_accepted and new_is_there and not source_is_there
        case migration.Outcome.ABORTED | migration.Outcome.PRESERVED:
            return not source_is_there or (removal_accepted and new_is_there)


def _end(
    record: migration.Record, volume: volumes.Volume, *, decided: migration.Ending
) -> migration.End:
    surplus = migration.Surplus.NONE
    if record.step is not migration.Step.ANALYZE and (
        decided.outcome is not migration.Outcome.COMPLETED
    ):
        if _new(record, volume):
            surplus = migration.Surplus.KEPT
        elif volume.replicas_wanted_count > len(record.replicas_at_start):
            surplus = migration.Surplus.ASKED
    removal_accepted = (
        record.step is migration.Step.SCALE_DOWN
        and volume.replicas_wanted_count <= len(record.replicas_at_start)
    )
    source_is_there = volume.replica(record.source_replica) is not None
    if removal_accepted and decided.outcome is migration.Outcome.FAILED:
        fate = "may still go" if source_is_there else "is gone"
        decided = dataclasses.replace(
            decided, reason=f"{decided.reason}; replica {record.source_replica} {fate}"
        )
    return migration.End(
        ending=decided, surplus=surplus, source_kept=source_is_there and not removal_accepted
    )


def _is_over(seen: sight.FreshSight) -> bool:
    record = seen.record
    # A clock that went back must not make a migration endless.
    timeout_seconds = record.deadline_seconds - record.started_seconds
    earliest_seconds = record.started_seconds - timeout_seconds
    return not earliest_seconds <= seen.now_seconds < record.deadline_seconds


def _why_give_up(seen: sight.FreshSight) -> str | None:
    if not seen.wishes.is_wanted:
        return "the policy no longer asks for the move"
    if _is_over(seen):
        return f"timed out in {seen.record.step.value}"
    return None


def _why_unfit(
    seen: sight.FreshSight, volume: volumes.Volume, *, source: volumes.Replica
) -> str | None:
    if seen.target is None:
        return f"pool {seen.record.target_pool} is gone"
    reason = pool.why_unfit(seen.target, volume=volume, source=source)
    return None if reason is None else f"pool {seen.record.target_pool} {reason}"


def _lost(record: migration.Record, volume: volumes.Volume) -> str | None:
    for replica_id in record.replicas_at_start:
        if volume.replica(replica_id) is None:
            return replica_id
    return None


def _new(record: migration.Record, volume: volumes.Volume) -> list[volumes.Replica]:
    return [each for each in volume.replicas if each.replica_id not in record.replicas_at_start]


def _ending(seen: sight.FreshSight, outcome: migration.Outcome, reason: str) -> migration.Ending:
    return migration.Ending(outcome=outcome, reason=reason, decided_seconds=seen.now_seconds)


def _to_end(seen: sight.FreshSight, outcome: migration.Outcome, reason: str) -> migration.Advance:
    return migration.ending(seen.record, _ending(seen, outcome, reason))


def _moved(record: migration.Record) -> str:
    return f"moved from pool {record.source_pool} to {record.target_pool}"


def _preserved(seen: sight.FreshSight) -> migration.Advance:
    return _to_end(
        seen,
        migration.Outcome.PRESERVED,
        "preservation mode keeps the old replica beside the new one",
    )


def _changed(seen: sight.FreshSight, volume: volumes.Volume) -> migration.Advance:
    return _aborted(
        seen,
        f"someone else changed the replicas: {len(volume.replicas)} are there and "
        f"{volume.replicas_wanted_count} are wanted",
    )


def _aborted(seen: sight.FreshSight, reason: str) -> migration.Advance:
    return _to_end(seen, migration.Outcome.ABORTED, reason)


def _failed(seen: sight.FreshSight, reason: str) -> migration.Advance:
    return _to_end(seen, migration.Outcome.FAILED, reason)
