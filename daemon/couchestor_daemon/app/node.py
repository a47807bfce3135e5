"""The wiring of a node: the only place where the data plane's parts are put together."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import os
import pathlib
import secrets
import shutil
from collections.abc import Callable
from typing import Any, Final

from couchestor_daemon import buffers
from couchestor_daemon.adapters import (
    codec_choice,
    codec_selftest,
    device_roster,
    directory_device,
    lmdb_index,
    log_events,
    memory_allocator,
    system_clock,
    threaded_media,
    worker_threads,
)
from couchestor_daemon.app import device_set, metrics, settings, tls
from couchestor_daemon.formats import media_records
from couchestor_daemon.services import (
    body_writer,
    commit_log,
    extent_reader,
    group_commit,
    node_store,
    recovery_table,
    replay,
    stripe_groups,
    stripe_reader,
)
from couchestor_domain import errors, event_publisher, events, geometry, ids, units
from couchestor_gateway.edge import server

_log = logging.getLogger("couchestor.node")

ADDRESS_LEASE_BYTES: Final = units.TIB
BUFFER_POOL_BYTES: Final = 48 * units.MIB
INDEX_MAP_BYTES: Final = 64 * units.GIB
OPEN_GROUPS_MAX: Final = 2
CODEC_THREADS_COUNT: Final = 2
"""Threads of one process that encode and hash: one a worker would wait for, the other meanwhile."""
BOOT_ID_PATH: Final = pathlib.Path("/proc/sys/kernel/random/boot_id")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NodeSummary:
    """What a start found and did."""

    node_id: str
    action: str
    devices_count: int
    missing_count: int
    replayed_batches_count: int


def index_dir(told: settings.Settings) -> pathlib.Path:
    """Folder of the live index."""
    return told.data_dir / "index"


def lock_devices(told: settings.Settings) -> list[int]:
    """Locks for the supervisor to hold and its children to inherit."""
    return device_set.lock_all(told.device_paths)


def prepare(told: settings.Settings, *, recover_asked: bool = False) -> NodeSummary:
    """Bring the node to where workers may serve: format, verify, recover.

    Raises:
        CouchestorError: with one line that says what is wrong and what to do.
    """
    told.data_dir.mkdir(parents=True, exist_ok=True)
    wanted = geometry.StripeGeometry(told.data_shards, told.parity_shards)
    codec_selftest.run(codec_choice.choose(told.codec, wanted))
    membership = device_set.load_membership(told)
    devices = _present_devices(told, membership)
    if not devices:
        raise errors.ConfigurationError(
            f"none of the {len(told.device_paths)} devices of this node is there; "
            f"the first is expected at {told.device_paths[0]}"
        )
    membership = device_set.join_all(told, devices, membership)
    shape = wanted.shards_count
    if len(told.device_paths) < told.journal_replica_count:
        raise errors.ConfigurationError(
            f"{len(told.device_paths)} devices cannot hold {told.journal_replica_count} copies of "
            f"the log; configure at least that many ({shape} for {wanted})"
        )
    action = recovery_table.decide(
        index=_index_state(told, membership.node_id),
        last_stop=_last_stop(told),
        log_present=replay.log_present(devices),
        recover_asked=recover_asked,
    )
    if action is recovery_table.Action.REFUSE:
        raise errors.ConfigurationError(
            f"the index under {index_dir(told)} cannot be used: it belongs to another node than "
            "the devices, or a rebuild was asked for and no present device holds a log. Bring the "
            "devices back, or move the index away"
        )
    replayed = 0
    if action is recovery_table.Action.REBUILD:
        _log.warning("rebuilding the index from the log on %d devices", len(devices))
        _set_aside(index_dir(told))
    if action in (recovery_table.Action.REBUILD, recovery_table.Action.INITIALISE):
        replayed = _build_index(told, devices, membership.node_id)
    _mark_running(told)
    for device in devices.values():
        device.close()
    return NodeSummary(
        node_id=membership.node_id,
        action=action.value,
        devices_count=len(devices),
        missing_count=len(told.device_paths) - len(devices),
        replayed_batches_count=replayed,
    )


def _present_devices(
    told: settings.Settings, membership: device_set.Membership | None
) -> dict[ids.DeviceId, directory_device.DirectoryDevice]:
    if membership is None and not any((path / "identity").exists() for path in told.device_paths):
        device_set.format_all(told, ids.NodeId(secrets.token_hex(16)))
    return device_set.open_all(told, membership)


def _index_state(told: settings.Settings, node_id: ids.NodeId) -> recovery_table.IndexState:
    path = index_dir(told)
    if not (path / "complete").exists():
        # Without the mark a rebuild was interrupted: what is there is half a replay.
        shutil.rmtree(path, ignore_errors=True)
        return recovery_table.IndexState.ABSENT
    index = lmdb_index.LmdbIndex(path, map_size_bytes=INDEX_MAP_BYTES)
    try:
        with index.read() as reader:
            found = reader.get(media_records.NODE_KEY)
    finally:
        index.close()
    if found != node_id.encode():
        return recovery_table.IndexState.FOREIGN
    return recovery_table.IndexState.PRESENT


def _boot_id() -> str:
    return BOOT_ID_PATH.read_text("ascii").strip()


def _last_stop(told: settings.Settings) -> recovery_table.LastStop:
    try:
        mark = json.loads((told.data_dir / "running.json").read_text("utf-8"))
    except (OSError, ValueError):
        return recovery_table.LastStop.CRASH_OTHER_BOOT
    if mark.get("boot_id") == _boot_id():
        return recovery_table.LastStop.CRASH_SAME_BOOT
    return recovery_table.LastStop.CRASH_OTHER_BOOT


def _mark_running(told: settings.Settings) -> None:
    path = told.data_dir / "running.json"
    with path.open("w", encoding="utf-8") as file:
        json.dump({"boot_id": _boot_id()}, file)
        file.flush()
        os.fsync(file.fileno())


def _build_index(
    told: settings.Settings,
    devices: dict[ids.DeviceId, directory_device.DirectoryDevice],
    node_id: ids.NodeId,
) -> int:
    index = lmdb_index.LmdbIndex(index_dir(told), map_size_bytes=INDEX_MAP_BYTES)
    publisher = log_events.LogEventPublisher()
    media = threaded_media.ThreadedMedia(devices, _health_changes(publisher))
    try:
        log = commit_log.CommitLog(
            writer="recovery",
            index=index,
            media=media,
            pool=buffers.BufferPool(BUFFER_POOL_BYTES),
            replicas_count=told.journal_replica_count,
            reserve_zones_count=told.reserve_zones_count,
            publisher=publisher,
        )
        report = replay.rebuild(index, devices, log)
        with index.write() as txn:
            # Not logged: it names this index, and a rebuild writes it anew.
            txn.put(media_records.NODE_KEY, node_id.encode())
            txn.commit()
        index.sync()
        (index_dir(told) / "complete").write_text(node_id, encoding="ascii")
        return report.batches_count
    finally:
        media.close()
        index.close()


def _set_aside(path: pathlib.Path) -> None:
    """Keep one earlier index until the rebuild has succeeded: a person may want it back."""
    kept = path.with_name("index.before-rebuild")
    if path.exists():
        shutil.rmtree(kept, ignore_errors=True)
        path.rename(kept)


def _health_changes(publisher: event_publisher.EventPublisher) -> device_roster.FailureListener:
    """What tells people that a device left this process."""

    def publish(device_id: ids.DeviceId, error: BaseException) -> None:
        publisher.publish(
            events.HealthChanged(
                subject=f"{metrics.DEVICE_SUBJECT}{device_id}", healthy=False, reason=str(error)
            )
        )

    return publish


class Node:
    """The parts of one serving process, and their end."""

    def __init__(
        self, told: settings.Settings, *, writer: str, counters: metrics.NodeMetrics
    ) -> None:
        self._told = told
        self._publisher = metrics.CountingPublisher(counters, log_events.LogEventPublisher())
        membership = device_set.load_membership(told)
        self.devices = device_set.open_all(told, membership)
        self.index = lmdb_index.LmdbIndex(index_dir(told), map_size_bytes=INDEX_MAP_BYTES)
        self.media = threaded_media.ThreadedMedia(self.devices, _health_changes(self._publisher))
        for device_id in self.devices:
            counters.device_healthy.labels(device_id).set(True)
        self.pool = buffers.BufferPool(BUFFER_POOL_BYTES)
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
        self._repairs: set[asyncio.Task[None]] = set()
        self._writer = writer
        self._wanted = geometry.StripeGeometry(told.data_shards, told.parity_shards)

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
        groups = stripe_groups.StripeGroups(
            writer=self._writer,
            wanted=self._wanted,
            open_groups_max=OPEN_GROUPS_MAX,
            reserve_zones_count=self._told.reserve_zones_count,
            media=self.media,
            index=self.index,
            pool=self.pool,
            choose_codec=lambda shape: codec_choice.choose(self._told.codec, shape),
            submit=self.commits.submit,
            run_codec=self.codec_threads.run,
            run_blocking=self.codec_threads.run,
            publisher=self._publisher,
        )
        bodies = body_writer.BodyWriter(
            groups=groups,
            pool=self.pool,
            stripe_bytes=self._told.stripe_bytes,
            journal_threshold_bytes=self._told.journal_threshold_bytes,
            stripes_in_memory_max=max(1, BUFFER_POOL_BYTES // (2 * self._told.stripe_bytes) - 1),
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
            index=self.index, media=self.media, stripes=stripes, pool=self.pool
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

    async def close(self) -> None:
        """Answer what was submitted, then release everything."""
        await self.commits.drain()
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
    counters = metrics.NodeMetrics()
    node = Node(told, writer=f"worker-{slot}", counters=counters)
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
    told: settings.Settings, *, ready: Callable[[], None], stop: asyncio.Event
) -> None:
    """Background work."""
    node = Node(told, writer="maintenance", counters=metrics.NodeMetrics())
    try:
        ready()
        await stop.wait()
    finally:
        await node.close()
