"""Media over blocking devices: each kind of command has a named, bounded thread pool.

Three pools, so that reads never queue behind flushes: ``media-read``, ``media-write`` (writes
into caches) and ``media-sync`` (durable writes, flushes, resets). Threads that wait for a device
themselves, such as the commit thread, have it done by ``media-block``.

A command has a deadline. One that passes it takes its device out of service, of every process of
the node, and fails like any other; it goes on in its thread, with memory that nobody else is given
(docs/adr/0010).
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, NamedTuple

from couchestor_daemon import buffers
from couchestor_daemon.adapters import (
    blocking_threads,
    device_roster,
    timed_device,
    worker_threads,
)
from couchestor_daemon.ports import device as device_port
from couchestor_daemon.ports import media as media_port
from couchestor_domain import errors, ids

DEADLINE_SECONDS: Final = 10.0
"""Above what a disk takes that retries a bad place for as long as disks in arrays usually may, 7 s,
and below what clients wait for an answer."""


class ThreadedMedia:
    """``ports.media.Media``. Create it after fork; call it from one event loop.

    Cancellation: a command that has started is waited for, so the caller's buffer is never
    touched after its await has ended; one that has not started is dropped. A read fills
    memory apart from its caller's, unless it is told otherwise; what a command that passes its
    deadline uses is never lent again by its pool.

    The queues before the pools are bounded by the callers' admission: a caller awaits each of
    its commands.

    Args:
        devices: The devices of the node; owned by the caller, who closes them after ``close``.
        on_failure: Told once about each device that leaves, on whichever thread noticed.
        read_threads_count: Reads at the devices at one time.
        write_threads_count: Writes at one time.
        sync_threads_count: Durable writes, flushes and resets at one time.
        deadline_seconds: For each command, from when a thread has taken it up.
        departures: Where the processes of the node tell each other which devices left.
    """

    def __init__(
        self,
        devices: Mapping[ids.DeviceId, device_port.ZonedDevice],
        on_failure: device_roster.FailureListener,
        *,
        read_threads_count: int = 16,
        write_threads_count: int = 8,
        sync_threads_count: int = 16,
        deadline_seconds: float = DEADLINE_SECONDS,
        departures: device_roster.Departures | None = None,
    ) -> None:
        self._roster = device_roster.DeviceRoster(devices, on_failure, departures)
        self._deadline_seconds = deadline_seconds
        self._stalled_ids: set[ids.DeviceId] = set()
        self._read_threads, self._write_threads, self._sync_threads = (
            worker_threads.WorkerThreads(count, name, seconds_max=deadline_seconds)
            for count, name in (
                (read_threads_count, "media-read"),
                (write_threads_count, "media-write"),
                (sync_threads_count, "media-sync"),
            )
        )
        self._blocking_threads = blocking_threads.BlockingThreads("media-block")
        self._read_memory = timed_device.ReadMemory()
        self._timed = {device_id: self._with_deadline(each) for device_id, each in devices.items()}
        # One device that stalls must not take every thread: the others are read around it.
        self._reads_per_device = max(1, read_threads_count // 3)
        self._read_turns = {
            device_id: asyncio.Semaphore(self._reads_per_device) for device_id in devices
        }

    def healthy_devices(self) -> Sequence[device_port.DeviceIdentity]:
        return self._roster.healthy()

    def try_read(self, zone: ids.ZoneAddress, offset_bytes: int, buffer: memoryview) -> bool:
        return self._roster.try_read(zone, offset_bytes, buffer)

    async def read(
        self,
        zone: ids.ZoneAddress,
        offset_bytes: int,
        buffer: memoryview,
        *,
        past_cache: bool = False,
        in_place: bool = False,
    ) -> None:
        turns = self._read_turns.get(zone.device_id)
        if turns is None:
            self._roster.device(zone.device_id)
            raise AssertionError("a device that is in service has turns")
        async with turns:
            if in_place:
                await self._read(zone, offset_bytes, buffer, past_cache)
                return
            with self._read_memory.lent(buffer.nbytes) as apart:
                await self._read(zone, offset_bytes, apart, past_cache)
                buffer[:] = apart

    async def _read(
        self, zone: ids.ZoneAddress, offset_bytes: int, memory: memoryview, past_cache: bool
    ) -> None:
        read = functools.partial(
            self._roster.read, zone, offset_bytes, memory, past_cache=past_cache
        )
        await self._run(self._read_threads, [_Command(zone.device_id, "read", read, memory)])

    async def write(
        self, zone: ids.ZoneAddress, offset_bytes: int, data: memoryview, *, durable: bool
    ) -> None:
        failures = await self.write_all(
            [media_port.ZoneWrite(zone, offset_bytes, data)], durable=durable
        )
        if failures:
            raise failures[0]

    async def write_all(
        self, writes: Sequence[media_port.ZoneWrite], *, durable: bool
    ) -> list[errors.DeviceError]:
        threads = self._sync_threads if durable else self._write_threads
        write = functools.partial(self._roster.write, durable=durable)
        return _failures(
            await self._run(threads, [_write_command(write, each) for each in writes], all_=True)
        )

    def write_all_blocking(
        self, writes: Sequence[media_port.ZoneWrite]
    ) -> list[errors.DeviceError]:
        commands = [_write_command(self._roster.append, each) for each in writes]
        outcomes = self._blocking_threads.run_all(
            [each.run for each in commands], seconds_max=self._deadline_seconds
        )
        return _failures(
            [
                self._leave_behind(command)
                if isinstance(outcome, worker_threads.OverdueError)
                else outcome
                for command, outcome in zip(commands, outcomes, strict=True)
            ]
        )

    async def flush(self, zones: Collection[ids.ZoneAddress]) -> None:
        failures = _failures(
            await self._run(
                self._sync_threads,
                [
                    _Command(
                        device_id,
                        "flush",
                        functools.partial(self._roster.flush, device_id, indexes),
                    )
                    for device_id, indexes in device_roster.by_device(zones).items()
                ],
                all_=True,
            )
        )
        if failures:
            raise failures[0]

    async def reset(self, zone: ids.ZoneAddress) -> None:
        reset = functools.partial(self._roster.reset, zone)
        await self._run(self._sync_threads, [_Command(zone.device_id, "reset", reset)])

    def device(self, device_id: ids.DeviceId) -> device_port.ZonedDevice:
        self._roster.device(device_id)
        return self._timed[device_id]

    def has_left_commands(self, device_id: ids.DeviceId) -> bool:
        """Whether a command of the device was left behind: it may still be under way."""
        return device_id in self._stalled_ids

    def report_failure(self, device_id: ids.DeviceId, error: BaseException) -> None:
        self._roster.fail(device_id, error)

    def admit(self, device: device_port.ZonedDevice) -> None:
        """Take a device into service for reads; owned by the caller as the others are."""
        self._read_turns.setdefault(
            device.identity.device_id, asyncio.Semaphore(self._reads_per_device)
        )
        self._timed[device.identity.device_id] = self._with_deadline(device)
        self._roster.admit(device)

    def employ(self, device_id: ids.DeviceId) -> None:
        """Let a device that was admitted or held be given zones."""
        self._roster.employ(device_id)

    def hold(self, device_id: ids.DeviceId) -> None:
        """Give a device no more zones; what it holds is read."""
        self._roster.hold(device_id)

    def mistrust(self, device_ids: Collection[ids.DeviceId]) -> None:
        """Give these devices no zones; others that were so treated are given some again."""
        self._roster.mistrust(device_ids)

    def refresh(self) -> None:
        """Look again at which devices retire."""
        self._roster.refresh()

    def remove(self, device_id: ids.DeviceId) -> None:
        """Take a device out of service without reporting a failure."""
        self._roster.remove(device_id)

    def close(self) -> None:
        """Wait for the commands that were sent and end the threads. Idempotent, blocking.

        What has been left behind is not waited for, nor anything for longer than the deadline.
        """
        for threads in (self._read_threads, self._write_threads, self._sync_threads):
            threads.close()
        self._blocking_threads.close()

    async def _run(
        self,
        threads: worker_threads.WorkerThreads,
        commands: Sequence[_Command],
        *,
        all_: bool = False,
    ) -> list[object]:
        """What each command returned; with ``all_`` also the errors, which are raised otherwise."""
        try:
            outcomes = await threads.run_all(
                [each.run for each in commands],
                on_overdue=lambda index: self._leave_behind(commands[index]),
            )
        except worker_threads.ThreadsClosedError as exc:
            raise errors.DeviceGoneError("the node's media are closed") from exc
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not all_:
                raise outcome
        return outcomes

    def _with_deadline(self, device: device_port.ZonedDevice) -> timed_device.TimedDevice:
        return timed_device.TimedDevice(
            device,
            self._blocking_threads,
            deadline_seconds=self._deadline_seconds,
            on_stall=self._stalled,
            memory=self._read_memory,
        )

    def _leave_behind(self, command: _Command) -> errors.DeviceStalledError:
        if command.lent is not None:
            buffers.abandon(command.lent)
        return self._stalled(command.device_id, command.name)

    def _stalled(self, device_id: ids.DeviceId, name: str) -> errors.DeviceStalledError:
        self._stalled_ids.add(device_id)
        return self._roster.stall(device_id, name, seconds=self._deadline_seconds)


class _Command(NamedTuple):
    """One command of a device, as a thread runs it."""

    device_id: ids.DeviceId
    name: str
    run: Callable[[], object]
    lent: memoryview | None = None
    """Pooled memory that it uses: that of a write, or what a read is carried out in."""


def _write_command(write: Callable[..., None], each: media_port.ZoneWrite) -> _Command:
    return _Command(each.zone.device_id, "write", functools.partial(write, *each), each.data)


def _failures(outcomes: Sequence[object]) -> list[errors.DeviceError]:
    """Failures of devices, in the order of the commands; anything else is raised."""
    failures: list[errors.DeviceError] = []
    for outcome in outcomes:
        if isinstance(outcome, errors.DeviceError):
            failures.append(outcome)
        elif isinstance(outcome, BaseException):
            raise outcome
    return failures
