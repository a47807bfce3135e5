"""Media over blocking devices: each kind of command has a named, bounded thread pool.

Three pools, so that reads never queue behind flushes: ``media-read``, ``media-write`` (writes
into caches) and ``media-sync`` (durable writes, flushes, resets).
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Collection, Mapping, Sequence

from couchestor_daemon.adapters import device_roster, worker_threads
from couchestor_daemon.ports import device as device_port
from couchestor_daemon.ports import media as media_port
from couchestor_domain import errors, ids


class ThreadedMedia:
    """``ports.media.Media``. Create it after fork; call it from one event loop.

    Cancellation: a command that has started is waited for, so the caller's buffer is never
    touched after its await has ended; one that has not started is dropped.

    The queues before the pools are bounded by the callers' admission: a caller awaits each of
    its commands.

    Args:
        devices: The devices of the node; owned by the caller, who closes them after ``close``.
        on_failure: Told once about each device that leaves, on whichever thread noticed.
        read_threads_count: Reads at the devices at one time.
        write_threads_count: Writes at one time.
        sync_threads_count: Durable writes, flushes and resets at one time.
    """

    def __init__(
        self,
        devices: Mapping[ids.DeviceId, device_port.ZonedDevice],
        on_failure: device_roster.FailureListener,
        *,
        read_threads_count: int = 16,
        write_threads_count: int = 8,
        sync_threads_count: int = 16,
    ) -> None:
        self._roster = device_roster.DeviceRoster(devices, on_failure)
        self._read_threads = worker_threads.WorkerThreads(read_threads_count, "media-read")
        self._write_threads = worker_threads.WorkerThreads(write_threads_count, "media-write")
        self._sync_threads = worker_threads.WorkerThreads(sync_threads_count, "media-sync")
        # One device that stalls must not take every thread: the others are read around it.
        self._reads_per_device = max(1, read_threads_count // 3)
        self._read_turns = {
            device_id: asyncio.Semaphore(self._reads_per_device) for device_id in devices
        }

    def healthy_devices(self) -> Sequence[device_port.DeviceIdentity]:
        return self._roster.healthy()

    def try_read(self, zone: ids.ZoneAddress, offset_bytes: int, buffer: memoryview) -> bool:
        return self._roster.try_read(zone, offset_bytes, buffer)

    async def read(self, zone: ids.ZoneAddress, offset_bytes: int, buffer: memoryview) -> None:
        turns = self._read_turns.get(zone.device_id)
        if turns is None:
            self._roster.device(zone.device_id)
            raise AssertionError("a device that is in service has turns")
        async with turns:
            await _run(self._read_threads, self._roster.read, zone, offset_bytes, buffer)

    async def write(
        self, zone: ids.ZoneAddress, offset_bytes: int, data: memoryview, *, durable: bool
    ) -> None:
        threads = self._sync_threads if durable else self._write_threads
        write = functools.partial(self._roster.write, durable=durable)
        await _run(threads, write, zone, offset_bytes, data)

    async def write_all(
        self, writes: Sequence[media_port.ZoneWrite], *, durable: bool
    ) -> list[errors.DeviceError]:
        threads = self._sync_threads if durable else self._write_threads
        write = functools.partial(self._roster.write, durable=durable)
        return await _run_all(threads, [functools.partial(write, *each) for each in writes])

    async def flush(self, zones: Collection[ids.ZoneAddress]) -> None:
        failures = await _run_all(
            self._sync_threads,
            [
                functools.partial(self._roster.flush, device_id, indexes)
                for device_id, indexes in device_roster.by_device(zones).items()
            ],
        )
        if failures:
            raise failures[0]

    async def reset(self, zone: ids.ZoneAddress) -> None:
        await _run(self._sync_threads, self._roster.reset, zone)

    def device(self, device_id: ids.DeviceId) -> device_port.ZonedDevice:
        return self._roster.device(device_id)

    def report_failure(self, device_id: ids.DeviceId, error: BaseException) -> None:
        self._roster.fail(device_id, error)

    def admit(self, device: device_port.ZonedDevice) -> None:
        """Take a device into service for reads; owned by the caller as the others are."""
        self._read_turns.setdefault(
            device.identity.device_id, asyncio.Semaphore(self._reads_per_device)
        )
        self._roster.admit(device)

    def employ(self, device_id: ids.DeviceId) -> None:
        """Let a device that was admitted or held be given zones."""
        self._roster.employ(device_id)

    def hold(self, device_id: ids.DeviceId) -> None:
        """Give a device no more zones; what it holds is read."""
        self._roster.hold(device_id)

    def refresh(self) -> None:
        """Look again at which devices retire."""
        self._roster.refresh()

    def remove(self, device_id: ids.DeviceId) -> None:
        """Take a device out of service without reporting a failure."""
        self._roster.remove(device_id)

    def close(self) -> None:
        """Wait for the commands that were sent and end the threads. Idempotent, blocking."""
        for threads in (self._read_threads, self._write_threads, self._sync_threads):
            threads.close()


async def _run(
    threads: worker_threads.WorkerThreads, command: Callable[..., None], *arguments: object
) -> None:
    try:
        await threads.run(command, *arguments)
    except worker_threads.ThreadsClosedError as exc:
        raise errors.DeviceGoneError("the node's media are closed") from exc


async def _run_all(
    threads: worker_threads.WorkerThreads, commands: Sequence[Callable[[], None]]
) -> list[errors.DeviceError]:
    """Failures of devices, in the order of the commands; anything else is raised."""
    try:
        outcomes = await threads.run_all(commands)
    except worker_threads.ThreadsClosedError as exc:
        raise errors.DeviceGoneError("the node's media are closed") from exc
    failures: list[errors.DeviceError] = []
    for outcome in outcomes:
        if isinstance(outcome, errors.DeviceError):
            failures.append(outcome)
        elif isinstance(outcome, BaseException):
            raise outcome
    return failures
