"""Devices that fail on purpose, as a function of a seed.

Fault model: what the simulator may do, and so what CoucheStor promises to survive.

Power loss     Each write that no flush covers and that was not durable is kept, dropped or torn
               on its own, in no order. A torn write keeps any of its 512-byte sectors; the
               others hold zeros or garbage. The write pointer ends anywhere between the last
               durable byte and the last byte written; holes read as zeros. A durable write makes
               itself durable, not the writes before it.
Process crash  Keeps everything written, but what was not flushed stays volatile: a later power
               loss can still take it.
Crash at n     Command n itself (write, flush, reset, identity; reads do not count) is in doubt:
               a write leaves a prefix of blocks (process crash) or is torn (power loss), also a
               durable one; a flush made some of its writes durable; a reset or an identity
               happened or did not, as a whole. Until ``restart`` every command raises.
Reset          As a whole and durable once it has returned.
Death          ``kill``: every command raises DeviceGoneError, for good or until ``revive``.
Rot            ``corrupt``: bytes change silently, at rest.
EIO            ``fail_next_read`` / ``_write`` / ``_flush``: a failed read changes nothing, a
               failed write appends nothing, a failed flush makes nothing durable.
ENOSPC         ``full``: writes raise DeviceFullError and append nothing; the rest works.
Misdirection   ``misdirect_next_write``: the write reports success and advances the pointer, but
               its place reads as zeros, and its bytes land on blocks written before elsewhere on
               the device, if there are any.
Stall          ``stall_seconds``: each command first reports that delay to the world's
               ``on_delay``, where virtual time passes.

The same seed and the same commands in the same order give the same bytes.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, NamedTuple

from couchestor_daemon.adapters import zone_rules
from couchestor_daemon.ports import device as device_port
from couchestor_domain import errors, ids, units

SECTOR_BYTES: Final = 512
assert units.BLOCK_BYTES % SECTOR_BYTES == 0, SECTOR_BYTES


class SimulatedCrash(BaseException):
    """The process is dead; not an Exception, so that nothing under test can handle it."""


class _Write(NamedTuple):
    offset_bytes: int
    data: bytes


class _Zone:
    """``content`` is what reads see, ``durable`` what is on media, ``volatile`` the difference."""

    __slots__ = ("content", "durable", "volatile")

    def __init__(self) -> None:
        self.content = bytearray()
        self.durable = bytearray()
        self.volatile: list[_Write] = []

    def append(self, data: bytes) -> None:
        self.volatile.append(_Write(len(self.content), data))
        self.content += data

    def persist(self, write: _Write) -> None:
        _patch(self.durable, write.offset_bytes, write.data)

    def lose_power(self, rng: random.Random) -> None:
        """Decide the fate of every volatile write."""
        reached = len(self.content)
        for write in self.volatile:
            fate = rng.choice(("keep", "drop", "tear"))
            if fate == "keep":
                self.persist(write)
            elif fate == "tear":
                self.persist(_Write(write.offset_bytes, _torn(write.data, rng)))
        if len(self.durable) < reached and rng.random() < 0.5:
            # The file grew although its last writes were lost.
            blocks_count = (reached - len(self.durable)) // units.BLOCK_BYTES
            self.durable += bytes(rng.randint(0, blocks_count) * units.BLOCK_BYTES)
        self.volatile.clear()
        self.content = bytearray(self.durable)


class SimulatedWorld:
    """The devices of one simulated node, their one clock of commands and their one dice.

    Args:
        seed: Everything random follows from it.
        on_delay: Told (device, seconds) before each command of a stalling device.
    """

    def __init__(
        self, seed: int, *, on_delay: Callable[[ids.DeviceId, float], None] | None = None
    ) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.crash_at: int | None = None
        """Number of the command that crashes the process; the first command is number 1."""
        self.commands_count = 0
        self.crashed = False
        self.on_delay = on_delay
        self.lock = threading.RLock()
        self._devices: dict[ids.DeviceId, SimulatedDevice] = {}
        self._in_doubt: Callable[[bool], None] | None = None

    @property
    def devices(self) -> Mapping[ids.DeviceId, SimulatedDevice]:
        """By id, in the order they were added."""
        return self._devices

    def add_device(self, identity: device_port.DeviceIdentity) -> SimulatedDevice:
        """A new, empty device."""
        assert identity.device_id not in self._devices, identity.device_id
        device = self._devices[identity.device_id] = SimulatedDevice(self, identity)
        return device

    def power_loss(self) -> None:
        """Take everything volatile away, or some of it. Also kills the process: see ``restart``."""
        with self.lock:
            self._settle(power_loss=True)
            for device in self._devices.values():
                device.lose_power()
            self.crashed = True

    def restart(self, *, power_loss: bool) -> None:
        """Start the process again, after a power loss or a mere crash; disarms ``crash_at``."""
        with self.lock:
            if power_loss:
                self.power_loss()
            self._settle(power_loss=False)
            self.crashed = False
            self.crash_at = None

    def count_command(self, in_doubt: Callable[[bool], None]) -> None:
        """Number a command; crash if its number is up. Called by devices under ``lock``.

        Args:
            in_doubt: Settles the command if it is the one that crashes; its argument says
                whether power is lost too.
        """
        self.commands_count += 1
        if self.commands_count == self.crash_at:
            self.crashed = True
            self._in_doubt = in_doubt
            self.check_running()

    def check_running(self) -> None:
        """Raises SimulatedCrash while the process is dead."""
        if self.crashed:
            raise SimulatedCrash(f"seed {self.seed}, command {self.commands_count}")

    def _settle(self, *, power_loss: bool) -> None:
        settle, self._in_doubt = self._in_doubt, None
        if settle is not None:
            settle(power_loss)


class SimulatedDevice:
    """``ports.device.ZonedDevice`` with the module's fault model; made by ``add_device``."""

    def __init__(self, world: SimulatedWorld, identity: device_port.DeviceIdentity) -> None:
        self.full = False
        self.stall_seconds = 0.0
        self._world = world
        self._identity = identity
        self._zones: dict[ids.ZoneIndex, _Zone] = {}
        self._dead = False
        self._failures = {"read": 0, "write": 0, "flush": 0}
        self._misdirect = False

    # -- faults -----------------------------------------------------------------------------

    def kill(self) -> None:
        """From now on every command raises DeviceGoneError."""
        self._dead = True

    def revive(self) -> None:
        """Plug the device in again, with what it held."""
        self._dead = False

    def corrupt(self, zone: ids.ZoneIndex, offset_bytes: int, length_bytes: int) -> None:
        """Change every byte of the range that is written; asserts that one is."""
        with self._world.lock:
            held = self._zones.get(zone) or _Zone()
            end = min(offset_bytes + length_bytes, len(held.content))
            assert offset_bytes < end, (zone, offset_bytes, len(held.content))
            rot = bytes(self._world.rng.randint(1, 255) for _ in range(end - offset_bytes))
            for image in (held.content, held.durable):
                for index, flips in enumerate(rot[: max(0, len(image) - offset_bytes)]):
                    image[offset_bytes + index] ^= flips
            held.volatile = [
                _Write(w.offset_bytes, bytes(held.content[w.offset_bytes :][: len(w.data)]))
                for w in held.volatile
            ]

    def fail_next_read(self, count: int = 1) -> None:
        """The next ``count`` reads raise DeviceIoError."""
        self._failures["read"] = count

    def fail_next_write(self, count: int = 1) -> None:
        """The next ``count`` writes raise DeviceIoError and append nothing."""
        self._failures["write"] = count

    def fail_next_flush(self, count: int = 1) -> None:
        """The next ``count`` flushes raise DeviceIoError and make nothing durable."""
        self._failures["flush"] = count

    def misdirect_next_write(self) -> None:
        """The next write lands in the wrong place and reports success."""
        self._misdirect = True

    def lose_power(self) -> None:
        """This device's part of ``SimulatedWorld.power_loss``."""
        for zone in sorted(self._zones):
            self._zones[zone].lose_power(self._world.rng)

    # -- the port ---------------------------------------------------------------------------

    @property
    def identity(self) -> device_port.DeviceIdentity:
        return self._identity

    def write_identity(self, identity: device_port.DeviceIdentity) -> None:
        """Replace the identity, as a whole and durably."""

        def apply() -> None:
            self._identity = identity

        with self._world.lock:
            self._begin()
            self._world.count_command(lambda _: self._perhaps(apply))
            apply()

    def report(self) -> Sequence[device_port.ZoneReport]:
        with self._world.lock:
            self._begin()
            return [
                zone_rules.zone_report(self._identity, zone, len(held.content))
                for zone, held in sorted(self._zones.items())
                if held.content
            ]

    def read(
        self,
        zone: ids.ZoneIndex,
        offset_bytes: int,
        buffer: memoryview,
        *,
        past_cache: bool = False,
    ) -> None:
        length = buffer.nbytes
        zone_rules.check_range(self._identity, zone, offset_bytes=offset_bytes, length_bytes=length)
        with self._world.lock:
            self._begin()
            self._fail_if_armed("read", zone)
            held = self._zones.get(zone)
            found = held.content[offset_bytes : offset_bytes + length] if held else b""
            buffer[: len(found)] = found
            buffer[len(found) :] = bytes(length - len(found))

    def try_read(self, zone: ids.ZoneIndex, offset_bytes: int, buffer: memoryview) -> bool:
        """Never waits, so always True."""
        self.read(zone, offset_bytes, buffer)
        return True

    def write(
        self, zone: ids.ZoneIndex, offset_bytes: int, data: memoryview, *, durable: bool
    ) -> None:
        zone_rules.check_range(
            self._identity, zone, offset_bytes=offset_bytes, length_bytes=data.nbytes
        )
        with self._world.lock:
            self._begin()
            held = self._zones.get(zone) or _Zone()
            zone_rules.check_pointer(
                self._identity, zone, offset_bytes=offset_bytes, pointer_bytes=len(held.content)
            )
            written = bytes(data)
            self._world.count_command(lambda lost: self._half_write(zone, written, lost))
            self._fail_if_armed("write", zone)
            if self.full:
                raise errors.DeviceFullError(
                    f"write on {self._place(zone)} failed: no space left",
                    device=self._identity.device_id,
                )
            if self._misdirect:
                self._misdirect = False
                self._write_elsewhere(zone, written)
                written = bytes(len(written))
            self._zones[zone] = held
            held.append(written)
            if durable:
                held.persist(held.volatile.pop())

    def flush(self, zones: Collection[ids.ZoneIndex]) -> None:
        for zone in zones:
            zone_rules.check_zone(self._identity, zone)
        with self._world.lock:
            self._begin()
            # A flush in doubt needs nothing: power loss keeps some volatile writes anyhow.
            self._world.count_command(lambda _: None)
            self._fail_if_armed("flush", min(zones, default=ids.ZoneIndex(0)))
            for zone in zones:
                held = self._zones.get(zone)
                if held is not None:
                    held.durable[:] = held.content
                    held.volatile.clear()

    def reset(self, zone: ids.ZoneIndex) -> None:
        zone_rules.check_zone(self._identity, zone)

        def apply() -> None:
            self._zones.pop(zone, None)

        with self._world.lock:
            self._begin()
            self._world.count_command(lambda _: self._perhaps(apply))
            apply()

    def space(self) -> device_port.DeviceSpace:
        capacity = self._identity.zone_count * self._identity.zone_capacity_bytes
        with self._world.lock:
            self._begin()
            used = sum(len(held.content) for held in self._zones.values())
        return device_port.DeviceSpace(capacity, 0 if self.full else capacity - used)

    def close(self) -> None:
        """Nothing to release: the device outlives the process that used it."""

    def _begin(self) -> None:
        self._world.check_running()
        if self.stall_seconds and self._world.on_delay is not None:
            self._world.on_delay(self._identity.device_id, self.stall_seconds)
        if self._dead:
            raise errors.DeviceGoneError(
                f"device {self._identity.label} is gone", device=self._identity.device_id
            )

    def _fail_if_armed(self, command: str, zone: ids.ZoneIndex) -> None:
        if self._failures[command] > 0:
            self._failures[command] -= 1
            raise errors.DeviceIoError(
                f"{command} on {self._place(zone)} failed: input/output error",
                device=self._identity.device_id,
            )

    def _half_write(self, zone: ids.ZoneIndex, data: bytes, power_lost: bool) -> None:
        if self.full:
            return
        if not power_lost:
            blocks_count = self._world.rng.randint(0, len(data) // units.BLOCK_BYTES)
            data = data[: blocks_count * units.BLOCK_BYTES]
        if data:
            self._zones.setdefault(zone, _Zone()).append(data)

    def _write_elsewhere(self, zone: ids.ZoneIndex, data: bytes) -> None:
        rng = self._world.rng
        candidates = [index for index in sorted(self._zones) if self._zones[index].content]
        if not candidates:
            return
        victim = self._zones[rng.choice(candidates)]
        offset = rng.randrange(len(victim.content) // units.BLOCK_BYTES) * units.BLOCK_BYTES
        landed = data[: len(victim.content) - offset]
        _patch(victim.content, offset, landed)
        victim.volatile.append(_Write(offset, landed))

    def _perhaps(self, apply: Callable[[], None]) -> None:
        if self._world.rng.random() < 0.5:
            apply()

    def _place(self, zone: ids.ZoneIndex) -> str:
        return f"zone {zone} of device {self._identity.label}"


def _patch(image: bytearray, offset_bytes: int, data: bytes) -> None:
    if len(image) < offset_bytes:
        image.extend(bytes(offset_bytes - len(image)))
    image[offset_bytes : offset_bytes + len(data)] = data


def _torn(data: bytes, rng: random.Random) -> bytes:
    """``data`` with some sectors replaced by zeros or by garbage."""
    torn = bytearray(data)
    garbage = rng.random() < 0.5
    for start in range(0, len(torn), SECTOR_BYTES):
        if rng.random() < 0.5:
            length = min(SECTOR_BYTES, len(torn) - start)
            torn[start : start + length] = rng.randbytes(length) if garbage else bytes(length)
    return bytes(torn)
