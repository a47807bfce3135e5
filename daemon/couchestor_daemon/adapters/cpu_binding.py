"""Threads that hand work to each other all the time, kept on one CPU.

A commit wakes a thread for each replica and is woken by them, and whoever wakes needs the
interpreter, which one of them has. On several CPUs each of these steps interrupts another CPU and
goes on with cold caches; on one it is a switch. The bound threads wait nearly all of their time, so
a CPU that others use serves them soon enough; the event loop and the threads that compute
go wherever the kernel puts them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable


def binder(index: int) -> Callable[[], None]:
    """What a thread calls to stay on one of the CPUs that this process may use.

    The threads that it starts afterwards stay there too. Where the system has no such call, or
    refuses it, nothing is bound.

    Args:
        index: Which of them; counted round, so that any number will do.
    """

    def bind() -> None:
        # AttributeError: systems other than Linux.
        with contextlib.suppress(OSError, AttributeError):
            allowed = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(0, {allowed[index % len(allowed)]})

    return bind
