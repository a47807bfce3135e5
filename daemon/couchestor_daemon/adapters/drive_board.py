"""What the devices of a node do in every process, readable by any other one while they run.

One file per process, mapped by its writer and by readers. The numbers only grow; a reader compares
with what it saw last. They are native 64-bit items, each written by one instruction.

    file drives-<writer>:  u64 count of rows | rows of ROW_BYTES, ``count`` of them valid
    row:                   device id, ASCII, zero-padded to 64 | u64 failed reads | u64 wrong places
                           | u64[SLOTS_COUNT * BUCKETS_COUNT] commands, see ``ports.drive_figures``

Several threads of a process count without a lock: two that meet in one number may lose a count,
which changes no mean.
"""

from __future__ import annotations

import mmap
import os
import pathlib
import threading
from bisect import bisect_left
from collections.abc import Mapping
from typing import Final

from couchestor_daemon.ports import drive_figures
from couchestor_domain import errors, ids

DEVICE_BYTES: Final = 64
_HEADER_BYTES: Final = 8
_ERRORS_COUNT: Final = 2
_NUMBERS_COUNT: Final = _ERRORS_COUNT + drive_figures.SLOTS_COUNT * drive_figures.BUCKETS_COUNT
ROW_BYTES: Final = DEVICE_BYTES + 8 * _NUMBERS_COUNT
ROWS_MAX: Final = 128
"""A device without a row is not compared with others."""
_FILE_BYTES: Final = _HEADER_BYTES + ROW_BYTES * ROWS_MAX
_PREFIX: Final = "drives-"
_SIZES_COUNT: Final = len(drive_figures.Size)
_BOUNDS: Final = drive_figures.BOUNDS_SECONDS
_BUCKETS_COUNT: Final = drive_figures.BUCKETS_COUNT
_SMALL_MAX: Final = drive_figures.SMALL_BYTES_MAX
_MEDIUM_MAX: Final = drive_figures.MEDIUM_BYTES_MAX


class DriveCounts:
    """The numbers of one device in one process. Thread-safe, see above."""

    __slots__ = ("_numbers",)

    def __init__(self, numbers: memoryview) -> None:
        self._numbers = numbers

    def count(self, command: drive_figures.Command, length_bytes: int, seconds: float) -> None:
        """Count a command that has ended."""
        size = 0 if length_bytes <= _SMALL_MAX else 1 if length_bytes <= _MEDIUM_MAX else 2
        self._numbers[
            _ERRORS_COUNT
            + (command * _SIZES_COUNT + size) * _BUCKETS_COUNT
            + bisect_left(_BOUNDS, seconds)
        ] += 1

    def failed_read(self) -> None:
        """Count a read that the device could not do."""
        self._numbers[0] += 1

    def wrong_place(self) -> None:
        """Count a place whose bytes were not those that were written."""
        self._numbers[1] += 1


class DriveRecorder:
    """The numbers of one process, going on from where an earlier one of its name stopped.

    Args:
        writer: Names the process among those of the node.

    Raises:
        IndexFullError: no room for the file.
    """

    def __init__(self, folder: pathlib.Path, writer: str) -> None:
        self._map = _map(folder / f"{_PREFIX}{writer}")
        self._items = memoryview(self._map)
        self._lock = threading.Lock()
        self._rows: dict[ids.DeviceId, DriveCounts] = {}

    def of(self, device_id: ids.DeviceId) -> DriveCounts:
        """The numbers of a device."""
        with self._lock:
            counts = self._rows.get(device_id)
            if counts is None:
                counts = self._rows[device_id] = DriveCounts(self._numbers(device_id))
            return counts

    def _numbers(self, device_id: ids.DeviceId) -> memoryview:
        counter = self._items[:_HEADER_BYTES].cast("Q")
        count = counter[0]
        name = device_id.encode().ljust(DEVICE_BYTES, b"\0")
        for row in range(count):
            start = _HEADER_BYTES + row * ROW_BYTES
            if self._items[start : start + DEVICE_BYTES] == name:
                break
        else:
            if count == ROWS_MAX:
                return memoryview(bytearray(8 * _NUMBERS_COUNT)).cast("Q")
            start = _HEADER_BYTES + count * ROW_BYTES
            self._items[start : start + DEVICE_BYTES] = name
            counter[0] = count + 1
        return self._items[start + DEVICE_BYTES : start + ROW_BYTES].cast("Q")


class DriveBoard:
    """Reads the numbers of all processes that there are."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self._seen: dict[tuple[str, ids.DeviceId], tuple[int, ...]] = {}
        self.take()

    def take(self) -> Mapping[ids.DeviceId, drive_figures.Figures]:
        """What each device did since the last call. Blocking: reads some files in memory."""
        fresh: dict[ids.DeviceId, list[tuple[int, ...]]] = {}
        for path in sorted(self._folder.glob(f"{_PREFIX}*")):
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                continue
            if len(content) != _FILE_BYTES:
                continue
            for device_id, numbers in _rows(content):
                place = (path.name, device_id)
                seen = self._seen.get(place, (0,) * _NUMBERS_COUNT)
                self._seen[place] = numbers
                # A number that a thread wrote late may be smaller than what was seen.
                fresh.setdefault(device_id, []).append(
                    tuple(max(0, new - old) for new, old in zip(numbers, seen, strict=True))
                )
        return {device_id: _together(rows) for device_id, rows in fresh.items()}


def _rows(content: bytes) -> list[tuple[ids.DeviceId, tuple[int, ...]]]:
    found = []
    for row in range(memoryview(content)[:_HEADER_BYTES].cast("Q")[0]):
        start = _HEADER_BYTES + row * ROW_BYTES
        name = content[start : start + DEVICE_BYTES].rstrip(b"\0").decode()
        numbers = memoryview(content)[start + DEVICE_BYTES : start + ROW_BYTES].cast("Q")
        found.append((ids.DeviceId(name), tuple(numbers)))
    return found


def _together(rows: list[tuple[int, ...]]) -> drive_figures.Figures:
    failed, _, *commands = (sum(column) for column in zip(*rows, strict=True))
    # Several processes come upon the same wrong place: the most that one has seen are distinct.
    return drive_figures.Figures(tuple(commands), failed, max(row[1] for row in rows))


def _map(path: pathlib.Path) -> mmap.mmap:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # Reserved, not just extended: a store into a hole of a full disk kills the process.
        os.posix_fallocate(fd, 0, _FILE_BYTES)
        return mmap.mmap(fd, _FILE_BYTES)
    except OSError as exc:
        raise errors.IndexFullError(f"no room for {path}: {exc.strerror}") from exc
    finally:
        os.close(fd)
