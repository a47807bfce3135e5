"""The wiring of a node: the only place where the data plane's parts are put together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection
from typing import Final

from couchestor_daemon import buffers
from couchestor_daemon.adapters import (
    codec_choice,
    cpu_binding,
    directory_device,
    log_events,
    system_clock,
    thread_priority,
    threaded_media,
    worker_threads,
)
from couchestor_daemon.app import (
    departed_devices,
    device_set,
    drive_counting,
    metrics,
    node_file,
    preparation,
    settings,
)
from couchestor_daemon.formats import media_records
from couchestor_daemon.services import (
    body_writer,
    checkpoints,
    commit_log,
    extent_reader,
    group_commit,
    hedging,
    node_store,
    places_in_use,
    room_outlook,
    room_wait,
    stripe_assembly,
    stripe_groups,
    stripe_reader,
)
from couchestor_domain import errors, geometry, ids, units
from couchestor_gateway.ports import caller_context

_log = logging.getLogger("couchestor.node")

ADDRESS_LEASE_BYTES: Final = units.TIB
LOG_BUFFERS_BYTES: Final = 10 * units.MIB
"""Part of the buffer pool that stripes leave to batches of the log and to zone headers."""
READ_POOL_BYTES: Final = 32 * units.MIB
OPEN_GROUPS_MAX: Final = 4
TEND_SECONDS: Final = 5.0
CODEC_THREADS_COUNT: Final = 2
"""Threads of one process that encode and hash: one a worker would wait for, the other meanwhile."""


class Node:
    """The parts of one process that reads and writes the store, and their end.

    Args:
        groups_reserve_share_count: Zones of each device that its stripe groups may take out of the
            reserve.
        waits_for_room: Whether writes wait for zones that are on their way back.
        held: Devices to read from and give no zones yet: not every process has opened them.
        commit_cpu: Which CPU its commits keep to, see ``adapters.cpu_binding``; None: to none.
    """

    def __init__(
        self,
        told: settings.Settings,
        *,
        writer: str,
        counters: metrics.NodeMetrics,
        groups_reserve_share_count: int = 0,
        waits_for_room: bool = False,
        held: Collection[ids.DeviceId] = (),
        commit_cpu: int | None = None,
    ) -> None:
        self._told = told
        place = metrics.shared_folder()
        self.drives = drive_counting.DriveCounting(place, writer)
        """What devices do, counted for the process that watches them."""
        self.mistrust = drive_counting.Mistrust(place)
        """What that process has found."""
        self.publisher = drive_counting.FaultPublisher(
            self.drives,
            metrics.CountingPublisher(
                counters, log_events.LogEventPublisher(label_of=self._label_of)
            ),
        )
        membership = node_file.load(told)
        self.departures = departed_devices.board()
        self.devices = device_set.open_all(
            departed_devices.without_departed(told, membership, self.departures), membership
        )
        """Of this process, also those that left it; changed by orders of the supervisor."""
        self.parked: list[directory_device.DirectoryDevice] = []
        """Opened once and used no more: commands under way may still be at them."""
        self.index = preparation.open_index(told)
        self.media = threaded_media.ThreadedMedia(
            {key: self.drives.measured(device) for key, device in self.devices.items()},
            preparation.health_changes(self.publisher),
            deadline_seconds=told.device_deadline_seconds,
            departures=self.departures,
        )
        for device_id in self.devices:
            counters.device_healthy.labels(device_id).set(True)
            if device_id in held:
                self.media.hold(device_id)
        self.mistrust.look()
        self.media.mistrust(self.mistrust.held())
        self._wanted = geometry.StripeGeometry(told.data_shards, told.parity_shards)
        self._pool_bytes = max(
            preparation.BUFFER_POOL_BYTES,
            # A stripe being filled while another is written, whatever the settings make of them.
            2 * stripe_assembly.memory_bytes(self._wanted, told.stripe_bytes) + LOG_BUFFERS_BYTES,
        )
        self.pool = buffers.BufferPool(self._pool_bytes)
        self.codec_threads = worker_threads.WorkerThreads(
            CODEC_THREADS_COUNT, "codec", on_start=thread_priority.yield_to_others
        )
        self._commit_thread = worker_threads.WorkerThreads(
            1, "commit", on_start=None if commit_cpu is None else cpu_binding.binder(commit_cpu)
        )
        self._log = commit_log.CommitLog(
            writer=writer,
            index=self.index,
            media=self.media,
            pool=self.pool,
            replicas_count=told.journal_replica_count,
            reserve_zones_count=told.reserve_zones_count,
            publisher=self.publisher,
        )
        self.places_in_use = places_in_use.PlacesInUse(forgotten_seconds=told.zone_grace_seconds)
        """What the reads of this process go by."""
        self._room = (
            room_wait.RoomWait(
                self._room_outlook,
                clock=system_clock.SystemClock(),
                seconds_max=told.room_wait_seconds,
            )
            if waits_for_room
            else None
        )
        self.commits = group_commit.GroupCommit(self._run_commit, self._room)
        self.groups = stripe_groups.StripeGroups(
            writer=writer,
            wanted=self._wanted,
            open_groups_max=OPEN_GROUPS_MAX,
            reserve_zones_count=told.reserve_zones_count,
            reserve_share_count=groups_reserve_share_count,
            media=self.media,
            index=self.index,
            pool=self.pool,
            choose_codec=lambda shape: codec_choice.choose(told.codec, shape),
            submit=self.commits.submit,
            run_codec=self.codec_threads.run,
            inline_bytes_max=codec_choice.inline_bytes_max(told.codec),
            run_blocking=self.codec_threads.run,
            publisher=self.publisher,
            room=self._room,
        )
        self._repairs: set[asyncio.Task[None]] = set()
        self._drains: list[Callable[[], Awaitable[None]]] = []
        self.counters = counters

    def _label_of(self, device_id: ids.DeviceId) -> str:
        return device_set.label_of(self.devices, device_id)

    async def _run_commit(self, gather: commit_log.Gather) -> None:
        # The task was started by one request and commits for all that wait.
        caller_context.REQUEST_ID.set("")
        await self._commit_thread.run(self._log.commit_gathered, gather)

    def end_waiting(self) -> None:
        """Answer writes that wait for room: the process is about to stop."""
        if self._room is not None:
            self._room.end()

    async def _room_outlook(self) -> room_outlook.RoomOutlook:
        def look() -> room_outlook.RoomOutlook:
            capacities = [device.identity.zone_capacity_bytes for device in self.devices.values()]
            with self.index.read() as reader:
                return room_outlook.look(reader, zone_capacity_bytes=max(capacities))

        return await self.codec_threads.run(look)

    async def store(self) -> node_store.NodeStore:
        """The object store, with a fresh lease of logical addresses.

        A store that takes no writes now, for want of room or devices, serves reads all the same;
        its first write that succeeds takes the lease.
        """
        lease = node_store.AddressLease(self.commits.submit, length_bytes=ADDRESS_LEASE_BYTES)
        try:
            # The fence of this start too: no batch an earlier life left unanswered can come back.
            await lease.renew()
        except (errors.StoreFullError, errors.StoreReadOnlyError) as exc:
            is_full = isinstance(exc, errors.StoreFullError)
            until = "there is room" if is_full else "enough devices are in service"
            _log.warning("serving reads only, until %s: %s", until, exc)
        bodies = body_writer.BodyWriter(
            groups=self.groups,
            pool=self.pool,
            stripe_bytes=self._told.stripe_bytes,
            journal_threshold_bytes=self._told.journal_threshold_bytes,
            in_flight_bytes_max=self._pool_bytes - LOG_BUFFERS_BYTES,
            lease_address=lease.take,
        )
        extents = extent_reader.ExtentReader(
            index=self.index,
            media=self.media,
            stripes=self.stripes(),
            # Apart from that of writes: clients that do not take what they asked for hold it.
            pool=buffers.BufferPool(READ_POOL_BYTES),
            clock=system_clock.SystemClock(),
            places_kept_seconds=self._told.places_kept_seconds,
            in_use=self.places_in_use,
        )
        return node_store.NodeStore(
            index=self.index,
            commits=self.commits,
            bodies=bodies,
            extents=extents,
            clock=system_clock.SystemClock(),
            notices_max=self._told.notification_queue_max,
        )

    def stripes(self) -> stripe_reader.StripeReader:
        """A reader of stripes that queues what it finds damaged for repair."""
        stripes = stripe_reader.StripeReader(
            self.media,
            codecs=codec_choice.by_id,
            publisher=self.publisher,
            on_damage=self._queue_repair,
            run_codec=self.codec_threads.run,
            slow_reads=hedging.Hedging(
                asyncio.get_running_loop().time,
                count=self._count_hedge,
                suspects=self.mistrust.slow,
            ),
        )
        self._drains.append(stripes.drain)
        return stripes

    def _count_hedge(self, won: bool) -> None:
        (self.counters.hedged_reads_won if won else self.counters.hedged_reads).inc()

    def _queue_repair(
        self, group_id: int, stripe_offset_bytes: int, shard_index: int, reason: str
    ) -> None:
        key = media_records.repair_key(group_id, stripe_offset_bytes, shard_index)
        with self.index.read() as reader:
            if reader.get(key) is not None:
                return
        record = media_records.pack(
            media_records.RepairRecord(
                group_id,
                stripe_offset_bytes,
                shard_index,
                reason,
                system_clock.SystemClock().now_ns(),
            )
        )
        operation = commit_log.Operation(apply=lambda txn, _: txn.put(key, record))
        task = asyncio.get_running_loop().create_task(self._submit_repair(operation))
        self._repairs.add(task)
        task.add_done_callback(self._repairs.discard)

    async def _submit_repair(self, operation: commit_log.Operation) -> None:
        try:
            await self.commits.submit(operation)
        except errors.CouchestorError as exc:
            _log.warning("a repair could not be queued; the next read queues it again: %s", exc)

    def checkpoints(self, *, should_stop: Callable[[], bool]) -> checkpoints.Checkpoints:
        """The taker of checkpoints, for a thread beside the running loop."""
        loop = asyncio.get_running_loop()

        def submit(operation: commit_log.Operation) -> object:
            return asyncio.run_coroutine_threadsafe(self.commits.submit(operation), loop).result()

        return checkpoints.Checkpoints(
            index=self.index,
            media=self.media,
            pool=self.pool,
            submit=submit,
            copies_count=self._told.checkpoint_copies_count,
            reserve_zones_count=self._told.reserve_zones_count,
            short_reserve_zones_count=self._told.checkpoint_reserve_zones_count,
            publisher=self.publisher,
            now_ns=system_clock.SystemClock().now_ns,
            should_stop=should_stop,
        )

    async def tend(self, stop: asyncio.Event) -> None:
        """Look after the stripe groups of this process until ``stop``, written to or not."""
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), TEND_SECONDS)
                return
            try:
                await self.groups.tend()
            except errors.CouchestorError as exc:
                _log.warning("stripe groups are looked after later: %s", exc)

    async def close(self) -> None:
        """Answer what was submitted, then release everything."""
        await self.commits.drain()
        # What has just been settled may seal a group.
        await self.groups.drain()
        for drain in self._drains:
            await drain()
        self._commit_thread.close()
        self.codec_threads.close()
        self.media.close()
        for device in [*self.devices.values(), *self.parked]:
            # Closing a file of one that stalls might wait for it: the end of the process does it.
            if not self.media.has_left_commands(device.identity.device_id):
                device.close()
        if self.departures is not None:
            self.departures.close()
        self.mistrust.close()
        self.index.close()
