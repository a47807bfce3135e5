"""Token buckets that all processes of a node take from, in mapped memory.

    file rates:  u64 for each slot: when its bucket is full again, on the machine's monotonic clock

To look and to take is one step under a lock on the bytes of the slot. The kernel drops it with the
process that held it, at whatever instruction that died; the number is stored by one instruction.
The lock is asked for without waiting and with the interpreter held: a call that lets other threads
in would keep the lock for as long as they compute.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from couchestor_domain import errors, request_rates, units

FILE: Final = "rates"
SLOTS_COUNT: Final = 4_096
CROWDED_NS: Final = units.NS_PER_SECOND // 50
"""How long others may be in the way before a request is refused as if it were one too many."""
_SLOT_BYTES: Final = 8
_FILE_BYTES: Final = SLOTS_COUNT * _SLOT_BYTES
_TRY_AGAIN: Final = (errno.EAGAIN, errno.EACCES, errno.EINTR)
_F_OFD_SETLK: Final = 37
_PAUSE_US: Final = 20


class _Flock(ctypes.Structure):
    _fields_ = (
        ("l_type", ctypes.c_short),
        ("l_whence", ctypes.c_short),
        ("l_start", ctypes.c_longlong),
        ("l_len", ctypes.c_longlong),
        ("l_pid", ctypes.c_int),
    )


# Called with the interpreter held, unlike CDLL.
_LIBC: Final = ctypes.PyDLL(None, use_errno=True)


class Limit(NamedTuple):
    """A rate and the slot that its bucket is kept in."""

    slot: int
    rate: request_rates.Rate


class RateBoard:
    """The buckets of one run, mapped.

    Args:
        folder: Emptied when the node starts: all buckets are full then.

    Raises:
        IndexFullError: no room for the file.
    """

    def __init__(
        self, folder: pathlib.Path, *, now_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        path = folder / FILE
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # Reserved, not just extended: a store into a hole of a full disk kills the process.
            os.posix_fallocate(self._fd, 0, _FILE_BYTES)
            self._map = mmap.mmap(self._fd, _FILE_BYTES)
        except OSError as exc:
            os.close(self._fd)
            raise errors.IndexFullError(f"no room for {path}: {exc.strerror}") from exc
        self._items = memoryview(self._map).cast("Q")
        self._now_ns = now_ns

    def take(self, limits: Sequence[Limit]) -> float:
        """Take one request out of each bucket, or out of none.

        Args:
            limits: By slot: in one order everywhere.

        Returns:
            0 when it is granted, else how many seconds it takes until one may be.
        """
        locked: list[int] = []
        try:
            for limit in limits:
                if not self._lock(limit.slot):
                    return 1.0
                locked.append(limit.slot)
            now_ns = self._now_ns()  # once nobody else can take with a later one
            decisions = [
                request_rates.decide(limit.rate, full_ns=self._items[limit.slot], now_ns=now_ns)
                for limit in limits
            ]
            wait_ns = max(decision.wait_ns for decision in decisions)
            if wait_ns == 0:
                for limit, decision in zip(limits, decisions, strict=True):
                    self._items[limit.slot] = decision.full_ns
            return wait_ns / units.NS_PER_SECOND
        finally:
            for slot in locked:
                self._set(fcntl.F_UNLCK, slot)

    def close(self) -> None:
        """Release the mapping. Idempotent."""
        if not self._map.closed:
            self._items.release()
            self._map.close()
            with contextlib.suppress(OSError):
                os.close(self._fd)

    def _lock(self, slot: int) -> bool:
        if self._set(fcntl.F_WRLCK, slot):
            return True
        # Whoever holds it needs microseconds of a processor, and has perhaps none just now.
        deadline_ns = time.monotonic_ns() + CROWDED_NS
        while time.monotonic_ns() < deadline_ns:
            _LIBC.usleep(_PAUSE_US)
            if self._set(fcntl.F_WRLCK, slot):
                return True
        return False

    def _set(self, kind: int, slot: int) -> bool:
        asked = _Flock(kind, os.SEEK_SET, slot * _SLOT_BYTES, _SLOT_BYTES, 0)
        if _LIBC.fcntl(self._fd, _F_OFD_SETLK, ctypes.byref(asked)) == 0:
            return True
        found = ctypes.get_errno()
        if found not in _TRY_AGAIN:
            raise OSError(found, os.strerror(found))
        return False
