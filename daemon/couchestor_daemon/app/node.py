"""The wiring of a node: the only place where the data plane's parts are put together."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from typing import Any, Final

from couchestor_daemon import buffers
from couchestor_daemon.adapters import (
    codec_choice,
    log_events,
    memory_allocator,
    system_clock,
    threaded_media,
    worker_threads,
)
from couchestor_daemon.app import (
    checkpointing,
    device_set,
    metrics,
    node_file,
    preparation,
    settings,
    tls,
)
from couchestor_daemon.formats import media_records
from couchestor_daemon.services import (
    body_writer,
    checkpoints,
    commit_log,
    extent_reader,
    group_commit,
    node_store,
    stripe_assembly,
    stripe_groups,
    stripe_reader,
    writer_slots,
)
from couchestor_domain import errors, geometry, units
from couchestor_gateway.edge import server

_log = logging.getLogger("couchestor.node")

ADDRESS_LEASE_BYTES: Final = units.TIB
SWITCH_INTERVAL_SECONDS: Final = 0.0005
"""How long a thread waits before it asks for the interpreter. With Python's own 5 ms the commit
thread, back from its writes, waited for whole rounds of the event loop: a tenth of the PUTs."""
LOG_BUFFERS_BYTES: Final = 10 * units.MIB
"""Part of the buffer pool that stripes leave to batches of the log and to zone headers."""
READ_POOL_BYTES: Final = 32 * units.MIB
OPEN_GROUPS_MAX: Final = 4
CODEC_THREADS_COUNT: Final = 2
"""Threads of one process that encode and hash: one a worker would wait for, the other meanwhile."""


def lock_devices(told: settings.Settings) -> list[int]:
    """Locks for the supervisor to hold and its children to inherit.

    A first start formats its devices here: what is not there yet cannot be locked.
    """
    device_set.format_first(told, node_file.load(told))
    return device_set.lock_all(told.device_paths)


def prepare(told: settings.Settings) -> preparation.NodeSummary:
    """Bring the node to where workers may serve. Raises CouchestorError."""
    return preparation.prepare(told)


def conclude(told: settings.Settings) -> None:
    """Mark an orderly stop as clean, once no other process of the node is left."""
    preparation.conclude(told)


class Node:
    """The parts of one serving process, and their end."""

    def __init__(
        self, told: settings.Settings, *, writer: str, counters: metrics.NodeMetrics
    ) -> None:
        self._told = told
        self._publisher = metrics.CountingPublisher(counters, log_events.LogEventPublisher())
        membership = node_file.load(told)
        self.devices = device_set.open_all(told, membership)
        self.index = preparation.open_index(told)
        self.media = threaded_media.ThreadedMedia(
            self.devices, preparation.health_changes(self._publisher)
        )
        for device_id in self.devices:
            counters.device_healthy.labels(device_id).set(True)
        self._wanted = geometry.StripeGeometry(told.data_shards, told.parity_shards)
        self._pool_bytes = max(
            preparation.BUFFER_POOL_BYTES,
            # A stripe being filled while another is written, whatever the settings make of them.
            2 * stripe_assembly.memory_bytes(self._wanted, told.stripe_bytes) + LOG_BUFFERS_BYTES,
        )
        self.pool = buffers.BufferPool(self._pool_bytes)
        self.codec_threads = worker_threads.WorkerThreads(CODEC_THREADS_COUNT, "codec")
        self._commit_thread = worker_threads.WorkerThreads(1, "commit")
        self._replica_threads = worker_threads.FanOut(told.journal_replica_count - 1, "log-replica")
        self._log = commit_log.CommitLog(
            writer=writer,
            index=self.index,
            media=self.media,
            pool=self.pool,
            replicas_count=told.journal_replica_count,
            reserve_zones_count=told.reserve_zones_count,
            publisher=self._publisher,
            fan_out=self._replica_threads,
        )
        self.commits = group_commit.GroupCommit(self._run_commit)
        self.groups = stripe_groups.StripeGroups(
            writer=writer,
            wanted=self._wanted,
            open_groups_max=OPEN_GROUPS_MAX,
            reserve_zones_count=told.reserve_zones_count,
            media=self.media,
            index=self.index,
            pool=self.pool,
            choose_codec=lambda shape: codec_choice.choose(told.codec, shape),
            submit=self.commits.submit,
            run_codec=self.codec_threads.run,
            run_blocking=self.codec_threads.run,
            publisher=self._publisher,
        )
        self._repairs: set[asyncio.Task[None]] = set()

    async def _run_commit(self, gather: commit_log.Gather) -> None:
        await self._commit_thread.run(self._log.commit_gathered, gather)

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
            _log.warning("serving reads only, until there is room: %s", exc)
        bodies = body_writer.BodyWriter(
            groups=self.groups,
            pool=self.pool,
            stripe_bytes=self._told.stripe_bytes,
            journal_threshold_bytes=self._told.journal_threshold_bytes,
            in_flight_bytes_max=self._pool_bytes - LOG_BUFFERS_BYTES,
            lease_address=lease.take,
        )
        stripes = stripe_reader.StripeReader(
            self.media,
            codecs=codec_choice.by_id,
            publisher=self._publisher,
            on_damage=self._queue_repair,
            run_codec=self.codec_threads.run,
        )
        extents = extent_reader.ExtentReader(
            index=self.index,
            media=self.media,
            stripes=stripes,
            # Apart from that of writes: clients that do not take what they asked for hold it.
            pool=buffers.BufferPool(READ_POOL_BYTES),
            clock=system_clock.SystemClock(),
            places_kept_seconds=self._told.places_kept_seconds,
        )
        return node_store.NodeStore(
            index=self.index,
            commits=self.commits,
            bodies=bodies,
            extents=extents,
            clock=system_clock.SystemClock(),
        )

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
            publisher=self._publisher,
            now_ns=system_clock.SystemClock().now_ns,
            should_stop=should_stop,
        )

    async def close(self) -> None:
        """Answer what was submitted, then release everything."""
        await self.commits.drain()
        # What has just been settled may seal a group.
        await self.groups.drain()
        self._commit_thread.close()
        self._replica_threads.close()
        self.codec_threads.close()
        self.media.close()
        for device in self.devices.values():
            device.close()
        self.index.close()


async def run_worker(
    told: settings.Settings,
    *,
    slot: int,
    credentials: Any,
    ready: Callable[[], None],
    stop: asyncio.Event,
) -> None:
    """Serve S3 until ``stop``, then drain."""
    memory_allocator.keep_freed_memory()
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    counters = metrics.NodeMetrics()
    node = Node(told, writer=writer_slots.worker(slot), counters=counters)
    certificate = (
        tls.ReloadingCertificate(cert=told.tls_cert, key=told.tls_key)
        if told.tls_cert and told.tls_key
        else None
    )
    watcher = asyncio.get_running_loop().create_task(certificate.watch()) if certificate else None
    try:
        store = await node.store()
        gateway = server.Gateway(
            store,
            store,
            store,
            credentials,
            region=told.region,
            clock=system_clock.SystemClock(),
            domain=told.domain or None,
            metrics=lambda operation, status, seconds, received, sent: counters.observe_request(
                operation, status, seconds=seconds, received_bytes=received, sent_bytes=sent
            ),
            offload=node.codec_threads.run,
            limits=server.ServerLimits(stall_seconds=told.stall_seconds),
            access_log=told.access_log,
        )
        running = await gateway.start(
            told.host,
            told.port,
            reuse_port=True,
            ssl_context=certificate.context if certificate else None,
        )
        ready()
        await stop.wait()
        await running.stop(told.drain_seconds)
    finally:
        if watcher is not None:
            watcher.cancel()
        await node.close()


async def run_maintenance(
    told: settings.Settings,
    *,
    ready: Callable[[], None],
    report: Callable[[dict[str, object]], None],
    stop: asyncio.Event,
) -> None:
    """Background work until ``stop``: checkpoints of the index.

    Args:
        report: Told what people should see of it.
    """
    counters = metrics.NodeMetrics()
    node = Node(told, writer=writer_slots.MAINTENANCE, counters=counters)
    schedule = checkpointing.CheckpointSchedule(
        node.checkpoints(should_stop=stop.is_set),
        log_bytes=told.checkpoint_log_bytes,
        log_percent=told.checkpoint_log_percent,
        report=report,
        measured=counters,
    )
    try:
        ready()
        try:
            await writer_slots.seal_vacant(
                node.index, node.commits.submit, workers_count=told.worker_count
            )
        except errors.CouchestorError as exc:
            _log.warning("what former writers left open is sealed at the next start: %s", exc)
        await schedule.run(stop)
    finally:
        schedule.close()
        await node.close()
