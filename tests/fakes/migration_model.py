"""A migration, everybody who can interfere with it, and every order in which they can.

Breadth-first over all states that a small cluster can get into within a budget of faults and of
meddling. What is under way at one moment are *acts*: a look at the volume that no record has been
read for yet, or a verdict that has not been carried out yet. An act belongs to nobody: it may be
that of the leader, of one that slept through its lease, or a call that timed out and lands late.
Each may come to nothing at any moment, which is a kill, or a call that is lost. That needs no move
of its own: what has had no effect leaves the state of the order of events in which it never began,
which is visited too.

Everything is interned to small integers: a state is then cheap to hash, and there are many.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import migration_cluster
import migration_promises
import migration_rules

from couchestor_domain import tiers
from couchestor_operator.control import migration, migration_machine, sight

DEADLINE_SECONDS = 50.0
EARLY_SECONDS, LATE_SECONDS = 0.0, 100.0
UNDISTURBED_LOOKS_COUNT_MAX = 8

LOOK, DOING, READ = range(3)
GONE = -1


Act: TypeAlias = tuple[int, bool, int]
"""Kind, whether what it is conditional on is unchanged, and index of what it holds."""


class World(NamedTuple):
    """Everything at one moment; clusters, records and verdicts by index."""

    cluster: int
    record: int
    """GONE once the migration has ended."""
    acts: tuple[Act, ...] = ()
    policy_wants: bool = True
    preservation: bool = False
    faults_left: int = 0
    meddling_left: int = 0
    cache: int = GONE
    cache_is_fresh: bool = False


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
        self._indices: dict[object, int] = {}
        self._objects: list[object] = []
        self._shown: dict[int, int] = {}
        self._moves: dict[tuple[int, bool, bool], list[tuple[int, migration_cluster.Move]]] = {}
        self._decisions: dict[tuple[int, int, bool, bool], tuple[int, ...]] = {}
        self._parents: dict[World, World | None] = {}
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
                for following in self._successors(world):
                    if following not in self._parents:
                        self._parents[following] = world
                        self._check(following)
                        waiting.append(following)
            self._check_that_all_end()
        except migration_promises.Violation as broken:
            message = f"{broken}\n{self._story(world)}"
            raise migration_promises.Violation(message) from broken
        return len(self._parents)

    def _story(self, world: World | None) -> str:
        lines: list[str] = []
        while world is not None:
            step = "ended" if world.record == GONE else self._record(world.record).step.value
            acts = [
                (("look", "doing", "read")[kind], fresh, self._objects[index])
                for kind, fresh, index in world.acts
            ]
            lines.append(f"{step}: {self._cluster(world.cluster)} acts={acts}")
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
            cluster=self._index(migration_cluster.start(self._bounds.replicas_count)),
            record=self._index(record),
            faults_left=self._bounds.faults_count,
            meddling_left=self._bounds.meddling_count,
        )

    def _index(self, thing: object) -> int:
        found = self._indices.get(thing)
        if found is None:
            found = self._indices[thing] = len(self._objects)
            self._objects.append(thing)
        return found

    def _cluster(self, index: int) -> migration_cluster.Cluster:
        found = self._objects[index]
        assert isinstance(found, migration_cluster.Cluster), found
        return found

    def _record(self, index: int) -> migration.Record:
        found = self._objects[index]
        assert isinstance(found, migration.Record), found
        return found

    def _is_write(self, index: int) -> bool:
        return isinstance(self._objects[index], migration.Advance | migration.End)

    def _shown_of(self, cluster: int) -> int:
        found = self._shown.get(cluster)
        if found is None:
            shown = migration_cluster.shown(self._cluster(cluster))
            found = self._shown[cluster] = self._index(shown)
        return found

    # -- what may happen next -------------------------------------------------------------------

    def _successors(self, world: World) -> Iterator[World]:
        for position, (kind, fresh, index) in enumerate(world.acts):
            rest = _acting(world, world.acts[:position] + world.acts[position + 1 :])
            if self._rules.kills_are_moves:
                yield rest
            if kind == DOING:
                yield self._deliver(rest, index)
            elif kind == READ:
                seen = self._shown_of(rest.cluster)
                yield from self._decide(rest, index, seen=seen, fresh=(True, fresh))
            else:
                yield from self._decide(rest, rest.record, seen=index, fresh=(fresh, True))
        if world.record == GONE:
            return
        if len(world.acts) < self._bounds.acts_count:
            yield _with(world, self._first_act(world))
        yield from self._happenings(world)

    def _first_act(self, world: World) -> Act:
        if self._rules.record_read_first:
            return READ, True, world.record
        if not self._rules.looks_are_cached:
            return LOOK, True, self._shown_of(world.cluster)
        cached = self._index(migration_cluster.UNKNOWN) if world.cache == GONE else world.cache
        return LOOK, world.cache_is_fresh, cached

    def _decide(
        self, rest: World, record: int, *, seen: int, fresh: tuple[bool, bool]
    ) -> Iterator[World]:
        """``fresh``: the volume that was looked at, and the record that was read."""
        for index in self._verdicts(rest, record, seen=seen):
            if not self._is_write(index):
                # What is certain to be refused need not be followed.
                if fresh[0] or not self._rules.versions_checked:
                    yield _with(rest, (DOING, fresh[0], index))
                continue
            if fresh[1]:
                yield _with(rest, (DOING, True, index))
            verdict = self._objects[index]
            if self._rules.acts_before_writing and isinstance(verdict, migration.Advance):
                for early in self._verdicts(rest, self._index(verdict.record), seen=seen):
                    if fresh[0] and not self._is_write(early):
                        yield self._deliver(rest, early)

    def _verdicts(self, world: World, record: int, *, seen: int) -> tuple[int, ...]:
        """What is decided before the deadline and past it: clocks may say either at any time."""
        key = (record, seen, world.policy_wants, world.preservation)
        found = self._decisions.get(key)
        if found is None:
            indices: dict[int, None] = {}
            for now_seconds in (EARLY_SECONDS, LATE_SECONDS):
                verdict = self._verdict(world, record, seen=seen, now_seconds=now_seconds)
                if not isinstance(verdict, migration.Wait):
                    indices[self._index(verdict)] = None
            found = self._decisions[key] = tuple(indices)
        return found

    def _verdict(
        self, world: World, record: int, *, seen: int, now_seconds: float
    ) -> migration.Verdict:
        held, cluster, rules = self._record(record), self._cluster(seen), self._rules
        seals = cluster.seals
        if rules.seal_not_awaited or (rules.any_seal_will_do and seals):
            seals = (held.seal,)
        return _without_prose(
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

    # -- carrying out ---------------------------------------------------------------------------

    def _deliver(self, world: World, index: int) -> World:
        verdict = self._objects[index]
        cluster = self._cluster(world.cluster)
        judged = self._rules.history_judged
        if isinstance(verdict, migration.Advance):
            migration_promises.leads_somewhere(verdict.record)
            return self._written(world, record=self._index(verdict.record))
        if isinstance(verdict, migration.End):
            self.ends[verdict] += 1
            if judged:
                migration_promises.history_is_true(cluster, verdict)
            return self._written(world, record=GONE)
        assert isinstance(verdict, migration.Command)
        if not cluster.exists:
            return world
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
        return self._changed(world, self._settled(after))

    def _settled(self, cluster: migration_cluster.Cluster) -> int:
        return self._index(migration_cluster.forgets(cluster))

    def _written(self, world: World, *, record: int) -> World:
        """The policy has another version: whatever else was to be written there is refused."""
        acts = [
            (kind, fresh and kind != READ, index)
            for kind, fresh, index in world.acts
            if not (kind == DOING and self._is_write(index))
            and not (kind == LOOK and record == GONE)
        ]
        return world._replace(record=record, acts=tuple(sorted(acts)))

    def _changed(self, world: World, cluster: int) -> World:
        """The volume has another version: commands decided on the old one are refused."""
        acts: list[Act] = []
        for kind, fresh, index in world.acts:
            if kind == READ or (kind == DOING and self._is_write(index)):
                acts.append((kind, fresh, index))
            elif kind == LOOK or not self._rules.versions_checked:
                acts.append((kind, False, index))
        return world._replace(cluster=cluster, acts=tuple(sorted(acts)), cache_is_fresh=False)

    # -- what others do -------------------------------------------------------------------------

    def _happenings(self, world: World) -> Iterator[World]:
        key = (world.cluster, world.faults_left > 0, world.meddling_left > 0)
        moves = self._moves.get(key)
        if moves is None:
            found = migration_cluster.moves(
                self._cluster(world.cluster),
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
                yield self._changed(spent, after)
            else:
                yield spent._replace(cluster=after)
        if world.meddling_left > 0:
            spent = world._replace(meddling_left=world.meddling_left - 1)
            spent = self._written(spent, record=world.record)
            yield spent._replace(policy_wants=not world.policy_wants)
            yield spent._replace(preservation=not world.preservation)
        if self._rules.looks_are_cached and not world.cache_is_fresh:
            yield world._replace(cache=self._shown_of(world.cluster), cache_is_fresh=True)

    # -- what must hold -------------------------------------------------------------------------

    def _check(self, world: World) -> None:
        cluster = self._cluster(world.cluster)
        migration_promises.copies(cluster, start_count=self._bounds.replicas_count)
        if world.record != GONE and self._rules.history_judged:
            migration_promises.record_tells(cluster, self._record(world.record))

    def _check_that_all_end(self) -> None:
        """One operator, undisturbed and past the deadline, ends what it finds, whatever that is."""
        seen: set[tuple[int, int, bool, bool]] = set()
        for world in self._parents:
            if world.record == GONE:
                continue
            shown = self._shown_of(world.cluster)
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
                    record = self._index(written)
                case migration.Seal(seals=seals):
                    shown = self._index(self._cluster(shown)._replace(seals=seals))
                case verdict:
                    raise migration_promises.Violation(f"past the deadline still {verdict}")
        raise migration_promises.Violation(
            f"does not end: {self._record(record)} over {self._cluster(shown)}"
        )


def _acting(world: World, acts: tuple[Act, ...]) -> World:
    # By position: most of the time goes into this, and `_replace` takes twice as long.
    return World(world[0], world[1], acts, *world[3:])


def _with(world: World, act: Act) -> World:
    return _acting(world, tuple(sorted((*world.acts, act))))


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
