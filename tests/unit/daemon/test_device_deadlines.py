"""Devices that leave commands without an end: who waits, for how long, and what is left behind."""

from __future__ import annotations

import asyncio
import gc
import pathlib
import threading
import time
from collections.abc import Callable, Collection, Iterator

import pytest

from couchestor_daemon import buffers
from couchestor_daemon.adapters import (
    departure_board,
    memory_device,
    memory_index,
    threaded_media,
)
from couchestor_daemon.ports import device as device_port
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.ports import media as media_port
from couchestor_daemon.services import commit_log
from couchestor_domain import errors, events, ids, units

BLOCK = units.BLOCK_BYTES
Z0 = ids.ZoneIndex(0)
DEADLINE_SECONDS = 0.1


class HangingDevice(memory_device.MemoryDevice):
    """Commands wait before they take effect for as long as it hangs."""

    try_read = None  # type: ignore[assignment]

    def __init__(self, number: int) -> None:
        super().__init__(
            device_port.DeviceIdentity(
                node_id=ids.NodeId("a" * 32),
                device_id=ids.DeviceId(f"{number:032x}"),
                label=f"d{number}",
                failure_domain=f"d{number}",
                zone_count=8,
                zone_capacity_bytes=32 * BLOCK,
                joined_epoch=1,
            )
        )
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.filled = memoryview(b"")
        """What the last read was given to fill."""
        self.ended = threading.Event()
        """Set when a command has ended that had to wait."""

    @property
    def zone(self) -> ids.ZoneAddress:
        return ids.ZoneAddress(self.identity.device_id, Z0)

    def read(
        self,
        zone: ids.ZoneIndex,
        offset_bytes: int,
        buffer: memoryview,
        *,
        past_cache: bool = False,
    ) -> None:
        self.filled = buffer
        self._held(
            lambda: super(HangingDevice, self).read(
                zone, offset_bytes, buffer, past_cache=past_cache
            )
        )

    def write(
        self, zone: ids.ZoneIndex, offset_bytes: int, data: memoryview, *, durable: bool
    ) -> None:
        self._held(
            lambda: super(HangingDevice, self).write(zone, offset_bytes, data, durable=durable)
        )

    def flush(self, zones: Collection[ids.ZoneIndex]) -> None:
        self._held(lambda: super(HangingDevice, self).flush(zones))

    def reset(self, zone: ids.ZoneIndex) -> None:
        self._held(lambda: super(HangingDevice, self).reset(zone))

    def _held(self, command: Callable[[], None]) -> None:
        waits = not self.goes_on.is_set()
        assert self.goes_on.wait(30)
        command()
        if waits:
            self.ended.set()


class Node:
    """Devices that may hang, and processes that share them."""

    def __init__(self, folder: pathlib.Path, devices_count: int = 4) -> None:
        self._folder = folder
        self.devices = [HangingDevice(number) for number in range(devices_count)]
        self.left: list[tuple[ids.DeviceId, str]] = []
        self.boards: list[departure_board.DepartureBoard] = []
        self.processes: list[threaded_media.ThreadedMedia] = []

    def process(self) -> threaded_media.ThreadedMedia:
        board = departure_board.DepartureBoard(self._folder)
        media = threaded_media.ThreadedMedia(
            {device.identity.device_id: device for device in self.devices},
            lambda device_id, error: self.left.append((device_id, str(error))),
            deadline_seconds=DEADLINE_SECONDS,
            departures=board,
        )
        self.boards.append(board)
        self.processes.append(media)
        return media

    def end(self) -> None:
        for device in self.devices:
            device.goes_on.set()
            device.filled = memoryview(b"")
        for media in self.processes:
            media.close()
        for board in self.boards:
            board.close()
        # What was left behind lets go of its memory when it ends.
        ends = time.monotonic() + 10
        while gc.collect() is None or buffers.abandoned_bytes():
            assert time.monotonic() < ends, buffers.abandoned_bytes()
            time.sleep(0.01)


@pytest.fixture
def node(tmp_path: pathlib.Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    made.end()


async def call(media: threaded_media.ThreadedMedia, command: str, zone: ids.ZoneAddress) -> None:
    data = memoryview(bytearray(BLOCK))
    match command:
        case "write":
            await media.write(zone, 0, data, durable=False)
        case "durable write":
            await media.write(zone, 0, data, durable=True)
        case "flush":
            await media.flush([zone])
        case "reset":
            await media.reset(zone)
        case "read":
            await media.read(zone, 0, data)
        case _:
            await asyncio.to_thread(call_blocking, media, command, zone, data)


def call_blocking(
    media: threaded_media.ThreadedMedia, command: str, zone: ids.ZoneAddress, data: memoryview
) -> None:
    if command == "append of the commit thread":
        failures = media.write_all_blocking([media_port.ZoneWrite(zone, 0, data)])
        if failures:
            raise failures[0]
        return
    device = media.device(zone.device_id)
    match command.removeprefix("blocking "):
        case "write":
            device.write(zone.zone_index, 0, data, durable=True)
        case "flush":
            device.flush([zone.zone_index])
        case "reset":
            device.reset(zone.zone_index)
        case _:
            device.read(zone.zone_index, 0, data)


COMMANDS = [
    *("write", "durable write", "flush", "reset", "read", "append of the commit thread"),
    *("blocking write", "blocking flush", "blocking reset", "blocking read"),
]


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_device_that_stalls_leaves_every_process_before_its_command_fails(
    node: Node, command: str
) -> None:
    first, second = node.process(), node.process()
    device = node.devices[1]
    device.goes_on.clear()
    async with asyncio.timeout(10):
        with pytest.raises(errors.DeviceStalledError, match=r"on device d1 has not ended .* 0.1 s"):
            await call(first, command, device.zone)
    for media in (first, second):
        with pytest.raises(errors.DeviceGoneError):
            media.device(device.identity.device_id)
        with pytest.raises(errors.DeviceGoneError):
            await call(media, command, device.zone)
        assert [identity.label for identity in media.healthy_devices()] == ["d0", "d2", "d3"]
    assert [device_id for device_id, _ in node.left] == [device.identity.device_id] * 2
    assert "left another process" in node.left[1][1]
    assert first.has_left_commands(device.identity.device_id)
    # The others go on, and no end waits for what is left behind.
    await call(first, command, node.devices[2].zone)
    await asyncio.to_thread(first.close)
    assert not device.ended.is_set()


async def test_what_another_process_noticed_holds_for_one_that_starts_later(node: Node) -> None:
    node.devices[0].goes_on.clear()
    with pytest.raises(errors.DeviceStalledError):
        await call(node.process(), "write", node.devices[0].zone)
    late = node.process()
    assert [identity.label for identity in late.healthy_devices()] == ["d1", "d2", "d3"]


async def test_memory_that_a_late_write_reads_is_not_lent_again(node: Node) -> None:
    media, device, pool = node.process(), node.devices[0], buffers.BufferPool(units.MIB)
    device.goes_on.clear()
    before = buffers.abandoned_bytes()
    with pool.acquire(BLOCK) as lent:
        lent.view[:] = b"a" * BLOCK
        writes = [media_port.ZoneWrite(each.zone, 0, lent.view) for each in node.devices]
        (problem,) = await media.write_all(writes, durable=True)
        assert isinstance(problem, errors.DeviceStalledError)
    del lent, writes
    assert pool.lent_bytes == 0
    assert buffers.abandoned_bytes() == before + BLOCK
    for _ in range(4):
        with pool.acquire(BLOCK) as again:
            again.view[:] = b"b" * BLOCK
    device.goes_on.set()
    assert await asyncio.to_thread(device.ended.wait, 10)
    found = memoryview(bytearray(BLOCK))
    await asyncio.to_thread(device.read, Z0, 0, found)
    assert found == b"a" * BLOCK


async def test_a_late_read_writes_into_nobody_elses_memory(node: Node) -> None:
    media, device = node.process(), node.devices[0]
    await media.write(device.zone, 0, memoryview(b"a" * BLOCK), durable=True)
    device.goes_on.clear()
    buffer = memoryview(bytearray(BLOCK))
    with pytest.raises(errors.DeviceStalledError):
        await media.read(device.zone, 0, buffer)
    device.goes_on.set()
    assert await asyncio.to_thread(device.ended.wait, 10)
    assert buffer == bytes(BLOCK)


@pytest.mark.parametrize("blocking", [False, True])
async def test_memory_that_a_late_read_fills_is_not_lent_again(node: Node, blocking: bool) -> None:
    media, device, other = node.process(), *node.devices[:2]
    buffer = memoryview(bytearray(BLOCK))

    async def read(which: HangingDevice) -> object:
        if blocking:
            timed = media.device(which.identity.device_id)
            await asyncio.to_thread(timed.read, Z0, 0, buffer)
        else:
            await media.read(which.zone, 0, buffer)
        return which.filled.obj

    assert await read(device) is await read(other)
    device.goes_on.clear()
    with pytest.raises(errors.DeviceStalledError):
        await read(device)
    late = device.filled.obj
    assert {await read(other) is late for _ in range(3)} == {False}
    device.goes_on.set()
    assert await asyncio.to_thread(device.ended.wait, 10)


async def test_a_read_in_place_fills_its_callers_memory_and_keeps_it_when_it_is_late(
    node: Node,
) -> None:
    media, device, pool = node.process(), node.devices[0], buffers.BufferPool(units.MIB)
    await media.write(device.zone, 0, memoryview(b"a" * BLOCK), durable=True)
    before = buffers.abandoned_bytes()
    with pool.acquire(BLOCK) as lent:
        memory = lent.view.obj
        await media.read(device.zone, 0, lent.view, in_place=True)
        assert device.filled.obj is memory
        assert lent.view == b"a" * BLOCK
        lent.view[:] = bytes(BLOCK)
        device.goes_on.clear()
        with pytest.raises(errors.DeviceStalledError):
            await media.read(device.zone, 0, lent.view, in_place=True)
    assert (pool.lent_bytes, buffers.abandoned_bytes()) == (0, before + BLOCK)
    with pool.acquire(BLOCK) as again:
        assert again.view.obj is not memory
    device.goes_on.set()
    assert await asyncio.to_thread(device.ended.wait, 10)
    assert lent.view == b"a" * BLOCK, "it was filled after all"
    del lent, memory


async def test_writers_of_a_stalled_device_leave_threads_for_the_others(node: Node) -> None:
    media, device = node.process(), node.devices[0]
    device.goes_on.clear()
    # More than there are threads: those behind find the device gone, not another deadline.
    resets = [asyncio.create_task(media.reset(device.zone)) for _ in range(40)]
    async with asyncio.timeout(10):
        ended = await asyncio.gather(*resets, return_exceptions=True)
        await media.reset(node.devices[1].zone)
    assert all(isinstance(each, errors.DeviceGoneError) for each in ended)
    assert len(node.left) == 1


class Silence:
    """Events are not what is tested here."""

    def publish(self, event: events.DomainEvent) -> None:
        """Drop it."""


@pytest.mark.parametrize("in_a_new_segment", [True, False])
def test_a_batch_is_written_elsewhere_when_a_replica_stalls(
    node: Node, in_a_new_segment: bool
) -> None:
    media = node.process()
    log = commit_log.CommitLog(
        writer="w",
        index=memory_index.MemoryIndex(),
        media=media,
        pool=buffers.BufferPool(256 * units.KIB),
        replicas_count=3,
        publisher=Silence(),
    )

    def put(value: bytes) -> commit_log.Operation:
        def apply(txn: index_port.IndexWriter, place: commit_log.Placement) -> int:
            txn.put(b"o", value)
            return place.segment_id

        return commit_log.Operation(apply=apply)

    first, second = put(b"1"), put(b"2")
    if not in_a_new_segment:
        log.commit([first])
    # Each new segment is placed by label first here: d0 is in all of them.
    stalled = node.devices[0]
    assert bool(stalled.report()) != in_a_new_segment
    stalled.goes_on.clear()
    log.commit([second])
    assert second.error is None
    assert [device_id for device_id, _ in node.left] == [stalled.identity.device_id]
    assert second.result != first.result
    # Two of the three copies may go: the batch is on three devices that answer.
    assert sum(bool(device.report()) for device in node.devices if device is not stalled) == 3


def test_the_board_keeps_each_device_once_and_cuts_long_reasons(tmp_path: pathlib.Path) -> None:
    board, other = (departure_board.DepartureBoard(tmp_path) for _ in range(2))
    names = [ids.DeviceId(f"{number:032x}") for number in range(300)]
    board.add(names[0], "é" * 1000)
    other.add(names[0], "again")
    for name in names[1:]:
        other.add(name, f"reason of {name}")
    assert board.count() == departure_board.ROWS_MAX
    first, *others = board.since(0)
    assert first.device_id == names[0]
    assert first.reason == "é" * (departure_board.REASON_BYTES // 2)
    assert [row.reason for row in others] == [f"reason of {row.device_id}" for row in others]
    assert [row.device_id for row in board.since(254)] == [names[254]]
    board.close()
    board.close()
    other.close()


def test_a_device_that_left_may_come_back_but_not_one_that_stalled(tmp_path: pathlib.Path) -> None:
    board, other = (departure_board.DepartureBoard(tmp_path) for _ in range(2))
    failed, hung = ids.DeviceId("1" * 32), ids.DeviceId("2" * 32)
    board.add(failed, "a write failed")
    board.add(hung, "a write failed")
    board.add(hung, "and another hung", stalled=True)
    seen_count = other.count()
    other.take_back(failed)
    with pytest.raises(errors.DeviceStalledError, match="from the next start"):
        other.take_back(hung)
    assert [row.device_id for row in board.since(0)] == [hung]
    assert board.since(seen_count) == []
    other.take_back(failed)
    board.add(failed, "failed again")
    assert [row.reason for row in other.since(seen_count)] == ["failed again"]
    board.close()
    other.close()


def test_a_process_that_was_idle_does_not_lose_a_device_that_is_back(node: Node) -> None:
    busy, idle = node.process(), node.process()
    device_id = node.devices[0].identity.device_id
    busy.report_failure(device_id, errors.DeviceIoError("a write failed"))
    node.boards[0].take_back(device_id)
    assert len(idle.healthy_devices()) == 4
    assert [left for left, _ in node.left] == [device_id]
