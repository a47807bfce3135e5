"""A timer of the kernel that an event loop can watch.

The loop's own timers are a millisecond coarse, which is longer than many a request takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import math
import os
import time
from collections.abc import Callable
from typing import Final

from couchestor_domain import units

_CLOCK_MONOTONIC: Final = 1
_TFD_NONBLOCK: Final = os.O_NONBLOCK
_TFD_CLOEXEC: Final = os.O_CLOEXEC
_TFD_TIMER_ABSTIME: Final = 1


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("ns", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _TimeSpec), ("value", _TimeSpec))


class WakeTimer:
    """Calls back once at a time of ``time.monotonic``, some tens of microseconds late.

    Raises:
        OSError: The kernel gives no timer.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._library = ctypes.CDLL(None, use_errno=True)
        self._fd: int = self._library.timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK | _TFD_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        self._loop, self._callback = loop, callback
        self._armed_at = math.inf
        loop.add_reader(self._fd, self._ring)

    def arm(self, at: float) -> None:
        """Call back at ``at``, instead of any time told before; infinity: not at all."""
        if at == self._armed_at:
            return
        self._armed_at = at
        spec = _TimerSpec()
        if at < math.inf:
            # Zero would disarm it.
            at_ns = max(1, int(max(at, time.monotonic()) * units.NS_PER_SECOND))
            spec.value.seconds, spec.value.ns = divmod(at_ns, units.NS_PER_SECOND)
        if self._library.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None):
            raise OSError(ctypes.get_errno(), "timerfd_settime failed")

    def close(self) -> None:
        """Give the timer back; idempotent."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _ring(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 8)
        self._armed_at = math.inf
        self._callback()
