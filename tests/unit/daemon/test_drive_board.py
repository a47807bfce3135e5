"""What devices do, counted in one process and read in another."""

from __future__ import annotations

import pathlib

import pytest
import shard_node

from couchestor_daemon.adapters import drive_board, measured_device, memory_device
from couchestor_daemon.ports import drive_figures
from couchestor_domain import errors, ids, units

READ, APPEND = drive_figures.Command.READ, drive_figures.Command.APPEND
SMALL_READS = drive_figures.slot(READ, drive_figures.Size.SMALL)
LARGE_READS = drive_figures.slot(READ, drive_figures.Size.LARGE)
A, B = ids.DeviceId("a" * 32), ids.DeviceId("b" * 32)


def test_a_reader_sees_what_all_processes_counted_since_it_looked(tmp_path: pathlib.Path) -> None:
    first, second = (drive_board.DriveRecorder(tmp_path, name) for name in ("one", "two"))
    first.of(A).count(READ, 4096, 1.0)
    board = drive_board.DriveBoard(tmp_path)
    for _ in range(30):
        first.of(A).count(READ, 4096, 2e-3)
        second.of(A).count(READ, 4096, 2e-3)
    second.of(B).count(READ, units.MIB, 0.5)
    second.of(B).failed_read()
    seen = board.take()
    assert seen[A].commands_count(SMALL_READS) == 60
    assert seen[A].mean_seconds(SMALL_READS) == pytest.approx(2e-3, rel=0.2)
    assert seen[A].commands_count(LARGE_READS) == 0
    assert seen[B].mean_seconds(LARGE_READS) == pytest.approx(0.5, rel=0.2)
    assert (seen[A].failed_reads_count, seen[B].failed_reads_count) == (0, 1)
    assert board.take()[A] == drive_figures.NOTHING


def test_a_process_that_starts_again_goes_on_counting(tmp_path: pathlib.Path) -> None:
    before = drive_board.DriveRecorder(tmp_path, "one")
    before.of(A).count(READ, 4096, 1.0)
    before.of(B).count(READ, 4096, 1.0)
    board = drive_board.DriveBoard(tmp_path)
    after = drive_board.DriveRecorder(tmp_path, "one")
    after.of(B).count(READ, 4096, 1.0)
    seen = board.take()
    assert seen[A] == drive_figures.NOTHING
    assert seen[B].commands_count(SMALL_READS) == 1


def test_a_place_that_several_processes_come_upon_counts_once(tmp_path: pathlib.Path) -> None:
    first, second = (drive_board.DriveRecorder(tmp_path, name) for name in ("one", "two"))
    board = drive_board.DriveBoard(tmp_path)
    for _ in range(3):
        first.of(A).wrong_place()
    second.of(A).wrong_place()
    assert board.take()[A].wrong_places_count == 3


@pytest.mark.parametrize("seconds", [0.0, 1e-7, 16e-6, 3e-4, 0.1, 30.0, 1e9])
def test_every_duration_has_a_bucket(tmp_path: pathlib.Path, seconds: float) -> None:
    recorder = drive_board.DriveRecorder(tmp_path, "one")
    board = drive_board.DriveBoard(tmp_path)
    recorder.of(A).count(READ, 4096, seconds)
    found = board.take()[A]
    assert found.commands_count(SMALL_READS) == 1
    within = min(max(seconds, 16e-6), drive_figures.BOUNDS_SECONDS[-1])
    assert found.mean_seconds(SMALL_READS) == pytest.approx(within, rel=0.25)


def test_more_devices_than_rows_are_used_uncounted(tmp_path: pathlib.Path) -> None:
    recorder = drive_board.DriveRecorder(tmp_path, "one")
    board = drive_board.DriveBoard(tmp_path)
    for number in range(drive_board.ROWS_MAX + 1):
        recorder.of(ids.DeviceId(f"{number:032x}")).count(READ, 4096, 1.0)
    assert len(board.take()) == drive_board.ROWS_MAX


def test_each_command_of_a_device_is_counted_failed_or_not(tmp_path: pathlib.Path) -> None:
    class Failing(memory_device.MemoryDevice):
        def read(
            self,
            zone: ids.ZoneIndex,
            offset_bytes: int,
            buffer: memoryview,
            *,
            past_cache: bool = False,
        ) -> None:
            raise errors.DeviceIoError("bad sector")

    recorder = drive_board.DriveRecorder(tmp_path, "one")
    board = drive_board.DriveBoard(tmp_path)
    identity = shard_node.identity(1, zone_bytes=units.MIB)
    device = measured_device.MeasuredDevice(Failing(identity), recorder.of(A))
    body = memoryview(bytearray(units.BLOCK_BYTES))
    zone = ids.ZoneIndex(0)
    device.write(zone, 0, body, durable=True)
    device.write(zone, len(body), body, durable=False)
    device.flush([zone])
    with pytest.raises(errors.DeviceIoError):
        device.read(zone, 0, body)
    found = board.take()[A]
    assert found.failed_reads_count == 1
    for command in drive_figures.Command:
        assert found.commands_count(drive_figures.slot(command, drive_figures.Size.SMALL)) == 1


def test_reads_that_never_wait_are_not_counted(tmp_path: pathlib.Path) -> None:
    recorder = drive_board.DriveRecorder(tmp_path, "one")
    board = drive_board.DriveBoard(tmp_path)
    identity = shard_node.identity(1, zone_bytes=units.MIB)
    device = measured_device.MeasuredDevice(memory_device.MemoryDevice(identity), recorder.of(A))
    assert device.try_read(ids.ZoneIndex(0), 0, memoryview(bytearray(units.BLOCK_BYTES)))
    assert board.take()[A] == drive_figures.NOTHING
