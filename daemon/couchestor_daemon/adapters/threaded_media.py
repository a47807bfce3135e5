"""Media over blocking devices: each kind of command has a named, bounded thread pool.

Three pools, so that reads never queue behind flushes: ``media-read``, ``media-write`` (writes
into caches) and ``media-sync`` (durable writes, flushes, resets).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent import futures

from couchestor_daemon.adapters import device_roster
from couchestor_daemon.ports import device as device_port
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
        self._read_pool = futures.ThreadPoolExecutor(read_threads_count, "media-read")
        self._write_pool = futures.ThreadPoolExecutor(write_threads_count, "media-write")
        self._sync_pool = futures.ThreadPoolExecutor(sync_threads_count, "media-sync")

    def healthy_devices(self) -> Sequence[device_port.DeviceIdentity]:
        return self._roster.healthy()

    def try_read(self, zone: ids.ZoneAddress, offset_bytes: int, buffer: memoryview) -> bool:
        return self._roster.try_read(zone, offset_bytes, buffer)

    async def read(self, zone: ids.ZoneAddress, offset_bytes: int, buffer: memoryview) -> None:
        roster = self._roster
        await _run(self._read_pool, lambda: roster.read(zone, offset_bytes, buffer))

    async def write(
        self, zone: ids.ZoneAddress, offset_bytes: int, data: memoryview, *, durable: bool
    ) -> None:
        roster = self._roster
        pool = self._sync_pool if durable else self._write_pool
        await _run(pool, lambda: roster.write(zone, offset_bytes, data, durable=durable))

    async def flush(self, zones: Collection[ids.ZoneAddress]) -> None:
        grouped = list(device_roster.by_device(zones).items())
        if len(grouped) == 1:
            await self._flush_device(*grouped[0])
            return
        ended = await asyncio.gather(
            *(self._flush_device(device_id, indexes) for device_id, indexes in grouped),
            return_exceptions=True,
        )
        for outcome in ended:
            if isinstance(outcome, BaseException):
                raise outcome

    async def reset(self, zone: ids.ZoneAddress) -> None:
        roster = self._roster
        await _run(self._sync_pool, lambda: roster.reset(zone))

    def device(self, device_id: ids.DeviceId) -> device_port.ZonedDevice:
        return self._roster.device(device_id)

    def report_failure(self, device_id: ids.DeviceId, error: BaseException) -> None:
        self._roster.fail(device_id, error)

    def remove(self, device_id: ids.DeviceId) -> None:
        """Take a device out of service without reporting a failure."""
        self._roster.remove(device_id)

    def close(self) -> None:
        """Wait for the commands that have started and end the threads. Idempotent, blocking."""
        for pool in (self._read_pool, self._write_pool, self._sync_pool):
            pool.shutdown(wait=True, cancel_futures=True)

    async def _flush_device(
        self, device_id: ids.DeviceId, indexes: Collection[ids.ZoneIndex]
    ) -> None:
        roster = self._roster
        await _run(self._sync_pool, lambda: roster.flush(device_id, indexes))


async def _run(pool: futures.ThreadPoolExecutor, command: Callable[[], None]) -> None:
    """Run a command on a pool; a cancelled caller still waits for a command that has started."""
    try:
        work = pool.submit(command)
    except RuntimeError as exc:
        raise errors.DeviceGoneError("the node's media are closed") from exc
    ended = asyncio.wrap_future(work)
    try:
        await asyncio.shield(ended)
    except asyncio.CancelledError:
        if not work.cancel():
            while not ended.done():
                try:
                    await asyncio.wait([ended])
                except asyncio.CancelledError:
                    continue  # Already on the way out; the buffer must be released first.
            if not ended.cancelled():
                ended.exception()  # Seen: the roster has acted on it.
        raise
