"""Commands that hang: what ``threaded_media`` makes of them, in virtual time.

A device told to hang leaves its next command without an end for some time. Shorter than the
deadline, it is only late. Otherwise the command fails as it does in the daemon: its device is on
the board before anybody acts on it, the memory of a write is abandoned. What was left behind takes
effect later in the run, or when its process ends, or never; it reads its memory only then.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, NamedTuple

from couchestor_daemon import buffers
from couchestor_daemon.adapters import (
    departure_board,
    device_roster,
    inline_media,
    simulated_device,
)
from couchestor_daemon.ports import device as device_port
from couchestor_daemon.ports import media as media_port
from couchestor_domain import errors, ids

DEADLINE_SECONDS: Final = 2e-3
LATE_SECONDS_MEAN: Final = 10e-3


class Board:
    """Which devices have left in this run, for all processes: ``adapters.departure_board``."""

    def __init__(self) -> None:
        self._rows: list[departure_board.Departure] = []

    def count(self) -> int:
        """Devices so far."""
        return len(self._rows)

    def since(self, seen_count: int) -> Sequence[departure_board.Departure]:
        """Those after the first ``seen_count``."""
        return self._rows[seen_count:]

    def add(self, device_id: ids.DeviceId, reason: str, *, stalled: bool = False) -> None:
        """Each device once."""
        if all(device_id != known.device_id for known in self._rows):
            self._rows.append(departure_board.Departure(device_id, reason))


class _Late(NamedTuple):
    process: object
    run: Callable[[], None]
    data: memoryview | None
    digest: bytes


class Stalls:
    """Which devices hang next, and what was left behind; outlives processes, not a run."""

    def __init__(
        self,
        seed: str,
        world: simulated_device.SimulatedWorld,
        happened: Callable[[str], None],
    ) -> None:
        self.board = Board()
        self._rng = random.Random(f"{seed}/stalls")
        self._world = world
        self._happened = happened
        self._armed: dict[ids.DeviceId, float] = {}
        self._late: list[_Late] = []

    def arm(self, device_id: ids.DeviceId, seconds: float) -> None:
        """The next command of the device takes so long."""
        self._armed[device_id] = seconds

    def take(self, device_id: ids.DeviceId) -> float:
        """How long the command that begins now hangs; 0.0: not at all."""
        return self._armed.pop(device_id, 0.0)

    def leave_behind(
        self, process: object, run: Callable[[], None], data: memoryview | None
    ) -> None:
        """Nobody waits for a command any more."""
        late = _Late(process, run, data, _digest(data))
        self._late.append(late)
        if self._rng.random() < 0.7:
            # In a context of its own: the process may die while the command goes on.
            asyncio.get_running_loop().call_later(
                self._rng.expovariate(1 / LATE_SECONDS_MEAN), self._land, late
            )

    def process_ended(self, process: object) -> None:
        """A process is gone, and with it what it had left behind: it took effect, or not."""
        for late in [late for late in self._late if late.process is process]:
            self._land_or_not(late)

    def run_ended(self, *, power_loss: bool) -> None:
        """Every process is gone; the next run begins with an empty board."""
        self._armed.clear()
        for late in list(self._late):
            if power_loss:
                self._late.remove(late)
            else:
                self._land_or_not(late)
        self.board = Board()

    def _land_or_not(self, late: _Late) -> None:
        if self._rng.random() < 0.5:
            self._land(late)
        elif late in self._late:
            self._late.remove(late)

    def _land(self, late: _Late) -> None:
        if late not in self._late:
            return
        self._late.remove(late)
        if _digest(late.data) != late.digest:
            raise AssertionError("memory that a command under way reads was changed")
        # The world may end at this command, too.
        with contextlib.suppress(errors.DeviceError, simulated_device.SimulatedCrash):
            late.run()
            self._happened("landed-late")


def _digest(data: memoryview | None) -> bytes:
    return b"" if data is None else hashlib.blake2b(data, digest_size=16).digest()


class StallingMedia(inline_media.InlineMedia):
    """``InlineMedia`` of one process whose devices may hang."""

    def __init__(
        self, devices: Mapping[ids.DeviceId, device_port.ZonedDevice], stalls: Stalls
    ) -> None:
        super().__init__(
            devices,
            lambda device_id, error: None,
            yield_before_commands=True,
            departures=stalls.board,
        )
        self._stalls = stalls
        self._devices = dict(devices)

    async def read(
        self,
        zone: ids.ZoneAddress,
        offset_bytes: int,
        buffer: memoryview,
        *,
        past_cache: bool = False,
        in_place: bool = False,
    ) -> None:
        filled = buffer if in_place else memoryview(bytearray(buffer.nbytes))
        try:
            await self._hang(
                zone.device_id,
                "read",
                lambda device: device.read(zone[1], offset_bytes, filled, past_cache=past_cache),
            )
        except errors.DeviceStalledError:
            if in_place:
                buffers.abandon(buffer)
            raise
        await super().read(zone, offset_bytes, buffer, past_cache=past_cache)

    async def write(
        self, zone: ids.ZoneAddress, offset_bytes: int, data: memoryview, *, durable: bool
    ) -> None:
        await self._hang(
            zone.device_id,
            "write",
            lambda device: device.write(zone[1], offset_bytes, data, durable=durable),
            data,
        )
        await super().write(zone, offset_bytes, data, durable=durable)

    async def flush(self, zones: Collection[ids.ZoneAddress]) -> None:
        failure: errors.DeviceError | None = None
        for device_id, indexes in device_roster.by_device(zones).items():
            try:
                await self._hang(device_id, "flush", functools.partial(_flush, indexes))
            except errors.DeviceError as exc:
                failure = exc
        await super().flush(zones)
        if failure is not None:
            raise failure

    async def reset(self, zone: ids.ZoneAddress) -> None:
        await self._hang(zone.device_id, "reset", lambda device: device.reset(zone[1]))
        await super().reset(zone)

    def write_all_blocking(
        self, writes: Sequence[media_port.ZoneWrite]
    ) -> list[errors.DeviceError]:
        failures: list[errors.DeviceError] = []
        for zone, offset_bytes, data in writes:
            try:
                self.device(zone.device_id).write(zone.zone_index, offset_bytes, data, durable=True)
            except errors.DeviceFullError as exc:
                failures.append(exc)
            except errors.DeviceError as exc:
                self.report_failure(zone.device_id, exc)
                failures.append(exc)
        return failures

    def device(self, device_id: ids.DeviceId) -> device_port.ZonedDevice:
        return _HangingDevice(super().device(device_id), self)

    async def _hang(
        self,
        device_id: ids.DeviceId,
        name: str,
        command: Callable[[device_port.ZonedDevice], None],
        data: memoryview | None = None,
    ) -> None:
        """Let a command hang if it is time for it; raises once it has passed the deadline."""
        self._roster.device(device_id)
        seconds = self._stalls.take(device_id)
        if not seconds:
            return
        await asyncio.sleep(min(seconds, DEADLINE_SECONDS))
        if seconds >= DEADLINE_SECONDS:
            device = self._devices[device_id]
            raise self.left_behind(device_id, name, lambda: command(device), data)

    def hang_now(
        self,
        device_id: ids.DeviceId,
        name: str,
        command: Callable[[], None],
        data: memoryview | None = None,
    ) -> None:
        """The same on a thread that waits itself, where no virtual time can pass."""
        if self._stalls.take(device_id) >= DEADLINE_SECONDS:
            raise self.left_behind(device_id, name, command, data)

    def left_behind(
        self,
        device_id: ids.DeviceId,
        name: str,
        command: Callable[[], None],
        data: memoryview | None,
    ) -> errors.DeviceStalledError:
        """What ``ThreadedMedia`` does with a command that is overdue."""
        self._stalls.leave_behind(self, command, data)
        if data is not None:
            buffers.abandon(data)
        return self._roster.stall(device_id, name, seconds=DEADLINE_SECONDS)


def _flush(indexes: Collection[ids.ZoneIndex], device: device_port.ZonedDevice) -> None:
    device.flush(indexes)


class _HangingDevice:
    """``ZonedDevice`` as ``adapters.timed_device`` makes it."""

    def __init__(self, device: device_port.ZonedDevice, media: StallingMedia) -> None:
        self._device = device
        self._media = media

    @property
    def identity(self) -> device_port.DeviceIdentity:
        return self._device.identity

    def report(self) -> Sequence[device_port.ZoneReport]:
        return self._device.report()

    def read(
        self,
        zone: ids.ZoneIndex,
        offset_bytes: int,
        buffer: memoryview,
        *,
        past_cache: bool = False,
    ) -> None:
        self._device.read(zone, offset_bytes, buffer, past_cache=past_cache)

    def write(
        self, zone: ids.ZoneIndex, offset_bytes: int, data: memoryview, *, durable: bool
    ) -> None:
        self._media.hang_now(
            self.identity.device_id,
            "write",
            lambda: self._device.write(zone, offset_bytes, data, durable=durable),
            data,
        )
        self._device.write(zone, offset_bytes, data, durable=durable)

    def flush(self, zones: Collection[ids.ZoneIndex]) -> None:
        self._media.hang_now(self.identity.device_id, "flush", lambda: self._device.flush(zones))
        self._device.flush(zones)

    def reset(self, zone: ids.ZoneIndex) -> None:
        self._media.hang_now(self.identity.device_id, "reset", lambda: self._device.reset(zone))
        self._device.reset(zone)

    def space(self) -> device_port.DeviceSpace:
        return self._device.space()

    def close(self) -> None:
        self._device.close()
