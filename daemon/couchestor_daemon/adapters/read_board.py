"""How far back the reads of every process look, where the process that releases zones sees it.

One file per worker slot, mapped by its writer: one native 64-bit item, written by one instruction.

    file reads-<slot>:  u64; nanoseconds of the machine's monotonic clock: no read of the slot's
    process goes by a lookup from before; what a dead process left grows old and holds nobody up for
    longer than the grace
"""

from __future__ import annotations

import mmap
import os
import pathlib
from typing import Final

from couchestor_domain import errors, units

_FILE_BYTES: Final = 8
_PREFIX: Final = "reads-"


class ReadBoardWriter:
    """The item of one slot.

    Raises:
        IndexFullError: no room for the file.
    """

    def __init__(self, folder: pathlib.Path, slot: int) -> None:
        path = folder / f"{_PREFIX}{slot}"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # Reserved, not just extended: a store into a hole of a full disk kills the process.
            os.posix_fallocate(fd, 0, _FILE_BYTES)
            self._map = mmap.mmap(fd, _FILE_BYTES)
        except OSError as exc:
            raise errors.IndexFullError(f"no room for {path}: {exc.strerror}") from exc
        finally:
            os.close(fd)
        self._item = memoryview(self._map).cast("Q")

    def publish(self, horizon_seconds: float) -> None:
        """Say so to whoever looks."""
        self._item[0] = int(horizon_seconds * units.NS_PER_SECOND)

    def close(self) -> None:
        """Release the mapping."""
        self._item.release()
        self._map.close()


class ReadBoard:
    """Reads the items of all slots that there should be."""

    def __init__(self, folder: pathlib.Path, slots_count: int) -> None:
        self._paths = [folder / f"{_PREFIX}{slot}" for slot in range(slots_count)]

    def horizon_seconds(self) -> float:
        """No read of any process goes by a lookup from before; 0.0: nobody can tell."""
        horizons: list[int] = []
        for path in self._paths:
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                return 0.0
            if len(content) != _FILE_BYTES:
                return 0.0
            horizons.append(memoryview(content).cast("Q")[0])
        return min(horizons, default=0) / units.NS_PER_SECOND
