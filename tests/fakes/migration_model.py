"""A migration, everybody who can interfere with it, and every order in which they can.

Breadth-first over all states that a small cluster can get into within a budget of faults and of
meddling. What is under way at one moment are *acts*: a look at the volume that no record has been
read for yet, or a command that has not been carried out yet. An act belongs to nobody: it may be
that of the leader, of one that slept through its lease, or a call that timed out and lands late.
Each may come to nothing at any moment, which is a kill, or a call that is lost. That needs no move
of its own: what has had no effect leaves the state of the order of events in which it never began,
which is visited too.

Three things make many orders of events one, none of which loses a state of the cluster and the
record, nor a verdict that is carried out there:

- An act that could as well begin now is not under way yet. It begins when it has an effect, or
  right before an event after which it could not begin any more: only what is left over from before
  is part of a state.
- A write of the record is one act with the reading of it and with the verdict between, for it is
  refused when the policy has changed since.
- Of a revision, and of a seal, only matters whether it is the present one: all earlier ones are
  the same. `_check_that_nothing_returns` takes the place of counting them.

Everything is interned to small integers: a state is then cheap to hash, and there are many.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import migration_cluster
import migration_objects
import migration_promises
import migration_rules
import migration_world
from migration_world import DOING, GONE, LOOK, READ, Act, Event, World

from couchestor_domain import tiers
from couchestor_operator.control import migration, migration_machine, sight

DEADLINE_SECONDS = 50.0
EARLY_SECONDS, LATE_SECONDS = 0.0, 100.0
UNDISTURBED_LOOKS_COUNT_MAX = 8


class Model:
    """Explores one configuration."""

    def __init__(
        self,
        bounds: migration_rules.Bounds,
        *,
        rules: migration_rules.Rules = migration_rules.STRICT,
    ) -> None:
        self._bounds = bounds
        self._rules = rules
        self._objects = migration_objects.Objects(outdated_seals_matter=rules.any_seal_will_do)
        self._moves: dict[tuple[int, bool, bool], list[tuple[int, migration_cluster.Move]]] = {}
        self._decisions: dict[tuple[int, int, bool, bool], tuple[int, ...]] = {}
        self._known_prospects: dict[
            tuple[Act, int, int, bool, bool],
            tuple[tuple[int, ...], tuple[Act, ...]],
        ] = {}
        self._parents: dict[World, World | None] = {}
        self._following: dict[World, tuple[World, ...]] = {}
        self.ends: collections.Counter[migration.End] = collections.Counter()
        """What was written at the end, without its reasons, by how many orders of events."""

    # -- exploring ------------------------------------------------------------------------------

    def explore(self) -> int:
        """Visit every state.

        Returns:
            How many there are.

        Raises:
            migration_promises.Violation: with the shortest story that leads to it.
        """
        start = self._start()
        self._parents[start] = None
        waiting = collections.deque([start])
        world = start
        try:
            while waiting:
                world = waiting.popleft()
                self._following[world] = tuple(dict.fromkeys(self._successors(world)))
                for following in self._following[world]:
                    if following not in self._parents:
                        self._parents[following] = world
                        self._check(following)
                        waiting.append(following)
            world = start
            self._check_that_nothing_returns()
            self._check_that_all_end()
        except migration_promises.Violation as broken:
            message = f"{broken}\n{self._story(world)}"
            raise migration_promises.Violation(message) from broken
        return len(self._parents)

    def _story(self, world: World | None) -> str:
        lines: list[str] = []
        while world is not None:
            step = (
                "ended" if world.record == GONE else self._objects.record(world.record).step.value
            )
            acts = [
                (("look", "doing", "read")[kind], fresh, self._objects[index])
                for kind, fresh, index in world.acts
            ]
            lines.append(f"{step}: {self._objects.cluster(world.cluster)} acts={acts}")
            world = self._parents[world]
        return "\n".join(reversed(lines))

    def _start(self) -> World:
        record = migration.Record(
            migration_id="m",
            volume_name="v",
            source_tier=tiers.Tier.COLD,
            target_tier=tiers.Tier.HOT,
            source_replica=migration_cluster.SOURCE,
            source_pool="old-0",
            target_pool=migration_cluster.TARGET,
            started_seconds=0.0,
            step_since_seconds=0.0,
            deadline_seconds=DEADLINE_SECONDS,
            trigger_iops=9000.0,
        )
        return World(
            cluster=self._objects.index(migration_cluster.start(self._bounds.replicas_count)),
            record=self._objects.index(record),
            faults_left=self._bounds.faults_count,
            meddling_left=self._bounds.meddling_count,
        )

    # -- what may happen next -------------------------------------------------------------------

    def _successors(self, world: World) -> Iterator[World]:
        if self._rules.kills_are_moves:
            for position in range(len(world.acts)):
                yield migration_world.acting(
                    world, world.acts[:position] + world.acts[position + 1 :]
                )
        for event in self._events(world):
            yield from self._followed(world, event)

    def _events(self, world: World) -> Iterator[Event]:
        free_count = self._bounds.acts_count - len(world.acts)
        for position, act in enumerate(world.acts):
            others = world.acts[:position] + world.acts[position + 1 :]
            for index in self._accepted(world, act):
                event = self._carried_out(world, index)
                yield event._replace(acts=others, free_count=free_count)
        if world.record == GONE:
            return
        if free_count > 0:
            for index in self._accepted(world, self._first_act(world)):
                event = self._carried_out(world, index)
                yield event._replace(acts=world.acts, free_count=free_count - 1)
        for event in self._happenings(world):
            yield event._replace(acts=world.acts, free_count=free_count)

    def _first_act(self, world: World) -> Act:
        if self._rules.record_read_first:
            return READ, True, world.record
        if not self._rules.looks_are_cached:
            return LOOK, True, self._objects.shown_of(world.cluster)
        cached = (
            self._objects.index(migration_cluster.UNKNOWN) if world.cache == GONE else world.cache
        )
        return LOOK, world.cache_is_fresh, cached

    def _accepted(self, world: World, act: Act) -> tuple[int, ...]:
        """What can come of an act now: verdicts that are not refused when they are carried out."""
        return self._prospects(world, act)[0]

    def _under_way(self, world: World, act: Act) -> tuple[Act, ...]:
        """The act, and commands that may have come of it by now and are not carried out yet."""
        return self._prospects(world, act)[1]

    def _prospects(self, world: World, act: Act) -> tuple[tuple[int, ...], tuple[Act, ...]]:
        # By position, as in `_acting`: the world without its acts and what is left to others.
        key = (act, world[0], world[1], world[3], world[4])
        found = self._known_prospects.get(key)
        if found is None:
            accepted = tuple(self._accepting(world, act))
            commands: tuple[Act, ...] = ()
            if act[0] != DOING:
                commands = tuple(
                    (DOING, True, index) for index in accepted if not self._objects.is_write(index)
                )
            found = self._known_prospects[key] = (accepted, (act, *commands))
        return found

    def _accepting(self, world: World, act: Act) -> Iterator[int]:
        kind, fresh, index = act
        exists = self._objects.cluster(world.cluster).exists
        if kind == DOING:
            if exists:
                yield index
            return
        if kind == READ:
            record, seen = index, self._objects.shown_of(world.cluster)
            volume_fresh, record_fresh = True, fresh
        else:
            record, seen = world.record, index
            volume_fresh, record_fresh = fresh, True
        commands = exists and (volume_fresh or not self._rules.versions_checked)
        for verdict in self._verdicts(world, record, seen=seen):
            if record_fresh if self._objects.is_write(verdict) else commands:
                yield verdict

    def _possible(self, world: World) -> tuple[Act, ...]:
        """The acts that may be under way without having been begun before now."""
        return () if world.record == GONE else self._under_way(world, self._first_act(world))

    def _followed(self, world: World, event: Event) -> Iterator[World]:
        """The world after an event, with each choice of what is left from before it."""
        nothing_new = self._possible(event.after)
        kept = [
            dict.fromkeys(self._aged(each, event, nothing_new) for each in under_way)
            for under_way in (self._under_way(world, act) for act in event.acts)
        ]
        begun: dict[Act | None, None] = {}
        if event.free_count > 0:
            begun = dict.fromkeys(
                self._aged(each, event, nothing_new) for each in self._possible(world)
            )
            begun.pop(None, None)
        for old in itertools.product(*kept):
            for count in range(event.free_count + 1):
                for new in itertools.combinations_with_replacement(begun, count):
                    acts = [act for act in (*old, *new) if act is not None]
                    yield migration_world.acting(event.after, tuple(sorted(acts)))

    def _aged(
        self,
        act: Act,
        event: Event,
        nothing_new: Sequence[Act],
    ) -> Act | None:
        """An act after an event; None if it can have no effect that one begun now has not."""
        kind, fresh, index = act
        if event.record_changed and kind != READ:
            index = self._objects.outdated(index)
        stale = event.volume_changed and self._rules.versions_checked
        if kind == LOOK:
            if event.after.record == GONE or (LOOK, True, index) in nothing_new:
                return None
            act = (LOOK, fresh and not stale, index)
        elif kind == READ:
            act = (READ, fresh and not event.policy_changed, index)
        elif stale:
            return None
        else:
            act = (DOING, True, index)
        return None if act in nothing_new else act

    def _verdicts(self, world: World, record: int, *, seen: int) -> tuple[int, ...]:
        """What is decided before the deadline and past it: clocks may say either at any time."""
        key = (record, seen, world.policy_wants, world.preservation)
        found = self._decisions.get(key)
        if found is None:
            indices: dict[int, None] = {}
            for now_seconds in (EARLY_SECONDS, LATE_SECONDS):
                verdict = self._verdict(world, record, seen=seen, now_seconds=now_seconds)
                if not isinstance(verdict, migration.Wait):
                    indices[self._objects.index(verdict)] = None
                if self._rules.acts_before_writing and isinstance(verdict, migration.Advance):
                    written = self._objects.index(verdict.record)
                    early = self._verdict(world, written, seen=seen, now_seconds=now_seconds)
                    if isinstance(early, migration.Command):
                        indices[self._objects.index(early)] = None
            found = self._decisions[key] = tuple(indices)
        return found

    def _verdict(
        self, world: World, record: int, *, seen: int, now_seconds: float
    ) -> migration.Verdict:
        held, cluster, rules = (
            self._objects.record(record),
            self._objects.cluster(seen),
            self._rules,
        )
        seals = cluster.seals
        if rules.seal_not_awaited or (rules.any_seal_will_do and seals):
            seals = (held.seal,)
        verdict = _without_prose(
            migration_machine.decide(
                sight.FreshSight(
                    volume=migration_cluster.volume_of(
                        cluster, seals=seals, all_seem_whole=rules.all_seem_whole
                    ),
                    target=migration_cluster.target_of(cluster),
                    record=held,
                    wishes=sight.Wishes(
                        is_wanted=world.policy_wants, preservation_mode=world.preservation
                    ),
                    now_seconds=now_seconds,
                )
            )
        )
        if isinstance(verdict, migration.Advance):
            migration_promises.is_another_revision(verdict.record, held)
            verdict = migration.Advance(record=dataclasses.replace(verdict.record, revision=0))
        return verdict

    # -- carrying out ---------------------------------------------------------------------------

    def _carried_out(self, world: World, index: int) -> Event:
        verdict = self._objects[index]
        cluster = self._objects.cluster(world.cluster)
        judged = self._rules.history_judged
        if isinstance(verdict, migration.Advance):
            world = world._replace(cluster=self._objects.outdated(world.cluster))
            record = self._objects.index(verdict.record)
            return migration_world.written(world, record=record)._replace(record_changed=True)
        if isinstance(verdict, migration.End):
            self.ends[verdict] += 1
            if judged:
                migration_promises.history_is_true(cluster, verdict)
            world = world._replace(cluster=self._objects.outdated(world.cluster))
            return migration_world.written(world, record=GONE)._replace(record_changed=True)
        assert isinstance(verdict, migration.Command)
        if world.record == GONE and judged:
            migration_promises.nothing_after_the_end(verdict)
        match verdict:
            case migration.Seal(seals=seals):
                after = cluster._replace(seals=seals)
            case migration.AddReplica(replicas_count=count):
                beside = cluster.asked_beside or cluster.names
                after = cluster._replace(wanted=count, leaving=None, asked_beside=beside)
            case migration.RemoveReplica(replicas_count=count, replica_id=replica_id):
                after = cluster._replace(wanted=count, leaving=None)
                if not self._rules.manager_chooses:
                    start_count = self._bounds.replicas_count
                    migration_promises.removal(cluster, verdict, start_count=start_count)
                    after = after._replace(leaving=replica_id)
        return migration_world.changed(world, self._settled(after))

    def _settled(self, cluster: migration_cluster.Cluster) -> int:
        # More than all that there were at the start need not be counted.
        lost = min(cluster.lost, self._bounds.replicas_count)
        return self._objects.index(migration_cluster.forgets(cluster._replace(lost=lost)))

    # -- what others do -------------------------------------------------------------------------

    def _happenings(self, world: World) -> Iterator[Event]:
        key = (world.cluster, world.faults_left > 0, world.meddling_left > 0)
        moves = self._moves.get(key)
        if moves is None:
            found = migration_cluster.moves(
                self._objects.cluster(world.cluster),
                may_fault=key[1],
                may_meddle=key[2],
                manager_chooses=self._rules.manager_chooses,
            )
            moves = self._moves[key] = [(self._settled(move.after), move) for move in found]
        for after, move in moves:
            spent = world._replace(
                faults_left=world.faults_left - move.fault,
                meddling_left=world.meddling_left - move.meddling,
            )
            if move.bumps_version:
                yield migration_world.changed(spent, after)
            else:
                yield Event(spent._replace(cluster=after))
        if world.meddling_left > 0:
            spent = world._replace(meddling_left=world.meddling_left - 1)
            for other in (
                spent._replace(policy_wants=not world.policy_wants),
                spent._replace(preservation=not world.preservation),
            ):
                yield migration_world.written(other, record=world.record)
        if self._rules.looks_are_cached and not world.cache_is_fresh:
            cache = self._objects.shown_of(world.cluster)
            yield Event(world._replace(cache=cache, cache_is_fresh=True))

    # -- what must hold -------------------------------------------------------------------------

    def _check(self, world: World) -> None:
        cluster = self._objects.cluster(world.cluster)
        migration_promises.copies(cluster, start_count=self._bounds.replicas_count)
        if world.record != GONE and self._rules.history_judged:
            migration_promises.record_tells(cluster, self._objects.record(world.record))

    def _check_that_all_end(self) -> None:
        """One operator, undisturbed and past the deadline, ends what it finds, whatever that is."""
        seen: set[tuple[int, int, bool, bool]] = set()
        for world in self._parents:
            if world.record == GONE:
                continue
            shown = self._objects.shown_of(world.cluster)
            key = (world.record, shown, world.policy_wants, world.preservation)
            if key not in seen:
                seen.add(key)
                self._check_that_it_ends(world, shown=shown)

    def _check_that_it_ends(self, world: World, *, shown: int) -> None:
        record = world.record
        for _ in range(UNDISTURBED_LOOKS_COUNT_MAX):
            match self._verdict(world, record, seen=shown, now_seconds=LATE_SECONDS):
                case migration.End():
                    return
                case migration.Advance(record=written):
                    record, shown = self._objects.index(written), self._objects.outdated(shown)
                case migration.Seal(seals=seals):
                    shown = self._objects.index(self._objects.cluster(shown)._replace(seals=seals))
                case verdict:
                    raise migration_promises.Violation(f"past the deadline still {verdict}")
        raise migration_promises.Violation(
            f"does not end: {self._objects.record(record)} over {self._objects.cluster(shown)}"
        )

    def _check_that_nothing_returns(self) -> None:
        """No order of events leads back to where it was: so none goes on for ever."""
        before_count: collections.Counter[World] = collections.Counter()
        for reached in self._following.values():
            before_count.update(reached)
        waiting = [world for world in self._following if before_count[world] == 0]
        for world in waiting:
            for following in self._following[world]:
                before_count[following] -= 1
                if before_count[following] == 0:
                    waiting.append(following)
        if len(waiting) < len(self._following):
            world = next(each for each in self._following if before_count[each] > 0)
            raise migration_promises.Violation(f"goes round in circles: {self._story(world)}")


def _without_prose(verdict: migration.Verdict) -> migration.Verdict:
    """Without reasons and times, which tell people something: states that differ only there are
    one."""
    match verdict:
        case migration.Advance(record=record):
            ending = None if record.ending is None else _plain(record.ending)
            record = dataclasses.replace(record, step_since_seconds=0.0, ending=ending)
            return migration.Advance(record=record)
        case migration.End(ending=ending):
            return dataclasses.replace(verdict, ending=_plain(ending))
        case migration.Seal():
            return dataclasses.replace(verdict, ended_seconds=0.0)
        case _:
            return verdict


def _plain(ending: migration.Ending) -> migration.Ending:
    return dataclasses.replace(ending, reason="", decided_seconds=0.0)
