"""What every ``ports.device.ZonedDevice`` must do, whatever it is made of."""

from __future__ import annotations

import dataclasses
import mmap
import pathlib
import threading
from collections.abc import Iterator
from concurrent import futures
from typing import Protocol

import pytest

from couchestor_daemon.adapters import directory_device, memory_device, simulated_device
from couchestor_daemon.ports import device as device_port
from couchestor_domain import errors, ids, units

BLOCK = units.BLOCK_BYTES
CAPACITY = 16 * BLOCK
ZONES = 4
Z0, Z1, Z3 = ids.ZoneIndex(0), ids.ZoneIndex(1), ids.ZoneIndex(3)


class Device(device_port.ZonedDevice, Protocol):
    """The port and what all our adapters offer beside it."""

    def try_read(self, zone: ids.ZoneIndex, offset_bytes: int, buffer: memoryview) -> bool: ...

    def write_identity(self, identity: device_port.DeviceIdentity) -> None: ...


IDENTITY = device_port.DeviceIdentity(
    node_id=ids.NodeId("a" * 32),
    device_id=ids.DeviceId("b" * 32),
    label="d0",
    failure_domain="d0",
    zone_count=ZONES,
    zone_capacity_bytes=CAPACITY,
    joined_epoch=1,
)


@pytest.fixture(params=["directory", "memory", "simulated"])
def device(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Device]:
    made: Device
    if request.param == "directory":
        directory_device.format_directory(tmp_path / "d0", IDENTITY)
        made = directory_device.open_directory(tmp_path / "d0")
    elif request.param == "memory":
        made = memory_device.MemoryDevice(IDENTITY)
    else:
        made = simulated_device.SimulatedWorld(seed=1).add_device(IDENTITY)
    yield made
    made.close()


def filled(blocks: int, value: int) -> memoryview:
    """Block-aligned memory, as the port asks for."""
    memory = mmap.mmap(-1, blocks * BLOCK)
    memory[:] = bytes([value]) * (blocks * BLOCK)
    return memoryview(memory)


def content(
    device: device_port.ZonedDevice, zone: ids.ZoneIndex, offset: int, length: int
) -> bytes:
    buffer = memoryview(bytearray(b"\xee" * length))
    device.read(zone, offset, buffer)
    return bytes(buffer)


@pytest.mark.parametrize("durable", [True, False])
def test_reads_back_what_was_written(device: Device, durable: bool) -> None:
    device.write(Z1, 0, filled(2, 1), durable=durable)
    device.write(Z1, 2 * BLOCK, filled(1, 2), durable=durable)
    assert content(device, Z1, 0, 3 * BLOCK) == b"\1" * 2 * BLOCK + b"\2" * BLOCK
    assert content(device, Z1, BLOCK, 2 * BLOCK) == b"\1" * BLOCK + b"\2" * BLOCK


def test_memory_of_any_alignment_is_written(device: Device) -> None:
    device.write(Z0, 0, memoryview(bytearray(BLOCK + 1))[1:], durable=True)
    device.write(Z0, BLOCK, memoryview(b"x" + b"y" * BLOCK)[1:], durable=False)
    assert content(device, Z0, 0, 2 * BLOCK) == bytes(BLOCK) + b"y" * BLOCK


def test_reads_past_the_write_pointer_give_zeros(device: Device) -> None:
    assert content(device, Z0, 0, BLOCK) == bytes(BLOCK)
    device.write(Z0, 0, filled(1, 7), durable=False)
    assert content(device, Z0, 0, 3 * BLOCK) == b"\7" * BLOCK + bytes(2 * BLOCK)
    assert content(device, Z0, CAPACITY - BLOCK, BLOCK) == bytes(BLOCK)


@pytest.mark.parametrize("durable", [True, False])
def test_reads_past_caches_give_the_same(device: Device, durable: bool) -> None:
    device.write(Z0, 0, filled(2, 7), durable=durable)
    for aligned in (True, False):
        memory = memoryview(mmap.mmap(-1, 4 * BLOCK))
        buffer = memory[: 3 * BLOCK] if aligned else memory[1 : 3 * BLOCK + 1]
        for zone, expected in ((Z0, b"\7" * 2 * BLOCK + bytes(BLOCK)), (Z1, bytes(3 * BLOCK))):
            buffer[:] = b"\xee" * len(buffer)
            device.read(zone, 0, buffer, past_cache=True)
            assert bytes(buffer) == expected


def test_report_names_zones_that_are_not_empty(device: Device) -> None:
    assert list(device.report()) == []
    device.write(Z3, 0, filled(16, 1), durable=False)
    device.write(Z0, 0, filled(1, 1), durable=True)
    assert list(device.report()) == [
        (Z0, device_port.ZoneState.OPEN, BLOCK),
        (Z3, device_port.ZoneState.FULL, CAPACITY),
    ]


def test_flush_accepts_written_unwritten_and_no_zones(device: Device) -> None:
    device.write(Z0, 0, filled(1, 1), durable=False)
    device.flush([Z0, Z1, Z0])
    device.flush([])
    assert content(device, Z0, 0, BLOCK) == b"\1" * BLOCK


def test_reset_empties_and_the_zone_is_written_again(device: Device) -> None:
    device.write(Z0, 0, filled(2, 1), durable=True)
    assert content(device, Z0, 0, BLOCK) == b"\1" * BLOCK
    device.reset(Z0)
    device.reset(Z0)
    device.reset(Z1)
    assert list(device.report()) == []
    assert content(device, Z0, 0, BLOCK) == bytes(BLOCK)
    device.flush([Z0])
    device.write(Z0, 0, filled(1, 9), durable=True)
    assert content(device, Z0, 0, 2 * BLOCK) == b"\t" * BLOCK + bytes(BLOCK)


@pytest.mark.parametrize("offset", [0, BLOCK, 3 * BLOCK])
def test_writes_only_at_the_write_pointer(device: Device, offset: int) -> None:
    device.write(Z0, 0, filled(2, 1), durable=False)
    with pytest.raises(errors.ZoneStateError):
        device.write(Z0, offset, filled(1, 2), durable=False)
    assert device.report()[0].write_pointer_bytes == 2 * BLOCK


@pytest.mark.parametrize(
    ("zone", "offset", "length"),
    [
        (ids.ZoneIndex(ZONES), 0, BLOCK),
        (ids.ZoneIndex(-1), 0, BLOCK),
        (Z0, 0, CAPACITY + BLOCK),
        (Z0, CAPACITY, BLOCK),
        (Z0, -BLOCK, BLOCK),
        (Z0, 0, 512),
        (Z0, 512, BLOCK),
    ],
)
def test_commands_outside_the_zones_are_refused(
    device: Device, zone: ids.ZoneIndex, offset: int, length: int
) -> None:
    with pytest.raises(errors.ZoneStateError):
        device.write(zone, offset, memoryview(bytearray(length)), durable=False)
    with pytest.raises(errors.ZoneStateError):
        device.read(zone, offset, memoryview(bytearray(length)))
    assert list(device.report()) == []


def test_reset_and_flush_refuse_zones_that_do_not_exist(device: Device) -> None:
    with pytest.raises(errors.ZoneStateError):
        device.reset(ids.ZoneIndex(ZONES))
    with pytest.raises(errors.ZoneStateError):
        device.flush([ids.ZoneIndex(ZONES)])


def test_space_shrinks_by_what_is_written(device: Device) -> None:
    before = device.space()
    assert before.capacity_bytes == ZONES * CAPACITY
    assert before.available_bytes == ZONES * CAPACITY
    device.write(Z0, 0, filled(4, 1), durable=True)
    assert device.space().available_bytes == before.available_bytes - 4 * BLOCK


def test_try_read_tells_the_truth(device: Device) -> None:
    device.write(Z0, 0, filled(2, 5), durable=True)
    content(device, Z0, 0, 2 * BLOCK)
    buffer = memoryview(bytearray(2 * BLOCK))
    if device.try_read(Z0, 0, buffer):
        assert bytes(buffer) == b"\5" * 2 * BLOCK


def test_identity_is_kept_and_replaced(device: Device) -> None:
    assert device.identity == IDENTITY
    newer = dataclasses.replace(IDENTITY, joined_epoch=2)
    device.write_identity(newer)
    assert device.identity == newer


def test_one_of_many_writers_at_one_pointer_wins(device: Device) -> None:
    barrier = threading.Barrier(4, timeout=10)

    def attempt(value: int) -> bool:
        barrier.wait()
        try:
            device.write(Z0, 0, filled(1, value), durable=False)
        except errors.ZoneStateError:
            return False
        return True

    with futures.ThreadPoolExecutor(4) as pool:
        won = list(pool.map(attempt, range(1, 5)))
    assert won.count(True) == 1
    assert content(device, Z0, 0, BLOCK) == bytes([won.index(True) + 1]) * BLOCK
    assert device.report()[0].write_pointer_bytes == BLOCK


def test_zones_are_written_and_read_concurrently(device: Device) -> None:
    def fill(zone: int) -> None:
        index = ids.ZoneIndex(zone)
        for block in range(16):
            device.write(index, block * BLOCK, filled(1, zone * 16 + block), durable=block % 8 == 0)
            device.read(index, 0, memoryview(bytearray(BLOCK)))
        device.flush([index])

    with futures.ThreadPoolExecutor(ZONES) as pool:
        list(pool.map(fill, range(ZONES)))
    for zone in range(ZONES):
        expected = b"".join(bytes([zone * 16 + block]) * BLOCK for block in range(16))
        assert content(device, ids.ZoneIndex(zone), 0, CAPACITY) == expected


def test_close_is_idempotent(device: Device) -> None:
    device.close()
    device.close()
