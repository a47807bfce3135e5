"""A device whose blocking commands are waited for no longer than its deadline."""

from __future__ import annotations

import contextlib
import functools
import mmap
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final, TypeVar, cast

from couchestor_daemon import buffers
from couchestor_daemon.adapters import blocking_threads, worker_threads
from couchestor_daemon.ports import device as device_port
from couchestor_domain import errors, ids, units

T = TypeVar("T")

READ_MEMORY_BYTES: Final = 16 * units.MIB
"""For the reads of one process that wait for devices at one time."""


class TimedDevice:
    """``ports.device.ZonedDevice``: each command runs on a thread that may be left behind.

    What a command uses that is left behind is its own: reads go into memory apart from the
    caller's, and that, as what is written from, is never lent again.

    Args:
        device: Carries the commands out.
        threads: Where they run.
        deadline_seconds: For each command.
        on_stall: Takes the device out of service and gives the error to raise; told the command.
        memory: What reads are carried out in.
    """

    def __init__(
        self,
        device: device_port.ZonedDevice,
        threads: blocking_threads.BlockingThreads,
        *,
        deadline_seconds: float,
        on_stall: Callable[[ids.DeviceId, str], errors.DeviceStalledError],
        memory: ReadMemory,
    ) -> None:
        self._device = device
        self._threads = threads
        self._deadline_seconds = deadline_seconds
        self._on_stall = on_stall
        self._memory = memory

    @property
    def identity(self) -> device_port.DeviceIdentity:
        return self._device.identity

    def report(self) -> Sequence[device_port.ZoneReport]:
        return self._run("report", self._device.report)

    def read(
        self,
        zone: ids.ZoneIndex,
        offset_bytes: int,
        buffer: memoryview,
        *,
        past_cache: bool = False,
    ) -> None:
        with self._memory.lent(buffer.nbytes) as apart:
            self._run(
                "read",
                functools.partial(
                    self._device.read, zone, offset_bytes, apart, past_cache=past_cache
                ),
                lent=apart,
            )
            buffer[:] = apart

    def write(
        self, zone: ids.ZoneIndex, offset_bytes: int, data: memoryview, *, durable: bool
    ) -> None:
        self._run(
            "write",
            functools.partial(self._device.write, zone, offset_bytes, data, durable=durable),
            lent=data,
        )

    def flush(self, zones: Collection[ids.ZoneIndex]) -> None:
        self._run("flush", functools.partial(self._device.flush, tuple(zones)))

    def reset(self, zone: ids.ZoneIndex) -> None:
        self._run("reset", functools.partial(self._device.reset, zone))

    def space(self) -> device_port.DeviceSpace:
        return self._run("space", self._device.space)

    def close(self) -> None:
        """Nothing: the device is its owner's to close."""

    def _run(self, name: str, command: Callable[[], T], *, lent: memoryview | None = None) -> T:
        (outcome,) = self._threads.run_all([command], seconds_max=self._deadline_seconds)
        if isinstance(outcome, worker_threads.OverdueError):
            if lent is not None:
                buffers.abandon(lent)
            raise self._on_stall(self.identity.device_id, name)
        if isinstance(outcome, BaseException):
            raise outcome
        return cast(T, outcome)


class ReadMemory:
    """Memory that reads are carried out in, apart from their callers', and used again.

    A caller must be able to go on with its buffer when it no longer waits; what the device may
    still write into is abandoned then. Thread-safe.

    Args:
        kept_bytes_max: What is lent and kept; a read that finds nothing has memory of its own.
    """

    def __init__(self, kept_bytes_max: int = READ_MEMORY_BYTES) -> None:
        self._pool = buffers.BufferPool(kept_bytes_max)

    @contextlib.contextmanager
    def lent(self, length_bytes: int) -> Iterator[memoryview]:
        """Memory of this length, until the block ends, or longer if it was abandoned."""
        found = self._pool.try_acquire(length_bytes)
        if found is None:
            yield memoryview(mmap.mmap(-1, max(1, length_bytes)))[:length_bytes]
            return
        with found:
            yield found.view[:length_bytes]
