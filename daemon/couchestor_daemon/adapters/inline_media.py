"""Media whose commands run inline on the event loop: for the simulator and for tools."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence

from couchestor_daemon.adapters import device_roster
from couchestor_daemon.ports import device as device_port
from couchestor_daemon.ports import media as media_port
from couchestor_domain import errors, ids


class InlineMedia:
    """``ports.media.Media`` without threads, so that a run is a function of its seed.

    Args:
        yield_before_commands: Let other tasks run before each command, so that commands of
            concurrent tasks interleave, always in the same way.
        departures: Where processes tell each other which devices left.
    """

    def __init__(
        self,
        devices: Mapping[ids.DeviceId, device_port.ZonedDevice],
        on_failure: device_roster.FailureListener,
        *,
        yield_before_commands: bool = False,
        departures: device_roster.Departures | None = None,
    ) -> None:
        self._roster = device_roster.DeviceRoster(devices, on_failure, departures)
        self._yield_before_commands = yield_before_commands

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
        await self._pass_turn()
        self._roster.read(zone, offset_bytes, buffer, past_cache=past_cache)

    async def write(
        self, zone: ids.ZoneAddress, offset_bytes: int, data: memoryview, *, durable: bool
    ) -> None:
        await self._pass_turn()
        self._roster.write(zone, offset_bytes, data, durable=durable)

    async def write_all(
        self, writes: Sequence[media_port.ZoneWrite], *, durable: bool
    ) -> list[errors.DeviceError]:
        failures: list[errors.DeviceError] = []
        for zone, offset_bytes, data in writes:
            try:
                await self.write(zone, offset_bytes, data, durable=durable)
            except errors.DeviceError as exc:
                failures.append(exc)
        return failures

    def write_all_blocking(
        self, writes: Sequence[media_port.ZoneWrite]
    ) -> list[errors.DeviceError]:
        failures: list[errors.DeviceError] = []
        for write in writes:
            try:
                self._roster.append(*write)
            except errors.DeviceError as exc:
                failures.append(exc)
        return failures

    async def flush(self, zones: Collection[ids.ZoneAddress]) -> None:
        first: errors.DeviceError | None = None
        for device_id, indexes in device_roster.by_device(zones).items():
            await self._pass_turn()
            try:
                self._roster.flush(device_id, indexes)
            except errors.DeviceError as exc:
                first = first or exc
        if first is not None:
            raise first

    async def reset(self, zone: ids.ZoneAddress) -> None:
        await self._pass_turn()
        self._roster.reset(zone)

    def device(self, device_id: ids.DeviceId) -> device_port.ZonedDevice:
        return self._roster.device(device_id)

    def report_failure(self, device_id: ids.DeviceId, error: BaseException) -> None:
        self._roster.fail(device_id, error)

    def admit(self, device: device_port.ZonedDevice) -> None:
        """Take a device into service for reads; owned by the caller as the others are."""
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

    async def _pass_turn(self) -> None:
        if self._yield_before_commands:
            await asyncio.sleep(0)
