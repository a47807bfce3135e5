"""Carries migrations out, one look and at most one write or command at a time.

Nothing is remembered here between two ticks. Whoever comes next, after a kill or beside this one,
reads the same record and the same cluster and decides the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection

from couchestor_domain import errors, event_publisher, events
from couchestor_operator.control import migration, migration_machine, plan, sight
from couchestor_operator.control import volume as volumes
from couchestor_operator.ports import clock, policy_store, volume_manager

_LOG = logging.getLogger(__name__)


class Migrator:
    """Begins migrations, and brings those under way one step on at each tick.

    Events are published once what they tell of is written: at most once, since a kill between the
    two loses the event and not the migration.

    Args:
        new_id: Makes ids that no migration ever had.
        preservation_mode: Whether the old replica stays beside the new one.
        ticks_count_max: Migrations that are looked at at once.
    """

    def __init__(
        self,
        *,
        manager: volume_manager.VolumeManager,
        policies: policy_store.PolicyStore,
        time: clock.Clock,
        publisher: event_publisher.EventPublisher,
        new_id: Callable[[], str],
        preservation_mode: bool = False,
        ticks_count_max: int = 16,
    ) -> None:
        self._manager = manager
        self._policies = policies
        self._time = time
        self._publisher = publisher
        self._new_id = new_id
        self._preservation_mode = preservation_mode
        self._ticks = asyncio.Semaphore(ticks_count_max)

    async def begin(self, move: plan.Move, *, ended_before: Collection[str] = ()) -> None:
        """Write down that a volume is to move; what is done about it comes with the next tick.

        Args:
            ended_before: Ids of the migrations of the volume that the decision knew to have ended.

        Raises:
            MigrationInProgressError: the volume is being migrated already, under whichever policy,
                or as many volumes are as the policy allows. Another operator can begin the same
                volume under another policy at this very moment: both go on then, and cost each
                other the move and no replica.
            VersionConflictError: the policy has changed since the move was decided, or is gone;
                or a migration of the volume has ended since, which may forbid the move.
            TransientError: there was no answer; the migration may have begun.
        """
        states = {state.name: state for state in await self._states()}
        for other in states.values():
            if other.record_of(move.volume.name) is not None:
                raise errors.MigrationInProgressError(
                    f"volume {move.volume.name} is being migrated under policy {other.name}: "
                    "wait for the end of that",
                    volume=move.volume.name,
                )
            for ended in other.history:
                if ended.volume_name == move.volume.name and (
                    ended.migration_id not in ended_before
                ):
                    raise errors.VersionConflictError(
                        f"a migration of volume {ended.volume_name} has ended under policy "
                        f"{other.name} since this one was decided: decide again",
                        policy=other.name,
                    )
        state = states.get(move.policy.name)
        if state is None or state.policy != move.policy:
            raise errors.VersionConflictError(
                f"policy {move.policy.name} has changed since the move of volume "
                f"{move.volume.name} was decided: decide again",
                policy=move.policy.name,
            )
        # The write is refused if others begin meanwhile, so the limit holds for them all.
        if len(state.records) >= move.policy.migrations_count_max:
            raise errors.MigrationInProgressError(
                f"policy {state.name} has {len(state.records)} migrations under way, as many as "
                "it allows: wait for the end of one",
                policy=state.name,
            )
        record = migration.begun(
            move, migration_id=self._new_id(), now_seconds=self._time.now_seconds()
        )
        await self._policies.begin(state, record)
        self._publisher.publish(
            events.MigrationStarted(
                volume=record.volume_name,
                source_pool=record.source_pool,
                target_pool=record.target_pool,
                target_tier=record.target_tier,
            )
        )

    async def tick_all(self) -> int:
        """Bring every migration one step on; one that cannot be is left for the next time.

        Volumes are only looked at where what the manager has at hand says that it may be of use,
        and past the deadline.

        Returns:
            How many are under way.

        Raises:
            TransientError: what is under way could not be read.
        """
        states = await self._states()
        if not any(state.records for state in states):
            return 0
        fleet = {each.name: each for each in await self._manager.fleet()}
        pools = {each.name: each for each in await self._manager.pools()}
        count = 0
        async with asyncio.TaskGroup() as group:
            for state in states:
                for record in state.records:
                    count += 1
                    volume = fleet.get(record.volume_name)
                    cached = sight.CachedSight(
                        volume=volume,
                        target=pools.get(record.target_pool),
                        record=record,
                        wishes=self._wishes(state, volume),
                        now_seconds=self._time.now_seconds(),
                    )
                    if isinstance(migration_machine.glance(cached), migration.LookAfresh):
                        group.create_task(self._tick_or_leave(state.name, record.volume_name))
        return count

    async def tick(self, policy_name: str, volume_name: str) -> migration.Verdict | None:
        """Look at one migration and do the one thing that is to be done.

        Returns:
            What that was; None if the migration is over or became another one meanwhile.

        Raises:
            VersionConflictError: something was changed by others meanwhile: nothing was done.
            NoSuitablePoolError, MigrationFailedError: the manager refuses; the next looks show
                whether it still does, until the deadline.
            TransientError: there was no answer. What was to be done may be, or may yet be.
        """
        hint = await self._record(policy_name, volume_name)
        if hint is None:
            return None
        look = await self._manager.look(volume_name, pool_name=hint[1].target_pool)
        # Once more, and after the look: see sight.FreshSight.
        found = await self._record(policy_name, volume_name)
        if found is None or found[1].migration_id != hint[1].migration_id:
            return None
        state, record = found
        verdict = migration_machine.decide(
            sight.FreshSight(
                volume=look.volume,
                target=look.target,
                record=record,
                wishes=self._wishes(state, look.volume),
                now_seconds=self._time.now_seconds(),
            )
        )
        await self._carry_out(state, record, verdict=verdict)
        if isinstance(verdict, migration.Advance) and look.volume is not None:
            self._tell_of_step(record, verdict.record, volume=look.volume)
        return verdict

    async def _states(self) -> list[policy_store.PolicyState]:
        names = await self._policies.names()
        return [state for name in names if (state := await self._policies.read(name)) is not None]

    def _wishes(
        self, state: policy_store.PolicyState, volume: volumes.Volume | None
    ) -> sight.Wishes:
        return sight.wishes_of(state.policy, volume, preservation_mode=self._preservation_mode)

    async def _record(
        self, policy_name: str, volume_name: str
    ) -> tuple[policy_store.PolicyState, migration.Record] | None:
        state = await self._policies.read(policy_name)
        record = None if state is None else state.record_of(volume_name)
        return None if state is None or record is None else (state, record)

    async def _tick_or_leave(self, policy_name: str, volume_name: str) -> None:
        async with self._ticks:
            try:
                await self.tick(policy_name, volume_name)
            except (errors.TransientError, errors.MigrationError) as exc:
                _LOG.warning("migration of volume %s waits: %s", volume_name, exc)

    async def _carry_out(
        self,
        state: policy_store.PolicyState,
        record: migration.Record,
        *,
        verdict: migration.Verdict,
    ) -> None:
        match verdict:
            case migration.Wait():
                pass
            case migration.AddReplica():
                await self._manager.add_replica(verdict)
            case migration.RemoveReplica():
                await self._manager.remove_replica(verdict)
            case migration.Seal():
                await self._manager.seal(verdict)
            case migration.Advance(record=written):
                await self._policies.advance(state, written)
            case migration.End():
                await self._policies.end(state, record, end=verdict)
                self._tell_of_end(record, verdict.ending)

    def _tell_of_step(
        self, before: migration.Record, after: migration.Record, *, volume: volumes.Volume
    ) -> None:
        new = volume.replica(after.new_replica or "")
        if new is not None and before.new_replica is None:
            self._publisher.publish(events.ReplicaAdded(volume=volume.name, pool=new.pool))
        outcome = None if after.ending is None else after.ending.outcome
        scales_down = after.step is not before.step and after.step is migration.Step.SCALE_DOWN
        preserves = before.step is migration.Step.WAIT_SYNC and (
            outcome is migration.Outcome.PRESERVED
        )
        if scales_down or preserves:
            now_seconds = self._time.now_seconds()
            self._publisher.publish(
                events.ReplicaSynced(
                    volume=volume.name,
                    pool=after.target_pool,
                    duration_seconds=max(0.0, now_seconds - before.step_since_seconds),
                )
            )
        if outcome is migration.Outcome.COMPLETED:
            removed = events.ReplicaRemoved(volume=volume.name, pool=after.source_pool)
            self._publisher.publish(removed)

    def _tell_of_end(self, record: migration.Record, ending: migration.Ending) -> None:
        volume, step = record.volume_name, record.step.value
        match ending.outcome:
            case migration.Outcome.COMPLETED | migration.Outcome.PRESERVED:
                told: events.DomainEvent = events.MigrationCompleted(
                    volume=volume,
                    target_pool=record.target_pool,
                    duration_seconds=max(0.0, ending.decided_seconds - record.started_seconds),
                )
            case migration.Outcome.ABORTED:
                told = events.MigrationAborted(volume=volume, step=step, reason=ending.reason)
            case migration.Outcome.FAILED:
                told = events.MigrationFailed(volume=volume, step=step, reason=ending.reason)
        self._publisher.publish(told)
