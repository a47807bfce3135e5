"""A node as ``app.node`` wires it, over simulated devices and an index in memory, on one loop.

Everything that runs on a thread in the daemon runs here as a callback of its own, so that what
threads interleave the virtual loop interleaves. The worker processes share the index and the
devices and nothing else; a crash ends all of them at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import enum
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, cast

from tests.simulation import stalled_commands, virtual_loop

from couchestor_daemon import buffers
from couchestor_daemon.adapters import codec_choice, memory_index, simulated_device
from couchestor_daemon.formats import media_records
from couchestor_daemon.ports import device as device_port
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.ports import media as media_port
from couchestor_daemon.services import (
    background,
    body_writer,
    checkpoints,
    commit_log,
    compression,
    departures,
    destage,
    evacuation,
    extent_reader,
    group_commit,
    group_source,
    hedging,
    member_moves,
    node_store,
    payload_reader,
    places_in_use,
    rebuild,
    reclaim,
    recovery_table,
    release,
    relocation,
    repair_tools,
    replay,
    room_outlook,
    room_wait,
    scrub,
    segment_source,
    stranded_groups,
    stripe_groups,
    stripe_reader,
    writer_slots,
    zone_grace,
)
from couchestor_domain import errors, events, geometry, ids, units

WORKERS_COUNT: Final = 2
POOL_BYTES: Final = 16 * units.MIB
LEASE_BYTES: Final = units.GIB
OPEN_GROUPS_MAX: Final = 2
PLACES_KEPT_SECONDS: Final = 10e-3
GRACE_SECONDS: Final = PLACES_KEPT_SECONDS * zone_grace.GRACE_PER_PLACES_KEPT
RELEASE_GRACE_SECONDS = GRACE_SECONDS
READS_ENDED_SECONDS: Final = 1e-3
CHECKPOINT_LOG_BYTES: Final = 96 * units.KIB
CHECKPOINT_SECONDS: Final = 2e-3
RETRY_SECONDS: Final = 2e-3
COMPRESSION_SAVING_PERCENT: Final = 10
"""The bodies of clients repeat themselves: some payloads save so much, others do not."""
DESTAGE_LIMITS: Final = destage.DestageLimits(log_bytes=0, age_seconds=1e-3, idle_seconds=2e-3)
RECLAIM_LIMITS: Final = reclaim.ReclaimLimits(dead_percent=20, free_percent=50)
MOVE_LIMITS: Final = member_moves.Limits(gap_percent=6, dead_percent=90)
"""What reclaim empties may be on the move, too."""
PACE_SECONDS_PER_BYTE: Final = 1e-9
POLL_FACTOR: Final = 2e-3
REBUILD_DELAY_SECONDS: Final = 10e-3
REBUILD_LOOK_SECONDS: Final = 2e-3
SCRUB_PERIOD_SECONDS: Final = 20e-3
ROOM_WAIT_SECONDS: Final = 10e-3
ROOM_POLL_SECONDS: Final = 0.2e-3
NODE_ID: Final = ids.NodeId("a" * 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a node is built of: small, so that zones fill and groups roll over within a run."""

    coding: geometry.StripeGeometry
    devices_count: int
    zone_count: int
    zone_bytes: int
    stripe_bytes: int
    journal_threshold_bytes: int
    reserve_zones_count: int

    @property
    def replicas_count(self) -> int:
        """Copies of the log."""
        return self.coding.parity_shards + 1


class IndexLoss(enum.Enum):
    """What a crash leaves of the live index."""

    KEPT = "kept"
    LOST = "lost"


class WorkerCrash(BaseException):
    """One process is dead; not an Exception, so that nothing under test can handle it."""


class Silence:
    """Events are not what is tested here."""

    def publish(self, event: events.DomainEvent) -> None:
        """Drop it."""


class RepairEvents:
    """Tells of the repairs that a run has seen.

    Args:
        node: Keeps them in the story of the seed.
    """

    def __init__(self, node: SimulatedNode) -> None:
        self._node = node

    def publish(self, event: events.DomainEvent) -> None:
        """Keep what says something of a repair."""
        if isinstance(event, events.ReconstructionCompleted):
            self._node.happened(f"rebuilt {event.group_id}")
        elif isinstance(event, events.ReconstructionFailed):
            self._node.happened(f"not-rebuilt {event.group_id}: {event.reason}")
        elif isinstance(event, events.ShardFailed):
            self._node.happened(f"scrub-found {event.group_id}+{event.stripe_offset_bytes}")


class MoveEvents:
    """Tells of the members that have moved.

    Args:
        happened: Told of each.
    """

    def __init__(self, happened: Callable[[str], None]) -> None:
        self._happened = happened

    def publish(self, event: events.DomainEvent) -> None:
        """A zone that is full has become a member."""
        if isinstance(event, events.ZoneClosed):
            self._happened(f"copied-member {event.owner_id}")


async def _unpaced(bytes_count: int) -> None:
    await asyncio.sleep(0)


class LoopClock:
    """Virtual time, of one life."""

    def now_ns(self) -> int:
        """A wall clock that goes back at each start: the scrub must bear it."""
        return int(asyncio.get_running_loop().time() * units.NS_PER_SECOND)

    def monotonic_seconds(self) -> float:
        """Since the life began."""
        return asyncio.get_running_loop().time()


class _MortalWriter:
    """A writing transaction of a process that dies with its world, also just before the commit."""

    def __init__(self, index: MortalIndex, inner: index_port.IndexWriter) -> None:
        self._index = index
        self._inner = inner

    def get(self, key: bytes) -> bytes | None:
        return self._inner.get(key)

    def scan(
        self, start: bytes, stop: bytes, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        return self._inner.scan(start, stop, reverse=reverse)

    def put(self, key: bytes, value: bytes) -> None:
        self._inner.put(key, value)

    def delete(self, key: bytes) -> bool:
        return self._inner.delete(key)

    def commit(self) -> None:
        self._index.before_commit()
        self._inner.commit()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._inner.__exit__(kind, exc, trace)


class MortalIndex:
    """The index of one life: a commit is a command at which the world may end.

    Args:
        on_commit: Called before each commit; what it raises is the end of the process.
    """

    def __init__(
        self,
        world: simulated_device.SimulatedWorld,
        inner: memory_index.MemoryIndex,
        on_commit: Callable[[], None] = lambda: None,
    ) -> None:
        self._world = world
        self._inner = inner
        self._on_commit = on_commit

    def before_commit(self) -> None:
        """The batch is on the log and the index does not show it yet."""
        self._world.count_command(lambda power_lost: None)
        self._on_commit()

    def read(self) -> index_port.IndexReader:
        self._world.check_running()
        return self._inner.read()

    def write(self) -> index_port.IndexWriter:
        self._world.check_running()
        return _MortalWriter(self, self._inner.write())

    def next_sequence(self, floor: int) -> int:
        return self._inner.next_sequence(floor)

    def sync(self) -> None:
        """Process crashes keep it, power loss takes it: there is no third case here."""

    def close(self) -> None:
        """Nothing to release."""


class SimulatedMedia(stalled_commands.StallingMedia):
    """Sets of writes end in any order, as on threads.

    Args:
        shuffle: Draws the order in which the commit thread's writes are carried out.
    """

    def __init__(
        self,
        devices: Mapping[ids.DeviceId, device_port.ZonedDevice],
        stalls: stalled_commands.Stalls,
        shuffle: Callable[[Sequence[media_port.ZoneWrite]], Sequence[media_port.ZoneWrite]],
    ) -> None:
        super().__init__(devices, stalls)
        self._shuffle = shuffle

    def write_all_blocking(
        self, writes: Sequence[media_port.ZoneWrite]
    ) -> list[errors.DeviceError]:
        return super().write_all_blocking(self._shuffle(writes))

    async def write_all(
        self, writes: Sequence[media_port.ZoneWrite], *, durable: bool
    ) -> list[errors.DeviceError]:
        ended = await asyncio.gather(
            *(self.write(zone, offset, data, durable=durable) for zone, offset, data in writes),
            return_exceptions=True,
        )
        failures: list[errors.DeviceError] = []
        for outcome in ended:
            if isinstance(outcome, errors.DeviceError):
                failures.append(outcome)
            elif outcome is not None:
                raise outcome
        return failures


class Process:
    """One process of the node: ``app.node.Node`` without threads.

    Args:
        writer: Its slot.
        reserve_share_count: Zones that its stripe groups may take out of the reserve.
    """

    def __init__(self, node: SimulatedNode, writer: str, *, reserve_share_count: int = 0) -> None:
        self._node = node
        self.name = writer
        self._writer = writer
        self._shape = node.shape
        self.index = MortalIndex(node.world, node.index, self._die_if_told)
        self.dies_at_commit = False
        """Whether this process dies at its next commit, before the index shows the batch."""
        self.media = SimulatedMedia(node.present_devices(), node.stalls, node.in_any_order)
        self._pool = buffers.BufferPool(POOL_BYTES)
        self._log = commit_log.CommitLog(
            writer=self._writer,
            index=self.index,
            media=self.media,
            pool=self._pool,
            replicas_count=self._shape.replicas_count,
            reserve_zones_count=self._shape.reserve_zones_count,
            publisher=Silence(),
            draw_seed=node.draw_bits,
        )
        self._room = room_wait.RoomWait(
            self._room_outlook,
            clock=LoopClock(),
            seconds_max=ROOM_WAIT_SECONDS,
            poll_seconds=ROOM_POLL_SECONDS,
        )
        room = None if reserve_share_count else self._room
        self.commits = group_commit.GroupCommit(self._run_commit, room)
        self.groups = stripe_groups.StripeGroups(
            writer=self._writer,
            wanted=self._shape.coding,
            open_groups_max=OPEN_GROUPS_MAX,
            reserve_zones_count=self._shape.reserve_zones_count,
            reserve_share_count=reserve_share_count,
            media=self.media,
            index=self.index,
            pool=self._pool,
            choose_codec=lambda found: codec_choice.choose("rs", found),
            submit=self.commits.submit,
            run_codec=self._run_inline,
            run_blocking=self._run_inline,
            publisher=Silence(),
            room=room,
        )
        self.stripes = stripe_reader.StripeReader(
            self.media,
            codecs=codec_choice.by_id,
            publisher=Silence(),
            on_damage=self._queue_repair,
            run_codec=self._run_inline,
            slow_reads=hedging.Hedging(asyncio.get_running_loop().time),
        )
        self.death: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when this process has died alone."""

    def die(self) -> None:
        """End this process alone, where it stands."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, virtual_loop.VirtualLoop), loop
        loop.kill(self)
        # It is gone only when its last command is; its slot is empty until then.
        self._node.stalls.process_ended(self.media)
        self.death.set_result(None)

    def _die_if_told(self) -> None:
        if self.dies_at_commit:
            self.die()
            raise WorkerCrash

    async def _room_outlook(self) -> room_outlook.RoomOutlook:
        with self.index.read() as reader:
            return room_outlook.look(reader, zone_capacity_bytes=self._shape.zone_bytes)

    async def _run_commit(self, gather: commit_log.Gather) -> None:
        await asyncio.sleep(0)
        self._log.commit_gathered(gather)
        await asyncio.sleep(0)

    async def _run_inline(self, function: Callable[..., Any], *args: Any) -> Any:
        await asyncio.sleep(0)
        result = function(*args)
        await asyncio.sleep(0)
        return result

    def _queue_repair(self, group_id: int, offset: int, shard_index: int, reason: str) -> None:
        record = media_records.pack(
            media_records.RepairRecord(group_id, offset, shard_index, reason, 0)
        )
        key = media_records.repair_key(group_id, offset, shard_index)
        operation = commit_log.Operation(apply=lambda txn, _: txn.put(key, record))
        asyncio.get_running_loop().create_task(self._submit_repair(operation))

    async def _submit_repair(self, operation: commit_log.Operation) -> None:
        try:
            await self.commits.submit(operation)
        except errors.CouchestorError:
            return  # The next read queues it again.


class Worker(Process):
    """One serving process."""

    def __init__(self, node: SimulatedNode, slot: int) -> None:
        super().__init__(node, writer_slots.worker(slot))
        # Of a worker that died alone nothing is known to the new one: its reads are over.
        node.places_in_use[slot] = places_in_use.PlacesInUse(forgotten_seconds=GRACE_SECONDS)
        self.slot = slot
        self.store: node_store.NodeStore
        """Since ``start``."""

    async def start(self) -> bool:
        """Open the store; whether a commit of this start has fenced what went before."""
        lease = node_store.AddressLease(self.commits.submit, length_bytes=LEASE_BYTES)
        try:
            await lease.renew()
            fenced = True
        except (errors.StoreFullError, errors.StoreReadOnlyError):
            fenced = False
        bodies = body_writer.BodyWriter(
            groups=self.groups,
            pool=self._pool,
            stripe_bytes=self._shape.stripe_bytes,
            journal_threshold_bytes=self._shape.journal_threshold_bytes,
            in_flight_bytes_max=256 * units.KIB,
            lease_address=lease.take,
        )
        extents = extent_reader.ExtentReader(
            index=self.index,
            media=self.media,
            stripes=self.stripes,
            pool=self._pool,
            clock=LoopClock(),
            places_kept_seconds=PLACES_KEPT_SECONDS,
            in_use=self._node.places_in_use[self.slot],
        )
        self.store = node_store.NodeStore(
            index=self.index,
            commits=self.commits,
            bodies=bodies,
            extents=extents,
            clock=self._node,
            part_bytes_min=1,
            draw_upload_id=lambda: f"{self._node.draw_bits():016x}",
        )
        return fenced


class Maintenance(Process):
    """The process beside the workers: ``app.maintenance`` without threads.

    Further works go into ``works``.
    """

    def __init__(self, node: SimulatedNode) -> None:
        super().__init__(node, writer_slots.MAINTENANCE, reserve_share_count=2)
        self.checkpoints = checkpoints.Checkpoints(
            index=self.index,
            media=self.media,
            pool=self._pool,
            submit=self._commit_at_once,
            copies_count=self._shape.replicas_count,
            reserve_zones_count=self._shape.reserve_zones_count,
            short_reserve_zones_count=min(1, self._shape.reserve_zones_count),
            publisher=Silence(),
            now_ns=node.now_ns,
            draw_seed=node.draw_bits,
        )
        tools = repair_tools.Tools(
            index=self.index,
            media=self.media,
            pool=buffers.BufferPool(POOL_BYTES),
            codecs=codec_choice.by_id,
            run_codec=self._run_inline,
            run_blocking=self._run_inline,
            pace=_unpaced,
        )
        self.rebuild = rebuild.Rebuild(
            tools,
            submit=self.commits.submit,
            # As in a real node there is always a reserve: a start may need a zone for the log.
            reserve_zones_count=max(1, self._shape.reserve_zones_count),
            delay_seconds=REBUILD_DELAY_SECONDS,
            publisher=RepairEvents(node),
            now_seconds=LoopClock().monotonic_seconds,
            now_ns=node.now_ns,
            look_seconds=REBUILD_LOOK_SECONDS,
        )
        self.scrub = scrub.Scrub(
            tools,
            submit=self.commits.submit,
            period_seconds=SCRUB_PERIOD_SECONDS,
            publisher=RepairEvents(node),
            now_seconds=LoopClock().monotonic_seconds,
            now_ns=LoopClock().now_ns,
        )
        self.moves = member_moves.MemberMoves(
            tools,
            zones=self.rebuild.zones,
            wanted=self._shape.coding,
            reserve_zones_count=max(1, self._shape.reserve_zones_count),
            limits=MOVE_LIMITS,
            must_wait=lambda: self.rebuild.progress.groups_waiting_count > 0,
            publisher=MoveEvents(node.happened),
            now_seconds=LoopClock().monotonic_seconds,
            look_seconds=REBUILD_LOOK_SECONDS,
        )
        self._running: asyncio.Task[None]

    def works(self) -> list[background.BackgroundWork]:
        """Everything that is done in the background."""
        return [
            CheckpointWork(self.checkpoints, self._node),
            release.Release(
                index=self.index,
                media=self.media,
                submit=self._release,
                publisher=Silence(),
                run_blocking=self._run_inline,
                clock=LoopClock(),
                trusted=self.checkpoints.trusted,
                grace_seconds=RELEASE_GRACE_SECONDS,
                reads_horizon=self._reads_horizon,
                reads_ended_seconds=READS_ENDED_SECONDS,
            ),
            *self._moving(),
            self.rebuild,
            self.moves,
            self.scrub,
        ]

    def _reads_horizon(self) -> float:
        now = LoopClock().monotonic_seconds()
        return min(
            (each.horizon_seconds(now) for each in self._node.places_in_use.values()), default=0.0
        )

    def _moving(self) -> list[background.BackgroundWork]:
        """What ``app.moving`` does, in a hurry."""
        shape = self._shape
        squeeze = compression.Compression(saving_percent=COMPRESSION_SAVING_PERCENT)
        moving = relocation.Relocation(
            groups=self.groups,
            index=self.index,
            payloads=payload_reader.PayloadReader(
                index=self.index, media=self.media, stripes=self.stripes
            ),
            stripes=self.stripes,
            pool=self._pool,
            stripe_bytes=shape.stripe_bytes,
            memory_bytes=POOL_BYTES // 2,
            squeeze=squeeze,
            run_codec=self._run_inline,
            submit=self.commits.submit,
            pace=_pace,
            publisher=Silence(),
        )
        works: list[background.BackgroundWork] = [
            destage.Destage(
                index=self.index,
                media=self.media,
                emptying=evacuation.Evacuation(moving, stripe_bytes=shape.stripe_bytes),
                source=lambda record: segment_source.SegmentSource(
                    record,
                    index=self.index,
                    media=self.media,
                    run_blocking=self._run_inline,
                    pace=_pace,
                ),
                limits=DESTAGE_LIMITS,
                clock=LoopClock(),
            ),
            reclaim.Reclaim(
                index=self.index,
                media=self.media,
                emptying=evacuation.Evacuation(moving, stripe_bytes=shape.stripe_bytes),
                source=lambda record: group_source.GroupSource(
                    record,
                    index=self.index,
                    media=self.media,
                    stripes=self.stripes,
                    run_blocking=self._run_inline,
                    pace=_pace,
                ),
                writer=self.name,
                must_move=self._must_move,
                stranded=stranded_groups.StrandedGroups(
                    self.media,
                    wanted=shape.coding,
                    reserve_zones_count=max(1, shape.reserve_zones_count),
                    delay_seconds=REBUILD_DELAY_SECONDS,
                    now_seconds=LoopClock().monotonic_seconds,
                    now_ns=self._node.now_ns,
                ).among,
                wanted=shape.coding,
                reserve_zones_count=shape.reserve_zones_count,
                limits=RECLAIM_LIMITS,
                clock=LoopClock(),
                report=lambda progress: self._node.happened(f"stranded {progress.groups_count}"),
            ),
        ]
        return [HurriedWork(work, squeeze.counters, self._node.happened) for work in works]

    def _must_move(self, reader: index_port.IndexReader, record: media_records.GroupRecord) -> bool:
        return departures.is_narrow(self.media, record, self._shape.coding) or (
            departures.has_retiring_member(self.media, record.members)
            and not self.moves.will_copy(reader, record)
        )

    async def start(self) -> None:
        """Begin; the works go on until the process dies."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, virtual_loop.VirtualLoop), loop
        self._running = loop.create_task_of(self, self._run())

    def check(self) -> None:
        """Raise what ended the works: nothing but a death should."""
        if self._running.done() and not self._running.cancelled():
            self._running.result()

    async def _run(self) -> None:
        # What cannot be sealed now waits for the next start.
        with contextlib.suppress(errors.CouchestorError):
            await writer_slots.seal_vacant(
                self.index, self.commits.submit, workers_count=WORKERS_COUNT
            )
        watched = [WatchedWork(work) for work in self.works()]
        runner = background.BackgroundRunner(watched, retry_seconds_min=RETRY_SECONDS)
        await runner.run(asyncio.Event())

    def _commit_at_once(self, operation: commit_log.Operation) -> object:
        """As from the checkpoint thread, which waits for the result."""
        self._log.commit([operation])
        if operation.error is not None:
            raise operation.error
        return operation.result

    async def _release(self, operation: commit_log.Operation) -> object:
        released = await self.commits.submit(operation)
        for each in cast("list[release.Unreferenced]", released):
            self._node.happened(f"released-{each.role.name.lower()} {each.owner_id}")
        return released


class HurriedWork:
    """A work that polls by the second, on virtual time, and tells what it has moved."""

    def __init__(
        self,
        work: background.BackgroundWork,
        counters: compression.CompressionCounters,
        happened: Callable[[str], None],
    ) -> None:
        self.name = work.name
        self._work = work
        self._counters = counters
        self._happened = happened

    async def step(self) -> float:
        """As the work itself; the wait is shorter."""
        kept_count = self._counters.kept_count
        wait_seconds = await self._work.step()
        if wait_seconds == 0.0:
            self._happened(f"{self.name}-moved")
        if self._counters.kept_count > kept_count:
            self._happened("compressed")
        return POLL_FACTOR * wait_seconds


async def _pace(bytes_count: int) -> None:
    await asyncio.sleep(bytes_count * PACE_SECONDS_PER_BYTE)


class WatchedWork:
    """A background work that may find no room or devices, but never an index that is wrong."""

    def __init__(self, work: background.BackgroundWork) -> None:
        self.name = work.name
        self._work = work

    async def step(self) -> float:
        """As the work itself."""
        try:
            return await self._work.step()
        except errors.IndexCorruptError as exc:
            raise AssertionError(f"{self.name} found the index wrong: {exc}") from exc


class CheckpointWork:
    """What ``app.checkpointing`` does, on virtual time and after less log."""

    name: Final = "checkpoints"

    def __init__(self, taker: checkpoints.Checkpoints, node: SimulatedNode) -> None:
        self._taker = taker
        self._node = node
        self._has_begun = False

    async def step(self) -> float:
        """Take one if it is due."""
        await asyncio.sleep(0)
        if not self._has_begun:
            self._taker.release_leftovers()
            self._has_begun = True
        lost = not self._taker.is_newest_trusted() and not self._taker.verify_newest()
        grown = self._taker.log_bytes_since_newest() > CHECKPOINT_LOG_BYTES
        weakened = bool(self._taker.weakened_log_bytes())
        if grown or ((lost or weakened) and self._taker.can_take()):
            record = self._taker.take(space_is_short=True)
            assert record is not None, "nothing stops it"
            self._node.happened(f"checkpoint {record.checkpoint_id} at {record.sequence}")
        return CHECKPOINT_SECONDS


class SimulatedNode:
    """The devices, the index and the marks that outlive a process, and how a start uses them."""

    def __init__(self, seed: str, shape: Shape) -> None:
        self.shape = shape
        self._rng = random.Random(f"{seed}/node")
        self.happened: Callable[[str], None] = lambda what: None
        """Told what background work has done."""
        self._clock_ns = 1_700_000_000 * units.NS_PER_SECOND
        self.world = simulated_device.SimulatedWorld(self._rng.getrandbits(64))
        self.stalls = stalled_commands.Stalls(seed, self.world, lambda what: self.happened(what))
        self.index = memory_index.MemoryIndex()
        self._index_complete = False
        self._last_stop = recovery_table.LastStop.CRASH_OTHER_BOOT
        self.places_in_use: dict[int, places_in_use.PlacesInUse] = {}
        """What the reads of each worker go by; a later life has another clock and others."""
        self.dead: set[ids.DeviceId] = set()
        """Devices that are not there at this start."""
        for number in range(shape.devices_count):
            self.join(number, label=f"d{number}")

    def join(self, number: int, *, label: str = "") -> str:
        """A new, empty device, from the next start on; returns its label."""
        made = label or f"n{number}"
        self.world.add_device(
            device_port.DeviceIdentity(
                node_id=NODE_ID,
                device_id=ids.DeviceId(f"{number:032x}"),
                label=made,
                failure_domain=made,
                zone_count=self.shape.zone_count,
                zone_capacity_bytes=self.shape.zone_bytes,
                joined_epoch=1,
            )
        )
        return made

    def draw_bits(self) -> int:
        """64 random bits: seeds of segments, names of uploads."""
        return self._rng.getrandbits(64)

    def in_any_order(
        self, writes: Sequence[media_port.ZoneWrite]
    ) -> Sequence[media_port.ZoneWrite]:
        """The replicas of a batch in an order drawn anew."""
        return self._rng.sample(writes, len(writes))

    def now_ns(self) -> int:
        """Wall clock: moves on by a millisecond every time it is looked at."""
        self._clock_ns += 1_000_000
        return self._clock_ns

    def present_devices(self) -> dict[ids.DeviceId, simulated_device.SimulatedDevice]:
        """Devices that answer."""
        return {
            device_id: device
            for device_id, device in self.world.devices.items()
            if device_id not in self.dead
        }

    def lose(self, *, power_loss: bool, index: IndexLoss) -> None:
        """What the end of a life leaves: of the devices as the world says, of the index all or
        nothing."""
        self.world.restart(power_loss=power_loss)
        self.stalls.run_ended(power_loss=power_loss)
        self.places_in_use.clear()
        if power_loss:
            self._last_stop = recovery_table.LastStop.CRASH_OTHER_BOOT
        if power_loss or index is IndexLoss.LOST:
            # After power loss the unsynced index is whatever; a node that used it would show.
            self.index = memory_index.MemoryIndex()
            self._index_complete = self._index_complete and index is IndexLoss.KEPT

    def prepare(self) -> recovery_table.Action:
        """What ``app.node.prepare`` does: decide from the table, rebuild if needed."""
        devices = self.present_devices()
        epoch = 1 + max(device.identity.joined_epoch for device in self.world.devices.values())
        for device in devices.values():
            device.write_identity(dataclasses.replace(device.identity, joined_epoch=epoch))
        action = recovery_table.decide(
            index=recovery_table.IndexState.PRESENT
            if self._index_complete
            else recovery_table.IndexState.ABSENT,
            last_stop=self._last_stop,
            log_present=replay.log_present(devices),
            recover_asked=False,
        )
        if action is recovery_table.Action.REFUSE:
            raise AssertionError("the node refuses to start")
        if action is not recovery_table.Action.USE:
            self._index_complete = False
            self.index = memory_index.MemoryIndex()
            index = MortalIndex(self.world, self.index)
            log = commit_log.CommitLog(
                writer=writer_slots.RECOVERY,
                index=index,
                media=SimulatedMedia(devices, self.stalls, self.in_any_order),
                pool=buffers.BufferPool(POOL_BYTES),
                replicas_count=self.shape.replicas_count,
                reserve_zones_count=self.shape.reserve_zones_count,
                publisher=Silence(),
                draw_seed=self.draw_bits,
            )
            report = replay.rebuild(index, devices, log)
            if report.checkpoint_sequence:
                self.happened(f"from-checkpoint {report.checkpoint_sequence}")
            self._index_complete = True
        self._last_stop = recovery_table.LastStop.CRASH_SAME_BOOT
        return action
