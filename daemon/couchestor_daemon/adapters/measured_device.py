"""A device whose commands are timed and counted, on the threads that carry them out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from time import perf_counter
from typing import Final, Protocol

from couchestor_daemon.ports import device as device_port
from couchestor_daemon.ports import drive_figures
from couchestor_domain import errors, ids

_READ: Final = drive_figures.Command.READ
_WRITE: Final = drive_figures.Command.WRITE
_APPEND: Final = drive_figures.Command.APPEND
_FLUSH: Final = drive_figures.Command.FLUSH


class Counts(Protocol):
    """Where the commands of one device are counted. Cheap, thread-safe."""

    def count(self, command: drive_figures.Command, length_bytes: int, seconds: float) -> None:
        """A command has ended, well or not."""
        ...

    def failed_read(self) -> None:
        """A read failed."""
        ...


class MeasuredDevice:
    """``ports.device.ZonedDevice``; offers reads that never wait if the device does.

    Those, resets and questions are not timed: the first are memory's, the others too rare.

    Args:
        device: Carries the commands out.
    """

    try_read: Callable[[ids.ZoneIndex, int, memoryview], bool]

    def __init__(self, device: device_port.ZonedDevice, counts: Counts) -> None:
        self._device = device
        self._counts = counts
        self.report: Callable[[], Sequence[device_port.ZoneReport]] = device.report
        self.reset: Callable[[ids.ZoneIndex], None] = device.reset
        self.space: Callable[[], device_port.DeviceSpace] = device.space
        self.close: Callable[[], None] = device.close
        try_read = getattr(device, "try_read", None)
        if try_read is not None:
            self.try_read = try_read

    @property
    def identity(self) -> device_port.DeviceIdentity:
        return self._device.identity

    def read(
        self,
        zone: ids.ZoneIndex,
        offset_bytes: int,
        buffer: memoryview,
        *,
        past_cache: bool = False,
    ) -> None:
        began = perf_counter()
        try:
            self._device.read(zone, offset_bytes, buffer, past_cache=past_cache)
        except errors.DeviceIoError:
            self._counts.failed_read()
            raise
        finally:
            self._counts.count(_READ, buffer.nbytes, perf_counter() - began)

    def write(
        self, zone: ids.ZoneIndex, offset_bytes: int, data: memoryview, *, durable: bool
    ) -> None:
        began = perf_counter()
        try:
            self._device.write(zone, offset_bytes, data, durable=durable)
        finally:
            self._counts.count(_APPEND if durable else _WRITE, data.nbytes, perf_counter() - began)

    def flush(self, zones: Collection[ids.ZoneIndex]) -> None:
        began = perf_counter()
        try:
            self._device.flush(zones)
        finally:
            self._counts.count(_FLUSH, 0, perf_counter() - began)
