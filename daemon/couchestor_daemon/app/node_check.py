"""``couchestor check`` below the devices: index, log and media of a node, and the safe repairs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Final, TypeVar

from couchestor_daemon import buffers
from couchestor_daemon.adapters import (
    codec_choice,
    directory_device,
    log_events,
    threaded_media,
    worker_threads,
)
from couchestor_daemon.app import device_set, preparation, sealed_secrets, settings, stop_mark
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import (
    commit_log,
    full_check,
    index_audit,
    leftovers,
    recovery_table,
    repair_tools,
)
from couchestor_domain import errors, ids, units

T = TypeVar("T")
Devices = Mapping[ids.DeviceId, directory_device.DirectoryDevice]

POOL_BYTES: Final = 256 * units.MIB
"""Enough for the longest stripes that settings allow in practice; lent only as it is needed."""
THREADS_COUNT: Final = 4


def is_index_trusted(told: settings.Settings) -> bool:
    """Whether the next start uses the index as it is, so that media can be compared with it."""
    return (
        preparation.has_index(told)
        and stop_mark.last_stop(told.data_dir) is not recovery_table.LastStop.CRASH_OTHER_BOOT
    )


def findings(
    told: settings.Settings,
    devices: Devices,
    *,
    manner: full_check.Manner,
    pace: repair_tools.Pace | None = None,
    progress: Callable[[str], None] = lambda doing: None,
) -> list[index_audit.Finding]:
    """Index against itself and against the media, every shard and live batch read.

    Args:
        pace: Awaited before bytes are read; nothing when nobody else waits for the devices.

    Raises:
        CouchestorError: the index cannot be read.
    """

    async def look(tools: repair_tools.Tools) -> list[index_audit.Finding]:
        return await full_check.FullCheck(tools, manner=manner, progress=progress).findings()

    with _index_of(told, read_only=manner.is_running) as index:
        with index.read() as reader:
            complaint = sealed_secrets.complaint(told, reader)
        found = asyncio.run(_with_tools(index, devices, look, pace=pace or _unpaced))
    return found if complaint is None else [*found, index_audit.Finding(complaint, True)]


def repair(told: settings.Settings, devices: Devices) -> list[str]:
    """Carry out what is safe without the node; returns what was done.

    Durability: committed like every change of a running node, to the log first.

    Raises:
        ConfigurationError: the index is not one that the next start would use.
        CouchestorError: the log cannot be written.
    """
    if not is_index_trusted(told):
        raise errors.ConfigurationError(
            "the index is not the one that the next start will use, so nothing is repaired by it: "
            "start the node, stop it and try again"
        )
    with _index_of(told) as index:
        with index.read() as reader:
            planned = leftovers.described(reader)
        if not planned:
            return []
        # Spent before anything changes: what follows is not synced until ``conclude``.
        stop_mark.write_running(told.data_dir)
        publisher = log_events.LogEventPublisher(
            label_of=lambda device_id: device_set.label_of(devices, device_id)
        )
        media = threaded_media.ThreadedMedia(devices, preparation.health_changes(publisher))
        try:
            log = commit_log.CommitLog(
                writer="check",
                index=index,
                media=media,
                pool=buffers.BufferPool(preparation.BUFFER_POOL_BYTES),
                replicas_count=told.journal_replica_count,
                reserve_zones_count=told.reserve_zones_count,
                publisher=publisher,
            )
            operation = leftovers.removal()
            log.commit([operation])
        finally:
            media.close()
        if operation.error is not None:
            raise operation.error
    preparation.conclude(told)
    return planned


@contextlib.contextmanager
def _index_of(
    told: settings.Settings, *, read_only: bool = False
) -> Iterator[index_port.IndexStore]:
    index = preparation.open_index(told, read_only=read_only)
    try:
        yield index
    finally:
        index.close()


async def _with_tools(
    index: index_port.IndexStore,
    devices: Devices,
    work: Callable[[repair_tools.Tools], Awaitable[T]],
    *,
    pace: repair_tools.Pace,
) -> T:
    media = threaded_media.ThreadedMedia(devices, lambda device_id, error: None)
    threads = worker_threads.WorkerThreads(THREADS_COUNT, "check")

    try:
        return await work(
            repair_tools.Tools(
                index=index,
                media=media,
                pool=buffers.BufferPool(POOL_BYTES),
                codecs=codec_choice.by_id,
                run_codec=threads.run,
                run_blocking=threads.run,
                pace=pace,
            )
        )
    finally:
        threads.close()
        media.close()


async def _unpaced(bytes_count: int) -> None:
    """Nobody else waits for the devices."""
