"""Both media adapters: the same behaviour, threads or none."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import Callable, Iterator

import pytest

from couchestor_daemon.adapters import inline_media, memory_device, simulated_device, threaded_media
from couchestor_daemon.ports import device as device_port
from couchestor_daemon.ports import media as media_port
from couchestor_domain import errors, ids, units

BLOCK = units.BLOCK_BYTES
Z0 = ids.ZoneIndex(0)
AnyMedia = inline_media.InlineMedia | threaded_media.ThreadedMedia


def make_identity(number: int) -> device_port.DeviceIdentity:
    return device_port.DeviceIdentity(
        node_id=ids.NodeId("a" * 32),
        device_id=ids.DeviceId(f"{number:032x}"),
        label=f"d{9 - number}",
        failure_domain=f"d{9 - number}",
        zone_count=4,
        zone_capacity_bytes=16 * BLOCK,
        joined_epoch=1,
    )


class Node:
    """Three simulated devices behind one media, and the failures it reported."""

    def __init__(self, kind: str) -> None:
        world = simulated_device.SimulatedWorld(seed=1)
        self.devices = [world.add_device(make_identity(number)) for number in range(3)]
        self.zones = [ids.ZoneAddress(d.identity.device_id, Z0) for d in self.devices]
        self.failures: list[tuple[ids.DeviceId, BaseException]] = []
        self.media: AnyMedia
        by_id = {device.identity.device_id: device for device in self.devices}
        if kind == "threaded":
            self.media = threaded_media.ThreadedMedia(by_id, self.note)
        else:
            self.media = inline_media.InlineMedia(
                by_id, self.note, yield_before_commands=kind == "yielding"
            )

    def note(self, device_id: ids.DeviceId, error: BaseException) -> None:
        self.failures.append((device_id, error))

    def failed(self) -> list[ids.DeviceId]:
        return [device_id for device_id, _ in self.failures]

    async def write_all(self) -> None:
        for zone in self.zones:
            await self.media.write(zone, 0, memoryview(b"x" * BLOCK), durable=False)


@pytest.fixture(params=["threaded", "inline", "yielding"])
def node(request: pytest.FixtureRequest) -> Iterator[Node]:
    made = Node(request.param)
    yield made
    if isinstance(made.media, threaded_media.ThreadedMedia):
        made.media.close()


def test_commands_reach_their_device(node: Node) -> None:
    async def run(media: media_port.Media) -> bytes:
        await node.write_all()
        await media.flush(node.zones)
        await media.reset(node.zones[1])
        buffer = memoryview(bytearray(BLOCK))
        await media.read(node.zones[0], 0, buffer)
        other = memoryview(bytearray(BLOCK))
        assert media.try_read(node.zones[2], 0, other)
        assert other == buffer
        return bytes(buffer)

    assert asyncio.run(run(node.media)) == b"x" * BLOCK
    assert [bool(device.report()) for device in node.devices] == [True, False, True]
    assert [identity.label for identity in node.media.healthy_devices()] == ["d7", "d8", "d9"]
    assert node.media.device(node.zones[0].device_id).identity is node.devices[0].identity


def test_a_retiring_device_is_read_but_offered_for_no_new_zone() -> None:
    retiring = dataclasses.replace(make_identity(0), retiring=True)
    devices = [memory_device.MemoryDevice(item) for item in (retiring, make_identity(1))]
    media = inline_media.InlineMedia(
        {device.identity.device_id: device for device in devices}, lambda *_: None
    )
    devices[0].write(Z0, 0, memoryview(b"x" * BLOCK), durable=True)
    buffer = memoryview(bytearray(BLOCK))
    asyncio.run(media.read(ids.ZoneAddress(retiring.device_id, Z0), 0, buffer))
    assert bytes(buffer) == b"x" * BLOCK
    assert [identity.label for identity in media.healthy_devices()] == ["d8"]


@pytest.mark.parametrize("command", ["write", "durable write", "flush", "flush of all"])
def test_a_failed_write_or_flush_takes_the_device_out_once(node: Node, command: str) -> None:
    bad = node.zones[1]

    async def fail() -> None:
        if command.startswith("flush"):
            await node.media.flush(node.zones if command == "flush of all" else [bad])
        else:
            data = memoryview(b"y" * BLOCK)
            await node.media.write(bad, BLOCK, data, durable=command == "durable write")

    async def run() -> None:
        await node.write_all()
        node.devices[1].fail_next_write()
        node.devices[1].fail_next_flush()
        with pytest.raises(errors.DeviceIoError):
            await fail()
        with pytest.raises(errors.DeviceGoneError):
            await fail()
        with pytest.raises(errors.DeviceGoneError):
            node.media.try_read(bad, 0, memoryview(bytearray(BLOCK)))
        with pytest.raises(errors.DeviceGoneError):
            node.media.device(bad.device_id)

    asyncio.run(run())
    assert node.failed() == [bad.device_id]
    assert isinstance(node.failures[0][1], errors.DeviceIoError)
    assert [identity.label for identity in node.media.healthy_devices()] == ["d7", "d9"]


def test_a_failed_flush_does_not_keep_the_others_from_being_flushed(node: Node) -> None:
    async def run() -> None:
        await node.write_all()
        node.devices[0].fail_next_flush()
        with pytest.raises(errors.DeviceIoError):
            await node.media.flush(node.zones)

    asyncio.run(run())
    world = node.devices[0]._world
    world.restart(power_loss=True)
    buffer = memoryview(bytearray(BLOCK))
    for device in node.devices[1:]:
        device.read(Z0, 0, buffer)
        assert bytes(buffer) == b"x" * BLOCK


def test_a_failed_read_and_a_full_device_stay(node: Node) -> None:
    async def run() -> None:
        await node.write_all()
        device = node.devices[0]
        device.fail_next_read(2)
        buffer = memoryview(bytearray(BLOCK))
        with pytest.raises(errors.DeviceIoError):
            await node.media.read(node.zones[0], 0, buffer)
        assert not node.media.try_read(node.zones[0], 0, buffer)
        device.full = True
        with pytest.raises(errors.DeviceFullError):
            await node.media.write(node.zones[0], BLOCK, buffer, durable=True)
        with pytest.raises(errors.ZoneStateError):
            await node.media.write(node.zones[0], 5 * BLOCK, buffer, durable=True)

    asyncio.run(run())
    assert node.failures == []
    assert len(node.media.healthy_devices()) == 3


def test_a_device_stays_when_the_process_lacks_descriptors(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    def starved(*_: object, **__: object) -> None:
        raise errors.DeviceStarvedError("Too many open files")

    async def run() -> None:
        await node.write_all()
        for command in ("read", "write", "flush", "reset"):
            monkeypatch.setattr(node.devices[0], command, starved)
        zone, buffer = node.zones[0], memoryview(bytearray(BLOCK))
        for durable in (False, True):
            with pytest.raises(errors.DeviceStarvedError):
                await node.media.write(zone, BLOCK, buffer, durable=durable)
        (failure,) = node.media.write_all_blocking([media_port.ZoneWrite(zone, BLOCK, buffer)])
        assert isinstance(failure, errors.DeviceStarvedError)
        for doing in (
            node.media.read(zone, 0, buffer),
            node.media.flush([zone]),
            node.media.reset(zone),
        ):
            with pytest.raises(errors.DeviceStarvedError):
                await doing

    asyncio.run(run())
    assert node.failures == []
    assert len(node.media.healthy_devices()) == 3


def test_a_dead_device_leaves_at_any_command(node: Node) -> None:
    buffer = memoryview(bytearray(BLOCK))

    async def run() -> None:
        for device in node.devices:
            device.kill()
        with pytest.raises(errors.DeviceGoneError):
            await node.media.read(node.zones[0], 0, buffer)
        with pytest.raises(errors.DeviceGoneError):
            node.media.try_read(node.zones[1], 0, buffer)
        with pytest.raises(errors.DeviceGoneError):
            await node.media.reset(node.zones[2])

    asyncio.run(run())
    assert node.failed() == [zone.device_id for zone in node.zones]
    assert list(node.media.healthy_devices()) == []


def test_reported_failures_are_published_and_removals_are_not(node: Node) -> None:
    reported, removed = node.zones[0].device_id, node.zones[1].device_id
    error = errors.DeviceIoError("seen elsewhere")
    node.media.report_failure(reported, error)
    node.media.report_failure(reported, error)
    node.media.remove(removed)
    assert node.failures == [(reported, error)]
    assert len(node.media.healthy_devices()) == 1


def test_a_crash_passes_through_inline_media() -> None:
    node = Node("inline")
    node.devices[0]._world.crash_at = 2
    with pytest.raises(simulated_device.SimulatedCrash):
        asyncio.run(node.write_all())
    assert node.failures == []


class GatedDevice(memory_device.MemoryDevice):
    """Calls ``before`` in the pool's thread before each flush and read; has no try_read."""

    try_read = None  # type: ignore[assignment]

    def __init__(self, number: int, before: Callable[[], object]) -> None:
        super().__init__(make_identity(number))
        self._before = before

    def read(
        self,
        zone: ids.ZoneIndex,
        offset_bytes: int,
        buffer: memoryview,
        *,
        past_cache: bool = False,
    ) -> None:
        self._before()
        super().read(zone, offset_bytes, buffer, past_cache=past_cache)
        buffer[0] = 1

    def flush(self, zones: object) -> None:
        self._before()


def threaded(*devices: GatedDevice) -> threaded_media.ThreadedMedia:
    return threaded_media.ThreadedMedia(
        {device.identity.device_id: device for device in devices},
        lambda *_: None,
        read_threads_count=1,
    )


def test_devices_are_flushed_in_parallel_by_named_threads() -> None:
    barrier = threading.Barrier(3, timeout=5)
    names: list[str] = []

    def before() -> None:
        names.append(threading.current_thread().name)
        barrier.wait()

    devices = [GatedDevice(number, before) for number in range(3)]
    media = threaded(*devices)
    zones = [ids.ZoneAddress(device.identity.device_id, Z0) for device in devices]
    assert not media.try_read(zones[0], 0, memoryview(bytearray(BLOCK)))
    asyncio.run(media.flush(zones))
    media.close()
    assert len(names) == 3
    assert all(name.startswith("media-sync") for name in names)


def test_a_cancelled_read_no_longer_touches_its_buffer_when_it_ends() -> None:
    started, gate = threading.Event(), threading.Event()

    def before() -> None:
        started.set()
        assert gate.wait(5)

    device = GatedDevice(0, before)
    media = threaded(device)
    zone = ids.ZoneAddress(device.identity.device_id, Z0)

    async def run() -> tuple[int, int]:
        running, queued = bytearray(BLOCK), bytearray(BLOCK)
        first = asyncio.create_task(media.read(zone, 0, memoryview(running)))
        second = asyncio.create_task(media.read(zone, 0, memoryview(queued)))
        await asyncio.to_thread(started.wait, 5)
        first.cancel()
        second.cancel()
        await asyncio.wait([second], timeout=5)
        assert second.cancelled()
        assert not first.done()
        first.cancel()
        await asyncio.sleep(0)
        assert not first.done()
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await first
        return running[0], queued[0]

    assert asyncio.run(run()) == (0, 0)
    media.close()
    with pytest.raises(errors.DeviceGoneError):
        asyncio.run(media.read(zone, 0, memoryview(bytearray(BLOCK))))


def test_writes_of_a_set_all_end_and_each_failure_is_told(node: Node) -> None:
    async def run() -> list[errors.DeviceError]:
        node.devices[1].fail_next_write()
        data = memoryview(b"z" * BLOCK)
        return await node.media.write_all(
            [media_port.ZoneWrite(zone, 0, data) for zone in node.zones], durable=True
        )

    (failure,) = asyncio.run(run())
    assert isinstance(failure, errors.DeviceIoError)
    assert node.failed() == [node.zones[1].device_id]
    buffer = memoryview(bytearray(BLOCK))
    for device in (node.devices[0], node.devices[2]):
        device.read(Z0, 0, buffer)
        assert bytes(buffer) == b"z" * BLOCK


class StallingDevice(memory_device.MemoryDevice):
    """Its reads last until they are let go."""

    def __init__(self, identity: device_port.DeviceIdentity) -> None:
        super().__init__(identity)
        self.go_on = threading.Event()
        self.at_once_count = 0
        self.is_busy = threading.Event()
        self._count_lock = threading.Lock()

    def read(
        self,
        zone: ids.ZoneIndex,
        offset_bytes: int,
        buffer: memoryview,
        *,
        past_cache: bool = False,
    ) -> None:
        with self._count_lock:
            self.at_once_count += 1
            if self.at_once_count == 2:
                self.is_busy.set()
        self.go_on.wait(20)
        super().read(zone, offset_bytes, buffer, past_cache=past_cache)


async def test_a_device_that_stalls_leaves_threads_for_the_others() -> None:
    stalling, other = StallingDevice(make_identity(0)), memory_device.MemoryDevice(make_identity(1))
    by_id = {device.identity.device_id: device for device in (stalling, other)}
    media = threaded_media.ThreadedMedia(by_id, lambda *_: None, read_threads_count=6)
    buffers = [memoryview(bytearray(BLOCK)) for _ in range(21)]
    reads = [
        asyncio.create_task(
            media.read(ids.ZoneAddress(stalling.identity.device_id, Z0), 0, buffers[number])
        )
        for number in range(20)
    ]
    async with asyncio.timeout(10):
        await media.read(ids.ZoneAddress(other.identity.device_id, Z0), 0, buffers[20])
        assert await asyncio.to_thread(stalling.is_busy.wait, 10)
    assert stalling.at_once_count == 2
    stalling.go_on.set()
    await asyncio.gather(*reads)
    await asyncio.to_thread(media.close)


def test_a_device_that_joins_is_read_before_it_is_given_zones(node: Node) -> None:
    joining = simulated_device.SimulatedWorld(seed=2).add_device(make_identity(7))
    zone = ids.ZoneAddress(joining.identity.device_id, Z0)
    buffer = memoryview(bytearray(b"y" * BLOCK))
    before = node.media.healthy_devices()

    async def read() -> None:
        await node.media.read(zone, 0, buffer)

    node.media.admit(joining)
    asyncio.run(read())
    assert bytes(buffer) == bytes(BLOCK)
    assert node.media.device(zone.device_id).identity == joining.identity
    assert node.media.healthy_devices() == before
    node.media.employ(zone.device_id)
    assert [i.label for i in node.media.healthy_devices()] == ["d2", "d7", "d8", "d9"]
    node.media.hold(zone.device_id)
    assert node.media.healthy_devices() == before
    node.media.remove(zone.device_id)
    # It comes back as another object, held again until everybody has it.
    node.media.admit(joining)
    assert node.media.healthy_devices() == before
    assert not node.failures


def test_a_device_that_begins_to_retire_is_given_no_more_zones(node: Node) -> None:
    device = node.devices[1]
    device._identity = dataclasses.replace(device.identity, retiring=True)
    node.media.refresh()
    assert [identity.label for identity in node.media.healthy_devices()] == ["d7", "d9"]
    assert node.media.device(device.identity.device_id).identity == device.identity
