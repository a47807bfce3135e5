"""Which devices are not trusted, told by the process that tests them to all others of this run.

    file verdicts:  u64 version | u64 count of rows | rows of ROW_BYTES
    row:            device id, ASCII, zero-padded to 62 | u8 standing | u8 is slow | text, UTF-8,
                    zero-padded

One process writes. The version is a native 64-bit item, odd while it is at it: a reader that meets
an odd one, or another one after reading than before, looks again later. It asks for nothing but
the version while nothing changes. Nobody depends on when others see a change: a device that must
leave at once does so by the board of departures.
"""

from __future__ import annotations

import mmap
import os
import pathlib
from collections.abc import Sequence
from typing import Final

from couchestor_daemon.ports import drive_verdicts
from couchestor_domain import errors, ids

FILE: Final = "verdicts"
ROW_BYTES: Final = 1024
DEVICE_BYTES: Final = 62
TEXT_BYTES: Final = ROW_BYTES - DEVICE_BYTES - 2
ROWS_MAX: Final = 63
"""Further devices are judged by nobody: a node does not suspect so many."""
_HEADER_BYTES: Final = 16
_FILE_BYTES: Final = _HEADER_BYTES + ROW_BYTES * ROWS_MAX


class VerdictBoard:
    """The board of one run, mapped.

    Args:
        folder: Emptied when the node starts.

    Raises:
        IndexFullError: no room for the file.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        path = folder / FILE
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # Reserved, not just extended: a store into a hole of a full disk kills the process.
            os.posix_fallocate(fd, 0, _FILE_BYTES)
            self._map = mmap.mmap(fd, _FILE_BYTES)
        except OSError as exc:
            raise errors.IndexFullError(f"no room for {path}: {exc.strerror}") from exc
        finally:
            os.close(fd)
        self._items = memoryview(self._map)[:_HEADER_BYTES].cast("Q")

    def version(self) -> int:
        """Grows with each change; one load from memory."""
        return self._items[0]

    def read(self) -> tuple[int, Sequence[drive_verdicts.Verdict]] | None:
        """The version and its verdicts; None while they are being written."""
        before = self._items[0]
        if before % 2:
            return None
        found = [self._row(number) for number in range(min(self._items[1], ROWS_MAX))]
        return None if self._items[0] != before else (before, found)

    def write(self, verdicts: Sequence[drive_verdicts.Verdict]) -> None:
        """Replace all of them. By one process of the node alone."""
        # A writer that died in the middle has left an odd one.
        version = self._items[0] | 1
        self._items[0] = version
        rows = verdicts[:ROWS_MAX]
        for number, verdict in enumerate(rows):
            row = verdict.device_id.encode().ljust(DEVICE_BYTES, b"\0")
            row += bytes([verdict.standing, verdict.is_slow])
            row += verdict.text.encode()[:TEXT_BYTES].ljust(TEXT_BYTES, b"\0")
            start = _HEADER_BYTES + number * ROW_BYTES
            self._map[start : start + ROW_BYTES] = row
        self._items[1] = len(rows)
        self._items[0] = version + 1

    def close(self) -> None:
        """Release the mapping. Idempotent."""
        if not self._map.closed:
            self._items.release()
            self._map.close()

    def _row(self, number: int) -> drive_verdicts.Verdict:
        start = _HEADER_BYTES + number * ROW_BYTES
        row = self._map[start : start + ROW_BYTES]
        standing = row[DEVICE_BYTES]
        return drive_verdicts.Verdict(
            ids.DeviceId(row[:DEVICE_BYTES].rstrip(b"\0").decode(errors="ignore")),
            # A row that is being replaced may hold anything; ``read`` gives none of it out.
            drive_verdicts.Standing(min(standing, max(drive_verdicts.Standing))),
            bool(row[DEVICE_BYTES + 1]),
            row[DEVICE_BYTES + 2 :].rstrip(b"\0").decode(errors="ignore"),
        )
