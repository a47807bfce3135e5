"""Which devices the processes of this run of the node have taken out, known to all of them at once.

A device that left one process leaves every process, before the one that noticed goes on: what it
still does late, a write or a reset that nobody waits for, then meets nobody who was given the zone
since (docs/adr/0009). The board lasts as long as the run: the next one begins with an empty folder,
when every process of this one, and with it every command that was still under way, has ended.

    file departures:  u64 count | rows of ROW_BYTES, ``count`` of them valid, never changed again
    row:              device id, ASCII, zero-padded to 64 | reason, UTF-8, zero-padded

The count is a native 64-bit item, stored by one instruction after the row it tells of, below an
exclusive lock of the file; readers take no lock.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import pathlib
import threading
from typing import Final, NamedTuple

from couchestor_domain import errors, ids

FILE: Final = "departures"
ROW_BYTES: Final = 512
DEVICE_BYTES: Final = 64
ROWS_MAX: Final = 255
"""More than a node has devices; one without a row leaves its own process all the same."""
_FILE_BYTES: Final = ROW_BYTES * (ROWS_MAX + 1)


class Departure(NamedTuple):
    """One device that left."""

    device_id: ids.DeviceId
    reason: str


class DepartureBoard:
    """The board of one run, mapped. Thread-safe; for any number of processes.

    Args:
        folder: Emptied when the node starts.

    Raises:
        IndexFullError: no room for the file.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        path = folder / FILE
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # Reserved, not just extended: a store into a hole of a full disk kills the process.
            os.posix_fallocate(self._fd, 0, _FILE_BYTES)
            self._map = mmap.mmap(self._fd, _FILE_BYTES)
        except OSError as exc:
            os.close(self._fd)
            raise errors.IndexFullError(f"no room for {path}: {exc.strerror}") from exc
        self._counts = memoryview(self._map).cast("Q")
        self._lock = threading.Lock()

    def count(self) -> int:
        """Devices that have left so far; one load from memory."""
        return self._counts[0]

    def since(self, seen_count: int) -> list[Departure]:
        """Those after the first ``seen_count``, in the order they left."""
        return [self._row(number) for number in range(seen_count, self.count())]

    def add(self, device_id: ids.DeviceId, reason: str) -> None:
        """Tell every process; a device that is on the board already stays there as it is.

        May wait for another process that adds a row: a few stores into memory.
        """
        with self._lock:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            try:
                count = self._counts[0]
                if count >= ROWS_MAX or any(row.device_id == device_id for row in self.since(0)):
                    return
                row = device_id.encode().ljust(DEVICE_BYTES, b"\0")
                row += reason.encode()[: ROW_BYTES - DEVICE_BYTES]
                start = ROW_BYTES * (count + 1)
                self._map[start : start + len(row)] = row
                self._counts[0] = count + 1
            finally:
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Release the mapping. Idempotent."""
        if self._fd >= 0:
            self._counts.release()
            self._map.close()
            os.close(self._fd)
            self._fd = -1

    def _row(self, number: int) -> Departure:
        start = ROW_BYTES * (number + 1)
        row = self._map[start : start + ROW_BYTES]
        return Departure(
            ids.DeviceId(row[:DEVICE_BYTES].rstrip(b"\0").decode()),
            row[DEVICE_BYTES:].rstrip(b"\0").decode(errors="ignore"),
        )
