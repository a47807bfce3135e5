"""Which devices the processes of this run of the node have taken out, known to all of them at once.

A device that left one process leaves every process, before the one that noticed goes on: what it
still does late, a write or a reset that nobody waits for, then meets nobody who was given the zone
since (docs/adr/0010). The board lasts as long as the run: the next one begins with an empty folder,
when every process of this one, and with it every command that was still under way, has ended.

    file departures:  u64 count | rows of ROW_BYTES, ``count`` of them valid, never changed again
    row:              device id, ASCII, zero-padded to 63 | u8 kind | reason, UTF-8, zero-padded
    kind:             1 left, 2 stalled: left, and stays out for this run, 3 back in service

The count is a native 64-bit item, stored by one instruction after the row it tells of, below an
exclusive lock of the file; readers take no lock.
"""

from __future__ import annotations

import contextlib
import enum
import fcntl
import mmap
import os
import pathlib
import threading
from collections.abc import Iterator
from typing import Final, NamedTuple

from couchestor_domain import errors, ids

FILE: Final = "departures"
ROW_BYTES: Final = 512
DEVICE_BYTES: Final = 63
REASON_BYTES: Final = ROW_BYTES - DEVICE_BYTES - 1
ROWS_MAX: Final = 255
"""More than a node has devices; one without a row leaves its own process all the same."""
_FILE_BYTES: Final = ROW_BYTES * (ROWS_MAX + 1)


class Kind(enum.IntEnum):
    """What a row says."""

    LEFT = 1
    STALLED = 2
    BACK = 3


class Departure(NamedTuple):
    """One device that left, or came back."""

    device_id: ids.DeviceId
    reason: str
    kind: Kind = Kind.LEFT


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
        """Rows so far; one load from memory."""
        return self._counts[0]

    def since(self, seen_count: int) -> list[Departure]:
        """Devices that left after the first ``seen_count`` rows and have not come back since."""
        found = {row.device_id: row for row in map(self._row, range(seen_count, self.count()))}
        return [row for row in found.values() if row.kind is not Kind.BACK]

    def add(self, device_id: ids.DeviceId, reason: str, *, stalled: bool = False) -> None:
        """Tell every process; a device that is out already stays so.

        May wait for another process that adds a row: a few stores into memory.

        Args:
            stalled: A command of it may still be under way: it stays out for this run.
        """
        kind = Kind.STALLED if stalled else Kind.LEFT
        with self._alone():
            known = {row.device_id: row.kind for row in self.since(0)}.get(device_id)
            if known is None or (known is Kind.LEFT and stalled):
                self._append(Departure(device_id, reason, kind))

    def take_back(self, device_id: ids.DeviceId) -> None:
        """Let processes use a device again, those too that start later. Before any of them does.

        Raises:
            DeviceStalledError: a command of it may still be under way and take effect, in a zone
                that somebody was given since.
        """
        with self._alone():
            self.refuse_stalled(device_id)
            if any(row.device_id == device_id for row in self.since(0)):
                self._append(Departure(device_id, "", Kind.BACK))

    def refuse_stalled(self, device_id: ids.DeviceId) -> None:
        """Raises DeviceStalledError as ``take_back`` does."""
        if Departure(device_id, "", Kind.STALLED) in [
            row._replace(reason="") for row in self.since(0)
        ]:
            raise errors.DeviceStalledError(
                f"device {device_id} hung in this run of the node and may still do what it "
                "was told then: it can be used again from the next start",
                device=device_id,
            )

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        with self._lock:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _append(self, departure: Departure) -> None:
        count = self._counts[0]
        if count >= ROWS_MAX:
            return
        row = departure.device_id.encode().ljust(DEVICE_BYTES, b"\0") + bytes([departure.kind])
        row += departure.reason.encode()[:REASON_BYTES]
        start = ROW_BYTES * (count + 1)
        self._map[start : start + len(row)] = row
        self._counts[0] = count + 1

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
            row[DEVICE_BYTES + 1 :].rstrip(b"\0").decode(errors="ignore"),
            Kind(row[DEVICE_BYTES]),
        )
