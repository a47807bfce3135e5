"""A device whose blocking commands are waited for no longer than its deadline."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar, cast

from couchestor_daemon import buffers
from couchestor_daemon.adapters import blocking_threads, worker_threads
from couchestor_daemon.ports import device as device_port
from couchestor_domain import errors, ids

T = TypeVar("T")


class TimedDevice:
    """``ports.device.ZonedDevice``: each command runs on a thread that may be left behind.

    What a command uses that is left behind is its own: reads go into memory of their own, and
    memory written from is never lent again.

    Args:
        device: Carries the commands out.
        threads: Where they run.
        deadline_seconds: For each command.
        on_stall: Takes the device out of service and gives the error to raise; told the command.
    """

    def __init__(
        self,
        device: device_port.ZonedDevice,
        threads: blocking_threads.BlockingThreads,
        *,
        deadline_seconds: float,
        on_stall: Callable[[ids.DeviceId, str], errors.DeviceStalledError],
    ) -> None:
        self._device = device
        self._threads = threads
        self._deadline_seconds = deadline_seconds
        self._on_stall = on_stall

    @property
    def identity(self) -> device_port.DeviceIdentity:
        return self._device.identity

    def report(self) -> Sequence[device_port.ZoneReport]:
        return self._run("report", self._device.report)

    def read(self, zone: ids.ZoneIndex, offset_bytes: int, buffer: memoryview) -> None:
        buffer[:] = self._run(
            "read",
            functools.partial(read_apart, self._device.read, zone, offset_bytes, buffer.nbytes),
        )

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


def read_apart(
    read: Callable[[T, int, memoryview], None], zone: T, offset_bytes: int, length_bytes: int
) -> memoryview:
    """Read into fresh memory, which the caller never sees when it no longer waits."""
    fresh = memoryview(bytearray(length_bytes))
    read(zone, offset_bytes, fresh)
    return fresh
