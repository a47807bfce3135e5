"""When a checkpoint is due, and what happens when it cannot be taken."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable

import log_node
import prometheus_client
import pytest

from couchestor_daemon.app import checkpointing, metrics
from couchestor_daemon.formats import media_records
from couchestor_daemon.ports import device as device_port
from couchestor_daemon.services import checkpoint_image, release
from couchestor_domain import errors, ids, units


def record(image_bytes: int) -> media_records.CheckpointRecord:
    return media_records.CheckpointRecord(1, 2, 3, (), image_bytes=image_bytes)


@pytest.mark.parametrize(
    ("since_bytes", "image_bytes", "log_percent", "due"),
    [
        (100, None, 100, False),
        (101, None, 100, True),
        (150, 150, 100, False),
        (151, 150, 100, True),
        (151, 150, 200, False),
        (301, 150, 200, True),
        (101, 150, 0, True),
    ],
)
def test_due_is_what_the_log_outgrew(
    since_bytes: int, image_bytes: int | None, log_percent: int, due: bool
) -> None:
    newest = None if image_bytes is None else record(image_bytes)
    assert checkpointing.is_due(since_bytes, newest, log_bytes=100, log_percent=log_percent) is due
    assert checkpointing.is_due(
        since_bytes, newest, log_bytes=100, log_percent=log_percent, copies_lost=True
    )


def usage(*, used: int = 20, waiting: int = 10, covering_id: int = 1) -> release.Usage:
    return release.Usage(
        {(DEVICE.device_id, 1): used // 2, (DEVICE.device_id, 2): used // 2}, waiting, covering_id
    )


DEVICE = device_port.DeviceIdentity(
    node_id=ids.NodeId("a" * 32),
    device_id=ids.DeviceId("b" * 32),
    label="d0",
    failure_domain="d0",
    zone_count=24,
    zone_capacity_bytes=units.MIB,
    joined_epoch=1,
)


@pytest.mark.parametrize(
    ("seen", "newest", "gives"),
    [
        (usage(), record(100), True),
        (None, record(100), False),
        (usage(covering_id=0), record(100), False),
        (usage(covering_id=0), None, True),
        (usage(waiting=1), record(100), False),
        (usage(waiting=2), record(100), True),
        (usage(waiting=7), record(3 * units.MIB), False),
        (usage(waiting=8), record(3 * units.MIB), True),
        (usage(used=14), record(100), False),
        (usage(used=16), record(100), True),
    ],
)
def test_zones_that_run_out_call_for_one_that_gives_back_more_than_it_takes(
    seen: release.Usage | None, newest: media_records.CheckpointRecord | None, gives: bool
) -> None:
    found = checkpointing.gives_space_back(seen, newest, [DEVICE], reserve_zones_count=4)
    assert found is gives


class Rig:
    """A schedule over a node on simulated devices."""

    def __init__(self, node: log_node.LogNode, *, log_bytes: int = 128 * units.KIB) -> None:
        self.node = node
        self.reports: list[dict[str, object]] = []
        self.now_seconds = 0.0
        self.short = False
        self.damaged_sequence = 0
        self.registry = prometheus_client.CollectorRegistry()
        self.schedule = checkpointing.CheckpointSchedule(
            node.checkpoints,
            log_bytes=log_bytes,
            log_percent=100,
            report=self.reports.append,
            measured=metrics.NodeMetrics(self.registry),
            space_is_short=lambda newest: self.short,
            damaged_sequence=lambda: self.damaged_sequence,
            now=lambda: self.now_seconds,
        )

    def gauge(self, name: str) -> float | None:
        return self.registry.get_sample_value(f"couchestor_{name}")


def test_a_step_takes_one_when_it_is_due_and_not_again_before_the_log_has_grown() -> None:
    rig = Rig(log_node.LogNode())
    rig.node.load(10)
    assert rig.schedule.step() == 0
    assert rig.node.checkpoints.newest() is None
    rig.node.load(40, tag=b"more")
    assert rig.schedule.step() == 0
    newest = rig.node.checkpoints.newest()
    assert newest is not None
    assert rig.gauge("checkpoint_sequence") == newest.sequence
    assert rig.gauge("checkpoint_bytes") == newest.image_bytes
    (report,) = rig.reports
    assert report["checkpoint"] == {
        "sequence": newest.sequence,
        "bytes": newest.image_bytes,
        "entries": newest.entries_count,
        "taken_at": "1970-01-01T00:00:00+00:00",
    }
    commands = rig.node.world.commands_count
    for _ in range(3):
        rig.schedule.step()
        assert rig.node.world.commands_count == commands, "nothing is written by looking"
    rig.node.load(40, tag=b"again")
    rig.schedule.step()
    assert rig.node.checkpoints.newest() != newest


def test_a_full_store_is_said_once_and_asked_less_and_less(
    caplog: pytest.LogCaptureFixture,
) -> None:
    node = log_node.LogNode(zones_count=16)
    node.start(reserve_zones_count=4)
    fill(node)
    rig = Rig(node)
    with caplog.at_level(logging.WARNING):
        waits = [rig.schedule.step() for _ in range(9)]
    assert waits == [30, 60, 120, 240, 480, 960, 1920, 3600, 3600]
    assert caplog.text.count("no checkpoint until there is room") == 1
    node.check_zones()


def test_a_copy_on_a_device_that_left_is_made_again() -> None:
    rig = Rig(log_node.LogNode())
    rig.node.load(90)
    rig.schedule.step()
    newest = rig.node.checkpoints.newest()
    assert newest is not None
    lost = ids.DeviceId(newest.parts[0][1][0])
    rig.node.media.report_failure(lost, errors.DeviceGoneError("pulled out"))
    rig.schedule.step()
    replaced = rig.node.checkpoints.trusted()
    assert replaced is not None
    assert lost not in {device for device, _ in replaced.parts[0]}
    commands = rig.node.world.commands_count
    rig.schedule.step()
    assert rig.node.world.commands_count == commands, "once is enough"


def test_a_damaged_copy_is_found_at_the_start_and_made_again() -> None:
    node = log_node.LogNode()
    node.load(90)
    record = node.checkpoints.take()
    assert record is not None
    device_id, zone_index = record.parts[0][0]
    node.world.devices[ids.DeviceId(device_id)].corrupt(ids.ZoneIndex(zone_index), 5000, 1)
    node.start()
    rig = Rig(node)
    assert node.checkpoints.trusted() is None
    rig.schedule.step()
    replaced = node.checkpoints.trusted()
    assert replaced is not None
    assert replaced.checkpoint_id != record.checkpoint_id


def test_a_lost_copy_waits_until_there_are_enough_devices() -> None:
    rig = Rig(log_node.LogNode(devices_count=3))
    rig.node.load(90)
    rig.schedule.step()
    newest = rig.node.checkpoints.newest()
    assert newest is not None
    lost = ids.DeviceId(newest.parts[0][1][0])
    rig.node.media.report_failure(lost, errors.DeviceGoneError("pulled out"))
    assert rig.schedule.step() == 0
    assert rig.node.checkpoints.newest() == newest
    assert rig.node.checkpoints.trusted() is None


def lose_replica(rig: Rig) -> ids.DeviceId:
    """Take the device out of service that holds the first replica of the newest segment."""
    record = segments(rig)[-1]
    lost = ids.DeviceId(record.members[0][0])
    rig.node.media.report_failure(lost, errors.DeviceGoneError("pulled out"))
    return lost


def segments(rig: Rig) -> list[media_records.SegmentRecord]:
    with rig.node.index.read() as reader:
        return [
            media_records.unpack(media_records.SegmentRecord, value)
            for _, value in reader.scan(*media_records.table_range(media_records.SEGMENTS))
        ]


def test_a_lost_log_replica_calls_for_one_checkpoint_and_no_more() -> None:
    rig = Rig(log_node.LogNode(devices_count=6), log_bytes=units.GIB)
    rig.node.load(10)
    rig.schedule.step()
    assert rig.node.checkpoints.newest() is None
    applied = rig.node.checkpoints.applied_sequence()
    lost = lose_replica(rig)
    rig.schedule.step()
    taken = rig.node.checkpoints.trusted()
    assert taken is not None
    assert taken.sequence >= applied
    assert lost not in {device for device, _ in taken.parts[0]}
    commands = rig.node.world.commands_count
    for _ in range(3):
        rig.schedule.step()
        assert rig.node.world.commands_count == commands, "once is enough"
    # Each writer finds out at its next commit and leaves its segment: at most one more for each.
    rig.node.load(10, tag=b"more")
    rig.schedule.step()
    newest = rig.node.checkpoints.newest()
    for number in range(5):
        rig.node.load(4, tag=b"later-%d" % number)
        rig.schedule.step()
    assert rig.node.checkpoints.newest() == newest
    rig.node.away = {lost}
    rig.node.lose_index(power_loss=True)
    rig.node.check_objects()


def test_damage_in_the_log_calls_for_one_checkpoint_that_holds_it() -> None:
    rig = Rig(log_node.LogNode(devices_count=6), log_bytes=units.GIB)
    rig.node.load(10)
    rig.schedule.step()
    assert rig.node.checkpoints.newest() is None
    rig.damaged_sequence = rig.node.checkpoints.applied_sequence() - 3
    rig.schedule.step()
    taken = rig.node.checkpoints.newest()
    assert taken is not None
    assert taken.sequence >= rig.damaged_sequence
    for number in range(3):
        rig.node.load(4, tag=b"later-%d" % number)
        rig.schedule.step()
    assert rig.node.checkpoints.newest() == taken


def test_a_lost_log_replica_waits_until_there_are_enough_devices() -> None:
    rig = Rig(log_node.LogNode(devices_count=3), log_bytes=units.GIB)
    rig.node.load(10)
    lose_replica(rig)
    for _ in range(3):
        assert rig.schedule.step() == 0
    assert rig.node.checkpoints.newest() is None


def test_a_replica_of_what_a_checkpoint_holds_may_be_lost() -> None:
    rig = Rig(log_node.LogNode(devices_count=9), log_bytes=units.GIB)
    rig.node.load(60)
    record = rig.node.checkpoints.take()
    assert record is not None
    needed = {device for part in record.parts for device, _ in part}
    needed |= {
        device
        for segment in segments(rig)
        if segment.writer == "maintenance"  # The completion of the checkpoint is in its log.
        for device, _ in segment.members
    }
    held = {device for segment in segments(rig) for device, _ in segment.members} - needed
    assert held
    for device in held:
        rig.node.media.report_failure(ids.DeviceId(device), errors.DeviceGoneError("pulled out"))
    rig.schedule.step()
    assert rig.node.checkpoints.newest() == record


def test_copies_that_never_verify_are_made_again_less_and_less_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Rig(log_node.LogNode(zones_count=200))
    rig.node.load(90)

    def refuse(image: checkpoint_image.Image, *_: object, **__: object) -> object:
        raise errors.CheckpointMissingError("rotten")

    monkeypatch.setattr(checkpoint_image, "verify", refuse)
    taken: list[tuple[float, int]] = []
    for _ in range(200):
        rig.schedule.step()
        newest = rig.node.checkpoints.newest()
        assert newest is not None
        if not taken or taken[-1][1] != newest.checkpoint_id:
            taken.append((rig.now_seconds, newest.checkpoint_id))
        rig.now_seconds += 3
    assert [round(seconds) for seconds, _ in taken] == [0, 3, 33, 93, 213, 453]


def test_zones_that_run_out_make_one_due_and_it_may_use_the_reserve() -> None:
    node = log_node.LogNode(zones_count=16)
    node.start(reserve_zones_count=4)
    fill(node)
    rig = Rig(node, log_bytes=units.GIB)
    assert rig.schedule.step() == 0
    assert node.checkpoints.newest() is None, "the log has not grown enough"
    rig.short = True
    assert rig.schedule.step() == 0
    assert node.checkpoints.trusted() is not None
    node.check_zones()


def fill(node: log_node.LogNode) -> None:
    for number in range(1000):
        try:
            node.put(b"fill-%d" % number, bytes(20 * units.KIB))
        except errors.StoreFullError:
            return
    raise AssertionError("the store does not fill")


async def test_one_that_found_no_room_is_not_put_off_any_more_when_it_makes_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checkpointing, "POLL_SECONDS", 0.01)
    node = log_node.LogNode(zones_count=16)
    node.start(reserve_zones_count=4)
    fill(node)
    rig = Rig(node)
    stop = asyncio.Event()
    running = asyncio.get_running_loop().create_task(rig.schedule.run(stop))
    await within_two_seconds(lambda: rig.schedule._full_was_said)
    assert node.checkpoints.newest() is None
    rig.short = True
    await within_two_seconds(lambda: node.checkpoints.trusted() is not None)
    stop.set()
    await running
    await asyncio.to_thread(rig.schedule.close)


async def within_two_seconds(condition: Callable[[], bool]) -> None:
    for _ in range(200):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to that")


async def test_a_stop_ends_the_schedule_at_once() -> None:
    rig = Rig(log_node.LogNode())
    stop = asyncio.Event()
    running = asyncio.get_running_loop().create_task(rig.schedule.run(stop))
    await asyncio.sleep(0)
    stop.set()
    async with asyncio.timeout(2):
        await running
    await asyncio.to_thread(rig.schedule.close)


def retire(rig: Rig, device_id: ids.DeviceId) -> None:
    device = rig.node.world.devices[device_id]
    device._identity = dataclasses.replace(device.identity, retiring=True)
    rig.node.media.refresh()


def test_a_device_that_retires_is_let_go_of_by_one_checkpoint() -> None:
    rig = Rig(log_node.LogNode(devices_count=6), log_bytes=units.GIB)
    rig.node.load(10)
    leaving = ids.DeviceId(segments(rig)[-1].members[0][0])
    retire(rig, leaving)
    rig.schedule.step()
    assert rig.node.checkpoints.newest() is None, "its writer has not left the segment yet"
    rig.node.load(4, tag=b"next")
    rig.schedule.step()
    taken = rig.node.checkpoints.trusted()
    assert taken is not None
    assert leaving not in {device for device, _ in taken.parts[0]}
    assert not rig.node.checkpoints.keeps_devices_from_leaving()
    # A copy of the newest one keeps a device too.
    holder = ids.DeviceId(taken.parts[0][0][0])
    retire(rig, holder)
    rig.schedule.step()
    replaced = rig.node.checkpoints.trusted()
    assert replaced is not None
    assert holder not in {device for device, _ in replaced.parts[0]}
    commands = rig.node.world.commands_count
    rig.schedule.step()
    assert rig.node.world.commands_count == commands, "once is enough"


def test_a_copy_on_a_device_that_was_away_is_read_again_before_it_is_trusted() -> None:
    rig = Rig(log_node.LogNode())
    rig.node.load(90)
    rig.schedule.step()
    newest = rig.node.checkpoints.trusted()
    assert newest is not None
    device_id, zone_index = newest.parts[0][0]
    rig.node.world.devices[ids.DeviceId(device_id)].corrupt(ids.ZoneIndex(zone_index), 5000, 1)
    rig.node.checkpoints.forget_device(ids.DeviceId(device_id))
    assert rig.node.checkpoints.trusted() is None
    assert not rig.node.checkpoints.verify_newest()
