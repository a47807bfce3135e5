"""Which devices of the node are in service, in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol, cast

from couchestor_daemon.ports import device as device_port
from couchestor_domain import errors, ids

FailureListener = Callable[[ids.DeviceId, BaseException], None]
"""Called once per device that fails, on the thread that noticed; must not block or raise."""


class OpportunisticReader(Protocol):
    """What a device may offer beside ``ZonedDevice``: reads that never wait."""

    def try_read(self, zone: ids.ZoneIndex, offset_bytes: int, buffer: memoryview) -> bool:
        """True when ``buffer`` was filled; False when that would have taken waiting."""
        ...


class Departure(Protocol):
    """A device that left."""

    @property
    def device_id(self) -> ids.DeviceId: ...

    @property
    def reason(self) -> str: ...


class Departures(Protocol):
    """Where the processes of a node tell each other which devices left."""

    def count(self) -> int:
        """Grows with each device that leaves; asked at every command."""
        ...

    def since(self, seen_count: int) -> Sequence[Departure]:
        """Those that left since the count was this, and have not come back."""
        ...

    def add(self, device_id: ids.DeviceId, reason: str, *, stalled: bool = False) -> None:
        """Tell the others: on their next commands, when this returns.

        Args:
            stalled: A command may still be under way, so that the device cannot come back.
        """
        ...


class DeviceRoster:
    """Devices by id, and the one rule by which they leave. Thread-safe.

    A device leaves when it is gone, or when a write, flush or reset fails: after a failed flush
    nothing unflushed on it can be trusted. A failed read is one bad place, and a full device
    still serves reads: neither makes it leave. Nor does what the process had no descriptor or
    memory for. It leaves too when it left another process.

    Args:
        departures: Shared by the processes of a node; None where there is one process alone.
    """

    def __init__(
        self,
        devices: Mapping[ids.DeviceId, device_port.ZonedDevice],
        on_failure: FailureListener,
        departures: Departures | None = None,
    ) -> None:
        self._on_failure = on_failure
        self._departures = departures
        self._seen_count = 0
        self._lock = threading.Lock()
        self._devices = dict(devices)
        self._held: set[ids.DeviceId] = set()
        """In service and read from, but not yet, or no longer, given zones."""
        self._mistrusted: frozenset[ids.DeviceId] = frozenset()
        """The same for another reason, which comes and goes on its own."""
        self._healthy = _taking_zones(self._devices.values())
        self._readers = {
            device_id: cast(OpportunisticReader, device)
            for device_id, device in self._devices.items()
            if _reads_without_waiting(device)
        }

    def healthy(self) -> Sequence[device_port.DeviceIdentity]:
        """Identities of the devices that may be given new zones, ordered by label.

        A retiring device is not among them and yet in service: what it holds is read. The same
        object until something about it changes.
        """
        self._follow()
        return self._healthy

    def admit(self, device: device_port.ZonedDevice) -> None:
        """Take a device into service, in place of an earlier one of the same id: it is read from,
        and given no zones before ``employ``."""
        device_id = device.identity.device_id
        with self._lock:
            self._held.add(device_id)
            self._devices[device_id] = device
            if _reads_without_waiting(device):
                self._readers[device_id] = cast(OpportunisticReader, device)
            self._count_healthy()

    def employ(self, device_id: ids.DeviceId) -> None:
        """Let a device be given zones, unless it retires."""
        with self._lock:
            self._held.discard(device_id)
            self._count_healthy()

    def hold(self, device_id: ids.DeviceId) -> None:
        """Give a device no more zones; what it holds is read."""
        with self._lock:
            self._held.add(device_id)
            self._count_healthy()

    def mistrust(self, device_ids: Collection[ids.DeviceId]) -> None:
        """Give these devices no zones, and others again unless they are held."""
        with self._lock:
            self._mistrusted = frozenset(device_ids)
            self._count_healthy()

    def refresh(self) -> None:
        """What stands on a device about itself has changed."""
        with self._lock:
            self._count_healthy()

    def device(self, device_id: ids.DeviceId) -> device_port.ZonedDevice:
        """Raises DeviceGoneError when the device is not in service."""
        self._follow()
        device = self._devices.get(device_id)
        if device is None:
            raise errors.DeviceGoneError(
                f"device {device_id} is not in service on this node", device=device_id
            )
        return device

    def remove(self, device_id: ids.DeviceId) -> bool:
        """Take a device out without calling it a failure; False when it was not in service."""
        with self._lock:
            self._readers.pop(device_id, None)
            found = self._devices.pop(device_id, None) is not None
            self._held.discard(device_id)
            self._count_healthy()
            return found

    def _count_healthy(self) -> None:
        self._healthy = _taking_zones(
            device
            for device_id, device in self._devices.items()
            if device_id not in self._held and device_id not in self._mistrusted
        )

    def fail(self, device_id: ids.DeviceId, error: BaseException) -> None:
        """Take a device out, of every process of the node, and tell the listener, once."""
        if self._departures is not None:
            # First, and by every thread that comes here: none may go on before the others know.
            stalled = isinstance(error, errors.DeviceStalledError)
            self._departures.add(device_id, str(error), stalled=stalled)
        if self.remove(device_id):
            self._on_failure(device_id, error)

    def stall(
        self, device_id: ids.DeviceId, command: str, *, seconds: float
    ) -> errors.DeviceStalledError:
        """Take out a device of which a command has not ended in time.

        When this returns no process gives the device a command any more: what the one that is
        still under way does late meets only what was there when the device left.
        """
        device = self._devices.get(device_id)
        label = device_id if device is None else device.identity.label
        error = errors.DeviceStalledError(
            f"a {command} on device {label} has not ended after {seconds:g} s: the node does "
            "without the device until it is started again; look at the drive and its cables, then "
            "restart the node or replace the drive",
            device=device_id,
        )
        self.fail(device_id, error)
        return error

    def _follow(self) -> None:
        """Let go of what left other processes."""
        departures = self._departures
        if departures is None or departures.count() == self._seen_count:
            return
        count = departures.count()
        for row in departures.since(self._seen_count):
            if self.remove(row.device_id):
                self._on_failure(
                    row.device_id, errors.DeviceGoneError(f"left another process: {row.reason}")
                )
        # Only now: a thread that finds nothing new finds the devices gone. Two threads may do
        # the same twice over.
        self._seen_count = count

    def try_read(self, zone: ids.ZoneAddress, offset_bytes: int, buffer: memoryview) -> bool:
        """Read without waiting; False when it would wait or the device cannot tell."""
        self._follow()
        reader = self._readers.get(zone.device_id)
        if reader is None:
            self.device(zone.device_id)
            return False
        try:
            return reader.try_read(zone.zone_index, offset_bytes, buffer)
        except errors.DeviceIoError:
            return False  # The read proper reports it.
        except errors.DeviceGoneError as exc:
            self.fail(zone.device_id, exc)
            raise

    def read(
        self,
        zone: ids.ZoneAddress,
        offset_bytes: int,
        buffer: memoryview,
        *,
        past_cache: bool = False,
    ) -> None:
        device = self.device(zone.device_id)
        try:
            device.read(zone.zone_index, offset_bytes, buffer, past_cache=past_cache)
        except errors.DeviceGoneError as exc:
            self.fail(zone.device_id, exc)
            raise

    def write(
        self, zone: ids.ZoneAddress, offset_bytes: int, data: memoryview, *, durable: bool
    ) -> None:
        device = self.device(zone.device_id)
        try:
            device.write(zone.zone_index, offset_bytes, data, durable=durable)
        except (errors.DeviceGoneError, errors.DeviceIoError) as exc:
            self.fail(zone.device_id, exc)
            raise

    def append(self, zone: ids.ZoneAddress, offset_bytes: int, data: memoryview) -> None:
        """A durable write after which the device stays only if nothing failed, it is full, or the
        process is starved."""
        device = self.device(zone.device_id)
        try:
            device.write(zone.zone_index, offset_bytes, data, durable=True)
        except (errors.DeviceFullError, errors.DeviceStarvedError):
            raise
        except errors.DeviceError as exc:
            self.fail(zone.device_id, exc)
            raise

    def flush(self, device_id: ids.DeviceId, zones: Collection[ids.ZoneIndex]) -> None:
        device = self.device(device_id)
        try:
            device.flush(zones)
        except errors.DeviceError as exc:
            # Every kind, ENOSPC of a delayed allocation too: the flush is final for the device.
            if not isinstance(exc, (errors.ZoneStateError, errors.DeviceStarvedError)):
                self.fail(device_id, exc)
            raise

    def reset(self, zone: ids.ZoneAddress) -> None:
        device = self.device(zone.device_id)
        try:
            device.reset(zone.zone_index)
        except (errors.DeviceGoneError, errors.DeviceIoError) as exc:
            self.fail(zone.device_id, exc)
            raise


def _reads_without_waiting(device: device_port.ZonedDevice) -> bool:
    return callable(getattr(device, "try_read", None))


def _taking_zones(
    devices: Iterable[device_port.ZonedDevice],
) -> tuple[device_port.DeviceIdentity, ...]:
    identities = [device.identity for device in devices if not device.identity.retiring]
    return tuple(sorted(identities, key=lambda identity: (identity.label, identity.device_id)))


def by_device(
    zones: Collection[ids.ZoneAddress],
) -> dict[ids.DeviceId, list[ids.ZoneIndex]]:
    """Zones of each device, devices in order of first mention."""
    grouped: dict[ids.DeviceId, list[ids.ZoneIndex]] = {}
    for zone in zones:
        grouped.setdefault(zone.device_id, []).append(zone.zone_index)
    return grouped
