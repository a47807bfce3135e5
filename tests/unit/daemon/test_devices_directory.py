"""What only a folder can do: be foreign, held, deleted, full, reset by another process."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import itertools
import mmap
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from couchestor_daemon.adapters import directory_device, zone_files
from couchestor_daemon.ports import device as device_port
from couchestor_domain import errors, ids, units

BLOCK = units.BLOCK_BYTES
Z0, Z1, Z2 = ids.ZoneIndex(0), ids.ZoneIndex(1), ids.ZoneIndex(2)
IDENTITY = device_port.DeviceIdentity(
    node_id=ids.NodeId("a" * 32),
    device_id=ids.DeviceId("b" * 32),
    label="d0",
    failure_domain="d0",
    zone_count=8,
    zone_capacity_bytes=8 * BLOCK,
    joined_epoch=1,
)


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    directory_device.format_directory(tmp_path / "d0", IDENTITY)
    return tmp_path / "d0"


@pytest.fixture
def device(folder: pathlib.Path) -> Iterator[directory_device.DirectoryDevice]:
    opened = directory_device.open_directory(folder)
    yield opened
    opened.close()


def filled(value: int) -> memoryview:
    memory = mmap.mmap(-1, BLOCK)
    memory[:] = bytes([value]) * BLOCK
    return memoryview(memory)


def content(device: device_port.ZonedDevice, zone: ids.ZoneIndex, offset: int = 0) -> bytes:
    buffer = memoryview(bytearray(b"\xee" * BLOCK))
    device.read(zone, offset, buffer)
    return bytes(buffer)


# -- formatting and opening ---------------------------------------------------------------------


def test_content_and_identity_survive_reopening(folder: pathlib.Path) -> None:
    first = directory_device.open_directory(folder)
    first.write(Z1, 0, filled(3), durable=True)
    first.write_identity(dataclasses.replace(IDENTITY, joined_epoch=5))
    first.close()
    second = directory_device.open_directory(folder)
    assert second.identity.joined_epoch == 5
    assert content(second, Z1) == b"\3" * BLOCK
    assert (folder / "zones" / "00000001.zone").stat().st_size == BLOCK
    second.close()


def test_a_folder_with_other_data_is_not_formatted(tmp_path: pathlib.Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"precious")
    with pytest.raises(errors.ForeignDeviceError, match=str(tmp_path)):
        directory_device.format_directory(tmp_path, IDENTITY)
    assert [entry.name for entry in tmp_path.iterdir()] == ["photo.jpg"]


def test_zones_without_an_identity_are_not_formatted_over(folder: pathlib.Path) -> None:
    (folder / "zones" / "00000000.zone").write_bytes(bytes(BLOCK))
    (folder / "identity").unlink()
    with pytest.raises(errors.ForeignDeviceError):
        directory_device.format_directory(folder, IDENTITY)


def test_another_device_of_ours_is_not_formatted_over(folder: pathlib.Path) -> None:
    other = dataclasses.replace(IDENTITY, device_id=ids.DeviceId("c" * 32))
    with pytest.raises(errors.ForeignDeviceError, match="b" * 32):
        directory_device.format_directory(folder, other)
    directory_device.format_directory(folder, IDENTITY)


def test_a_half_finished_format_is_repeated(tmp_path: pathlib.Path) -> None:
    (tmp_path / "zones").mkdir()
    (tmp_path / "identity.new").write_bytes(b"half")
    (tmp_path / "lost+found").mkdir()
    directory_device.format_directory(tmp_path, IDENTITY)
    directory_device.open_directory(tmp_path).close()


def test_opening_says_what_is_wrong(tmp_path: pathlib.Path, folder: pathlib.Path) -> None:
    with pytest.raises(errors.DeviceGoneError, match="missing"):
        directory_device.open_directory(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(errors.UnformattedDeviceError, match="empty"):
        directory_device.open_directory(tmp_path / "empty")
    damaged = bytearray((folder / "identity").read_bytes())
    damaged[40] ^= 1
    (folder / "identity").write_bytes(damaged)
    with pytest.raises(errors.DeviceCorruptError, match="identity"):
        directory_device.open_directory(folder)


def test_an_identity_without_zones_is_corrupt(folder: pathlib.Path) -> None:
    (folder / "zones").rmdir()
    with pytest.raises(errors.DeviceCorruptError, match="deleted"):
        directory_device.open_directory(folder)


def test_the_lock_names_its_holder(device: directory_device.DirectoryDevice) -> None:
    code = (
        "import sys; from couchestor_daemon.adapters import directory_device as d\n"
        f"fd = d.open_directory({str(device.path)!r}).lock()\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(errors.DeviceInUseError, match=str(holder.pid)) as raised:
            device.lock()
        assert raised.value.context["pid"] == holder.pid
        assert str(device.path) in str(raised.value)
        holder.communicate()
    fd = device.lock()
    assert os.get_inheritable(fd)
    os.close(fd)


# -- deleted under the daemon -------------------------------------------------------------------


def test_a_deleted_folder_is_gone_for_every_command(
    device: directory_device.DirectoryDevice,
) -> None:
    device.write(Z0, 0, filled(1), durable=False)
    device.write(Z1, 0, filled(1), durable=True)
    shutil.rmtree(device.path)
    commands: list[Callable[[], object]] = [
        lambda: device.flush([Z0]),
        lambda: device.flush([Z2]),
        lambda: device.write(Z1, BLOCK, filled(2), durable=True),
        lambda: device.write(Z2, 0, filled(2), durable=True),
        lambda: content(device, Z0),
        lambda: device.reset(Z0),
        device.report,
        device.space,
        lambda: device.write_identity(IDENTITY),
    ]
    for command in commands:
        with pytest.raises(errors.DeviceGoneError):
            command()
    assert not device.try_read(Z0, 0, memoryview(bytearray(BLOCK)))


def test_a_folder_made_anew_at_the_same_path_is_not_the_device(
    device: directory_device.DirectoryDevice,
) -> None:
    device.write(Z0, 0, filled(1), durable=False)
    shutil.rmtree(device.path)
    (device.path / "zones").mkdir(parents=True)
    with pytest.raises(errors.DeviceGoneError):
        device.write(Z2, 0, filled(2), durable=True)
    with pytest.raises(errors.DeviceGoneError):
        device.write_identity(IDENTITY)
    assert list((device.path / "zones").iterdir()) == []


@pytest.mark.parametrize("closed_meanwhile", [False, True])
def test_a_deleted_zone_file_fails_its_flush(folder: pathlib.Path, closed_meanwhile: bool) -> None:
    device = directory_device.open_directory(folder, open_files_count_max=1)
    device.write(Z0, 0, filled(1), durable=False)
    if closed_meanwhile:
        content(device, Z1)
        device.write(Z1, 0, filled(1), durable=False)
    (folder / "zones" / "00000000.zone").unlink()
    with pytest.raises(errors.DeviceGoneError):
        device.flush([Z0])
    with pytest.raises(errors.DeviceGoneError):
        device.flush([Z0])
    device.close()


def test_a_file_deleted_during_a_durable_write_fails_the_next_one(
    device: directory_device.DirectoryDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwritev

    def deleting(fd: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        written = real(fd, buffers, offset, flags)
        (device.path / "zones" / "00000000.zone").unlink()
        return written

    monkeypatch.setattr(os, "pwritev", deleting)
    device.write(Z0, 0, filled(1), durable=True)
    monkeypatch.undo()
    with pytest.raises(errors.DeviceGoneError, match="deleted"):
        device.write(Z0, BLOCK, filled(1), durable=True)


# -- failing file systems -----------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_file_system_leaves_the_write_pointer(
    device: directory_device.DirectoryDevice, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    device.write(Z0, 0, filled(1), durable=True)
    real = os.pwritev
    calls = 0

    def short_then_full(fd: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise OSError(number, os.strerror(number))
        return real(fd, [buffers[0][:BLOCK]], offset, flags)

    monkeypatch.setattr(os, "pwritev", short_then_full)
    with pytest.raises(errors.DeviceFullError, match="00000000"):
        device.write(Z0, BLOCK, memoryview(mmap.mmap(-1, 2 * BLOCK)), durable=False)
    monkeypatch.undo()
    assert calls == 2
    assert device.report()[0].write_pointer_bytes == BLOCK
    device.write(Z0, BLOCK, filled(2), durable=True)
    assert content(device, Z0, BLOCK) == b"\2" * BLOCK


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_what_the_process_lacks_says_nothing_about_the_device(
    device: directory_device.DirectoryDevice, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    device.write(Z0, 0, filled(1), durable=False)

    def failing(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", failing)
    commands: list[Callable[[], object]] = [
        lambda: device.write(Z1, 0, filled(1), durable=True),
        lambda: content(device, Z1),
        lambda: device.flush([Z1]),
        device.report,
    ]
    for command in commands:
        with pytest.raises(errors.DeviceStarvedError) as raised:
            command()
        assert raised.value.context["errno"] == number
    monkeypatch.undo()
    monkeypatch.setattr(os, "fdatasync", failing)
    with pytest.raises(errors.DeviceIoError):  # What was not flushed may be lost by now.
        device.flush([Z0])
    monkeypatch.undo()
    device.write(Z1, 0, filled(2), durable=True)
    assert content(device, Z1) == b"\2" * BLOCK
    device.flush([Z0])


def test_a_write_for_which_memory_ran_out_leaves_the_write_pointer(
    device: directory_device.DirectoryDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwritev
    done: list[int] = []

    def short_then_starved(fd: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        if done:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        done.append(offset)
        return real(fd, [buffers[0][:BLOCK]], offset, flags)

    monkeypatch.setattr(os, "pwritev", short_then_starved)
    with pytest.raises(errors.DeviceStarvedError, match="00000000"):
        device.write(Z0, 0, memoryview(mmap.mmap(-1, 2 * BLOCK)), durable=True)
    monkeypatch.undo()
    assert device.report() == []
    device.write(Z0, 0, filled(2), durable=True)


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS])
def test_failed_system_calls_are_device_errors(
    device: directory_device.DirectoryDevice, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    device.write(Z0, 0, filled(1), durable=False)

    def failing(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    for name in ("pwritev", "preadv", "fdatasync"):
        monkeypatch.setattr(os, name, failing)
    commands: list[Callable[[], object]] = [
        lambda: device.write(Z0, BLOCK, filled(1), durable=True),
        lambda: content(device, Z0),
        lambda: device.flush([Z0]),
    ]
    for command in commands:
        with pytest.raises(errors.DeviceIoError) as raised:
            command()
        assert raised.value.context["errno"] == number
    assert not device.try_read(Z0, 0, memoryview(bytearray(BLOCK)))


def test_a_new_file_is_linked_durably_once(
    device: directory_device.DirectoryDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync
    synced: list[str] = []

    def recording(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        real(fd)

    monkeypatch.setattr(os, "fsync", recording)
    device.write(Z0, 0, filled(1), durable=False)
    assert synced == []
    device.flush([Z0])
    device.write(Z0, BLOCK, filled(1), durable=True)
    assert synced == [str(device.path / "zones")]
    device.write(Z1, 0, filled(1), durable=True)
    assert synced == [str(device.path / "zones")] * 2


def test_a_write_cut_inside_a_block_counts_as_the_whole_block(
    device: directory_device.DirectoryDevice,
) -> None:
    (device.path / "zones" / "00000000.zone").write_bytes(b"\1" * 100)
    assert device.report()[0].write_pointer_bytes == BLOCK
    assert content(device, Z0) == b"\1" * 100 + bytes(BLOCK - 100)
    device.write(Z0, BLOCK, filled(2), durable=True)
    assert content(device, Z0, BLOCK) == b"\2" * BLOCK
    assert content(device, Z0) == b"\1" * 100 + bytes(BLOCK - 100)


def test_strange_files_in_the_zones_folder_are_not_zones(
    device: directory_device.DirectoryDevice,
) -> None:
    for name in ("00000099.zone", "1.zone", "00000001.tmp", "zone"):
        (device.path / "zones" / name).write_bytes(bytes(BLOCK))
    assert list(device.report()) == []


# -- several processes and many files -----------------------------------------------------------


def test_a_reset_by_another_process_is_seen(folder: pathlib.Path) -> None:
    ours, theirs = (directory_device.open_directory(folder) for _ in range(2))
    ours.write(Z0, 0, filled(1), durable=True)
    assert content(theirs, Z0) == b"\1" * BLOCK
    theirs.reset(Z0)
    assert not ours.try_read(Z0, 0, memoryview(bytearray(BLOCK)))
    assert content(ours, Z0) == bytes(BLOCK)
    theirs.write(Z0, 0, filled(2), durable=True)
    assert content(ours, Z0) == b"\2" * BLOCK
    theirs.reset(Z0)
    ours.write(Z0, 0, filled(3), durable=True)
    assert content(theirs, Z0) == b"\3" * BLOCK
    ours.close()
    theirs.close()


def test_a_reset_releases_the_file_and_its_space(device: directory_device.DirectoryDevice) -> None:
    before = len(os.listdir("/proc/self/fd"))
    device.write(Z0, 0, filled(1), durable=True)
    device.reset(Z0)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_read_past_the_cache_is_the_mediums_and_leaves_the_cache_alone(
    device: directory_device.DirectoryDevice,
) -> None:
    body = memoryview(mmap.mmap(-1, 4 * BLOCK))
    body[:] = b"\7" * len(body)
    device.write(Z1, 0, body, durable=True)
    path = device.path / "zones" / zone_files.file_name(Z1)
    buffer = memoryview(mmap.mmap(-1, len(body)))
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    device.read(Z1, 0, buffer, past_cache=True)
    assert buffer == body
    assert not device.try_read(Z1, 0, buffer), "it came by way of the page cache"
    device.read(Z1, 0, buffer)
    assert device.try_read(Z1, 0, buffer)


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False  # What listed them.
    return True


@contextlib.contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """Meanwhile this process can open so many more and then no others."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = {fd for fd in map(int, os.listdir("/proc/self/fd")) if is_open(fd)}
    free = (number for number in itertools.count() if number not in taken)
    limit = next(itertools.islice(free, count, None))
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_cached_files_are_given_up_when_no_descriptor_is_left(
    device: directory_device.DirectoryDevice,
) -> None:
    zones = [ids.ZoneIndex(zone) for zone in range(8)]
    with descriptors_left(5):
        for zone in zones:
            device.write(zone, 0, filled(zone + 1), durable=True)
        for zone in zones:
            buffer = memoryview(mmap.mmap(-1, BLOCK))
            device.read(zone, 0, buffer, past_cache=True)
            assert bytes(buffer) == bytes([zone + 1]) * BLOCK
            device.write(zone, BLOCK, filled(zone + 2), durable=False)
        device.flush(zones)
        assert len(device.report()) == len(zones)


def test_a_write_without_descriptors_can_be_repeated(
    device: directory_device.DirectoryDevice,
) -> None:
    with descriptors_left(1), pytest.raises(errors.DeviceStarvedError):
        device.write(Z0, 0, filled(1), durable=True)
    device.write(Z0, 0, filled(1), durable=True)
    assert content(device, Z0) == b"\1" * BLOCK


def test_few_descriptors_serve_many_zones_and_threads(folder: pathlib.Path) -> None:
    device = directory_device.open_directory(folder, open_files_count_max=2)
    for zone in range(8):
        device.write(ids.ZoneIndex(zone), 0, filled(zone + 1), durable=False)
    before = len(os.listdir("/proc/self/fd"))
    failures: list[BaseException] = []

    def reading() -> None:
        try:
            for turn in range(200):
                zone = turn % 8
                assert content(device, ids.ZoneIndex(zone)) == bytes([zone + 1]) * BLOCK
        except BaseException as exc:  # collected: a thread has nobody to raise to
            failures.append(exc)

    threads = [threading.Thread(target=reading) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(os.listdir("/proc/self/fd")) <= before + 2
    device.flush([ids.ZoneIndex(zone) for zone in range(8)])
    device.close()
