"""A test of a device: bounded reads and writes, beside the same on a trusted one at the same time.

Reads go to random places that the device holds and that are not in memory; writes are durable, go
to a zone taken for them, and are read back and compared. Nothing of it is anybody's data.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple

from couchestor_daemon import buffers
from couchestor_daemon.ports import device as device_port
from couchestor_daemon.ports import media as media_port
from couchestor_daemon.services import drive_comparison, trial_zones
from couchestor_domain import errors, ids, units

READS_COUNT: Final = 16
READ_BYTES: Final = 64 * units.KIB
WRITES_COUNT: Final = 8
WRITE_BYTES: Final = 64 * units.KIB
SAMPLES_MIN: Final = 4
SECONDS_MAX: Final = 5.0
"""No command is begun after that."""

RunBlocking = Callable[..., Awaitable[Any]]
Pace = Callable[[int], Awaitable[None]]


class Outcome(NamedTuple):
    """What a test found."""

    passed: bool
    text: str
    """For people, with numbers."""


class _Taken(NamedTuple):
    reads: Sequence[float]
    writes: Sequence[float]
    problem: str = ""


class DriveProbe:
    """Tests devices, one at a time.

    Args:
        pool: Memory of its own: tests wait for nobody's.
        run_blocking: Runs device commands that are not in the media port.
        pace: Awaited with the number of bytes before as many are read or written.
        limits: From when on a device is slow beside the other one.
        now_seconds: Monotonic.
        rng: Chooses places and bytes.
    """

    def __init__(
        self,
        *,
        media: media_port.Media,
        zones: trial_zones.TrialZones,
        pool: buffers.BufferPool,
        run_blocking: RunBlocking,
        pace: Pace,
        limits: drive_comparison.Limits,
        now_seconds: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._media = media
        self._zones = zones
        self._pool = pool
        self._run_blocking = run_blocking
        self._pace = pace
        self._limits = limits
        self._now_seconds = now_seconds
        self._rng = rng

    async def test(self, suspect: ids.DeviceId, peer: ids.DeviceId) -> Outcome | None:
        """Test a device beside another; None when neither reads nor writes said anything.

        Raises:
            DeviceError: a device has left meanwhile, or failed a write, for which it leaves.
            CouchestorError: no zone could be taken or given back.
        """
        await self._zones.give_back()
        try:
            both = [self._media.device(each).identity for each in (suspect, peer)]
            taken = [await self._zones.take(identity) for identity in both]
            ended = await asyncio.gather(
                *(self._measure(*each) for each in zip(both, taken, strict=True)),
                return_exceptions=True,
            )
        finally:
            await self._zones.give_back()
        found: list[_Taken] = []
        for outcome in ended:
            # Raised only now, so that no command is under way in a zone that is given back.
            if isinstance(outcome, BaseException):
                raise outcome
            found.append(outcome)
        return self._judge(*found, peer_label=both[1].label)

    def _judge(self, suspect: _Taken, peer: _Taken, *, peer_label: str) -> Outcome | None:
        if suspect.problem:
            return Outcome(False, f"its test failed: {suspect.problem}")
        said: list[str] = []
        passed = True
        for name, mine, others in (
            ("reads", suspect.reads, peer.reads),
            ("durable writes", suspect.writes, peer.writes),
        ):
            if len(mine) < SAMPLES_MIN or len(others) < SAMPLES_MIN:
                continue
            mean, other = sum(mine) / len(mine), sum(others) / len(others)
            is_slow = mean >= max(self._limits.floor_seconds, self._limits.ratio * other)
            passed = passed and not is_slow
            said.append(
                f"{name} {mean * 1e3:.1f} ms, {other * 1e3:.1f} ms on {peer_label} at the same time"
            )
        if not said:
            return None
        return Outcome(
            passed, f"its last test {'passed' if passed else 'failed'}: {'; '.join(said)}"
        )

    async def _measure(
        self, identity: device_port.DeviceIdentity, zone: ids.ZoneAddress | None
    ) -> _Taken:
        ends_seconds = self._now_seconds() + SECONDS_MAX
        try:
            reads = await self._read_held(identity.device_id, ends_seconds)
            writes: list[float] = []
            problem = ""
            if zone is not None:
                writes, problem = await self._write(
                    zone, identity.zone_capacity_bytes, ends_seconds
                )
        except errors.DeviceIoError as exc:
            return _Taken((), (), str(exc))
        return _Taken(reads, writes, problem)

    async def _read_held(self, device_id: ids.DeviceId, ends_seconds: float) -> list[float]:
        device = self._media.device(device_id)
        reports: Sequence[device_port.ZoneReport] = await self._run_blocking(device.report)
        places = [
            ids.ZoneAddress(device_id, each.zone_index)
            for each in reports
            if each.write_pointer_bytes >= READ_BYTES
        ]
        lengths = {each.zone_index: each.write_pointer_bytes for each in reports}
        taken: list[float] = []
        body = memoryview(bytearray(READ_BYTES))
        for _ in range(4 * READS_COUNT if places else 0):
            zone = self._rng.choice(places)
            last = (lengths[zone.zone_index] - READ_BYTES) // units.BLOCK_BYTES
            offset = self._rng.randint(0, last) * units.BLOCK_BYTES
            if self._media.try_read(zone, offset, body):
                continue  # In memory: that tells nothing of the device.
            taken.append(await self._timed_read(zone, offset, body))
            if len(taken) == READS_COUNT or self._now_seconds() >= ends_seconds:
                break
        return taken

    async def _timed_read(
        self, zone: ids.ZoneAddress, offset_bytes: int, body: memoryview
    ) -> float:
        await self._pace(len(body))
        began = self._now_seconds()
        await self._media.read(zone, offset_bytes, body)
        return self._now_seconds() - began

    async def _write(
        self, zone: ids.ZoneAddress, capacity_bytes: int, ends_seconds: float
    ) -> tuple[list[float], str]:
        taken: list[float] = []
        content = self._rng.randbytes(WRITE_BYTES)
        with self._pool.acquire(WRITE_BYTES) as buffer:
            body = buffer.view[:WRITE_BYTES]
            body[:] = content
            for number in range(min(WRITES_COUNT, capacity_bytes // WRITE_BYTES)):
                await self._pace(WRITE_BYTES)
                began = self._now_seconds()
                await self._media.write(zone, number * WRITE_BYTES, body, durable=True)
                taken.append(self._now_seconds() - began)
                if self._now_seconds() >= ends_seconds:
                    break
        body = memoryview(bytearray(WRITE_BYTES))
        for number in range(len(taken)):
            await self._media.read(zone, number * WRITE_BYTES, body)
            if body != content:
                return taken, (
                    f"{WRITE_BYTES >> 10} KiB that it was given came back as something else"
                )
        return taken, ""
