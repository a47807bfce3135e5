"""Devices under watch: tested for real, over devices that take as long as a test says.

Time is virtual: a device that is slow moves the clock.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence

import pytest
import shard_node

from couchestor_daemon import buffers
from couchestor_daemon.formats import zone_header
from couchestor_daemon.ports import device as device_port
from couchestor_daemon.ports import drive_figures, drive_verdicts
from couchestor_daemon.services import (
    drive_absence,
    drive_comparison,
    drive_probe,
    drive_suspicion,
    drive_trial,
    drive_watch,
    trial_zones,
)
from couchestor_domain import errors, events, geometry, ids, units

SHAPE = geometry.StripeGeometry(2, 2)
LIMITS = drive_comparison.Limits(ratio=4.0, floor_seconds=0.01, window_seconds=10.0, slow_max=2)
WINDOW_SECONDS = 10.0
USUAL_SECONDS = 1e-3
SUSPECTED, HELD = drive_verdicts.Standing.SUSPECTED, drive_verdicts.Standing.HELD
READS = drive_figures.slot(drive_figures.Command.READ, drive_figures.Size.SMALL)


class SlowDevice:
    """A device each of whose commands takes so long on the clock of the node."""

    def __init__(self, device: device_port.ZonedDevice, clock: Clock) -> None:
        self.device = device
        self.clock = clock
        self.seconds = USUAL_SECONDS
        self.forgets = False
        self.fails_reads = False
        self.report = device.report
        self.space = device.space
        self.close = device.close

    @property
    def identity(self) -> device_port.DeviceIdentity:
        return self.device.identity

    def read(
        self,
        zone: ids.ZoneIndex,
        offset_bytes: int,
        buffer: memoryview,
        *,
        past_cache: bool = False,
    ) -> None:
        self.clock.seconds += self.seconds
        if self.fails_reads:
            raise errors.DeviceIoError("bad sector")
        self.device.read(zone, offset_bytes, buffer, past_cache=past_cache)
        if self.forgets:
            buffer[0] ^= 1

    def write(
        self, zone: ids.ZoneIndex, offset_bytes: int, data: memoryview, *, durable: bool
    ) -> None:
        self.clock.seconds += self.seconds
        self.device.write(zone, offset_bytes, data, durable=durable)

    def flush(self, zones: Collection[ids.ZoneIndex]) -> None:
        self.clock.seconds += self.seconds
        self.device.flush(zones)

    def reset(self, zone: ids.ZoneIndex) -> None:
        self.device.reset(zone)


class Clock:
    """Moved by devices and steps."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class Bench:
    """A node, its watch, and what that told."""

    def __init__(self, *, devices_count: int = 6) -> None:
        self.clock = Clock()
        self.node = shard_node.ShardNode(SHAPE, devices_count=devices_count)
        self.slow = {
            device_id: SlowDevice(device, self.clock)
            for device_id, device in self.node.devices.items()
        }
        self.node.devices = dict(self.slow)
        self.node.start()
        self.told: list[drive_verdicts.Verdict] = []
        self.wrong: dict[ids.DeviceId, int] = {}
        self.zones = trial_zones.TrialZones(
            index=self.node.index,
            media=self.node.media,
            submit=self.node.commits.submit,
            reserve_zones_count=2,
        )
        self.probe = drive_probe.DriveProbe(
            media=self.node.media,
            zones=self.zones,
            pool=buffers.BufferPool(units.MIB),
            run_blocking=self.node.run,
            pace=self.node.pace,
            limits=LIMITS,
            now_seconds=self.clock,
            rng=random.Random(1),
        )
        self.watch = self.started()

    def started(self, known: Sequence[drive_verdicts.Verdict] = ()) -> drive_watch.DriveWatch:
        return drive_watch.DriveWatch(
            index=self.node.index,
            media=self.node.media,
            take_window=self._window,
            devices=lambda: list(self.slow),
            probe=self.probe,
            suspicion=drive_suspicion.DriveSuspicion(LIMITS),
            shape=SHAPE,
            journal_replicas_count=3,
            window_seconds=WINDOW_SECONDS,
            publisher=self.node,
            on_verdicts=self._hear,
            known=known,
            run_blocking=self.node.run,
            now_seconds=self.clock,
            rng=random.Random(2),
        )

    def _hear(self, verdicts: Sequence[drive_verdicts.Verdict]) -> None:
        self.told = list(verdicts)
        self.node.media.mistrust(
            [each.device_id for each in verdicts if each.standing is HELD],
        )

    def _window(self) -> Mapping[ids.DeviceId, drive_figures.Figures]:
        found = {}
        for device_id, device in self.slow.items():
            counts = [0] * len(drive_figures.NOTHING.counts)
            place = READS * drive_figures.BUCKETS_COUNT + drive_figures.bucket(device.seconds)
            counts[place] = 20
            wrong = self.wrong.get(device_id, 0)
            found[device_id] = drive_figures.Figures(tuple(counts), 0, wrong)
        return found

    async def steps(self, count: int) -> None:
        for _ in range(count):
            self.clock.seconds += await self.watch.step()

    async def steps_until_standing(
        self, device_id: ids.DeviceId, standing: drive_verdicts.Standing | None, *, within: int
    ) -> None:
        for _ in range(within):
            await self.steps(1)
            if self.standing(device_id) is standing:
                return
        raise AssertionError((self.told, standing))

    def standing(self, device_id: ids.DeviceId) -> drive_verdicts.Standing | None:
        found = [each.standing for each in self.told if each.device_id == device_id]
        return found[0] if found else None

    def is_in_service(self, device_id: ids.DeviceId) -> bool:
        try:
            self.node.media.device(device_id)
        except errors.DeviceGoneError:
            return False
        return True

    def takes_zones(self, device_id: ids.DeviceId) -> bool:
        return any(each.device_id == device_id for each in self.node.media.healthy_devices())

    def trust_events(self) -> list[bool]:
        return [
            each.healthy
            for each in self.node.events_of(events.HealthChanged)
            if each.subject.startswith(drive_watch.SUBJECT)
        ]


D3 = ids.DeviceId(f"{3:032x}")
N = drive_suspicion.WINDOWS_TO_SUSPECT


async def test_a_slow_device_is_suspected_tested_held_and_taken_out() -> None:
    bench = Bench()
    await bench.node.put(500 * units.KIB)
    bench.slow[D3].seconds = 0.05
    await bench.steps(N - 1)
    assert bench.told == []
    await bench.steps(1)
    assert bench.standing(D3) is SUSPECTED
    assert bench.takes_zones(D3)
    await bench.steps_until_standing(D3, HELD, within=drive_trial.FAILS_TO_HOLD)
    assert not bench.takes_zones(D3)
    assert "its last test failed" in bench.told[0].text
    assert "50.0 ms, 1.0 ms on d" in bench.told[0].text
    assert bench.is_in_service(D3)
    await bench.steps_until_standing(D3, None, within=drive_watch.HELD_EVERY * 6)
    assert not bench.is_in_service(D3)
    assert zone_header.ZoneRole.TEST not in bench.node.zone_roles().values()
    await bench.node.check_data()


async def test_one_that_is_fast_when_it_is_tested_is_cleared() -> None:
    bench = Bench()
    bench.slow[D3].seconds = 0.05
    await bench.steps(N)
    assert bench.standing(D3) is SUSPECTED
    bench.slow[D3].seconds = USUAL_SECONDS
    await bench.steps_until_standing(D3, None, within=drive_trial.PASSES_TO_CLEAR)
    assert bench.takes_zones(D3)
    assert bench.trust_events() == [False, True]


async def test_one_that_is_held_and_becomes_fast_is_given_zones_again() -> None:
    bench = Bench()
    bench.slow[D3].seconds = 0.05
    await bench.steps_until_standing(D3, HELD, within=2 * N)
    bench.slow[D3].seconds = USUAL_SECONDS
    within = drive_watch.HELD_EVERY * (drive_trial.PASSES_TO_EMPLOY + 1)
    await bench.steps_until_standing(D3, None, within=within)
    assert bench.is_in_service(D3)
    assert bench.takes_zones(D3)


async def test_it_stays_in_service_while_another_device_is_missing() -> None:
    bench = Bench()
    await bench.node.put(500 * units.KIB)
    lost = ids.DeviceId(bench.node.record().members[0][0])
    slow = ids.DeviceId(bench.node.record().members[1][0])
    bench.node.media.remove(lost)
    bench.slow[slow].seconds = 0.05
    await bench.steps(60)
    assert bench.standing(slow) is HELD
    assert bench.is_in_service(slow)
    assert "without it no further device could be lost (1 devices are missing" in bench.told[0].text
    await bench.node.check_data()


async def test_it_stays_in_service_while_shards_elsewhere_wait_for_repair() -> None:
    bench = Bench()
    await bench.node.put(500 * units.KIB)
    record = bench.node.record()
    slow = ids.DeviceId(bench.node.record().members[1][0])
    await bench.node.queue_repair(record.group_id, units.BLOCK_BYTES, 0)
    why = drive_absence.why_not_leave(bench.node.index, bench.node.media, slow, shape=SHAPE)
    assert "shards wait for repair" in why
    holder = ids.DeviceId(bench.node.record().members[0][0])
    # What waits on the device itself is lost with it anyhow.
    assert not drive_absence.why_not_leave(bench.node.index, bench.node.media, holder, shape=SHAPE)


async def test_it_goes_on_being_given_zones_when_the_others_are_too_few() -> None:
    bench = Bench(devices_count=4)
    bench.node.media.remove(ids.DeviceId(f"{0:032x}"))
    bench.slow[D3].seconds = 0.05
    await bench.steps(30)
    assert bench.standing(D3) is SUSPECTED
    assert bench.takes_zones(D3)
    assert "there are 2 other devices to write to, and 3 are needed" in bench.told[0].text


async def test_a_device_that_gives_back_something_else_fails_its_test() -> None:
    bench = Bench()
    peer = ids.DeviceId(f"{1:032x}")
    bench.slow[D3].forgets = True
    outcome = await bench.probe.test(D3, peer)
    assert outcome is not None
    assert not outcome.passed
    assert "came back as something else" in outcome.text
    bench.slow[D3].forgets, bench.slow[D3].fails_reads = False, True
    outcome = await bench.probe.test(D3, peer)
    assert outcome is not None
    assert (outcome.passed, outcome.text) == (False, "its test failed: bad sector")
    assert zone_header.ZoneRole.TEST not in bench.node.zone_roles().values()


async def test_errors_that_come_back_after_a_passed_test_hold_a_device() -> None:
    bench = Bench()
    bench.wrong[D3] = drive_suspicion.ERRORS_MIN
    await bench.steps(1)
    assert bench.standing(D3) is SUSPECTED
    assert not bench.told[0].is_slow
    bench.wrong.clear()
    await bench.steps_until_standing(D3, None, within=drive_trial.PASSES_TO_CLEAR)
    bench.wrong[D3] = 3 * drive_suspicion.ERRORS_MIN
    await bench.steps(1)
    bench.wrong.clear()
    await bench.steps_until_standing(D3, HELD, within=2 * drive_trial.PASSES_TO_CLEAR)


async def test_a_new_process_goes_on_with_what_the_last_one_had_found() -> None:
    bench = Bench()
    bench.slow[D3].seconds = 0.05
    await bench.steps_until_standing(D3, HELD, within=2 * N)
    bench.watch = bench.started(bench.told)
    await bench.steps(1)
    assert bench.standing(D3) is HELD
    within = drive_watch.HELD_EVERY * drive_trial.FAILS_TO_LEAVE
    await bench.steps_until_standing(D3, None, within=within)
    assert not bench.is_in_service(D3)


async def test_zones_of_a_test_that_died_come_back_before_the_next_one() -> None:
    bench = Bench()
    zone = await bench.zones.take(bench.slow[D3].identity)
    assert zone is not None
    assert bench.node.zone_roles()[zone] is zone_header.ZoneRole.TEST
    body = memoryview(bytearray(b"x" * units.BLOCK_BYTES))
    await bench.node.media.write(zone, 0, body, durable=True)
    assert await bench.probe.test(D3, ids.DeviceId(f"{1:032x}")) is not None
    assert zone not in bench.node.zone_roles()
    await bench.node.media.read(zone, 0, body)
    assert not any(body)


async def test_a_full_device_is_tested_by_reads_alone() -> None:
    bench = Bench()
    await bench.node.put(500 * units.KIB)
    identity = bench.slow[D3].identity
    taken = 0
    while await bench.zones.take(identity) is not None:
        taken += 1
    assert taken > 0
    assert await bench.zones.take(identity) is None


@pytest.mark.parametrize("slow_count", [3, 6])
async def test_a_node_that_is_slow_as_a_whole_suspects_nobody(slow_count: int) -> None:
    bench = Bench()
    for number in range(slow_count):
        bench.slow[ids.DeviceId(f"{number:032x}")].seconds = 0.2
    await bench.steps(4 * N)
    assert bench.told == []
