"""Threads that compute, behind those that wait for devices and clients.

When all CPUs are busy, what keeps requests waiting is the next step of a commit, of which there is
one at a time, and the event loop; the hash of a body can wait a little, and several wait for each
other gladly (``md5_lanes``). With a lower priority, PUTs of 1 MiB over 16 connections on two CPUs
went from some 375 to some 400 a second (five runs of each in turn).
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Final

NICENESS: Final = 10
"""About a tenth of the share of a thread of normal priority, and all that such threads leave."""


def yield_to_others() -> None:
    """Let the calling thread have the CPUs that others leave, where the system has such a call."""
    # Linux gives each thread a priority of its own.
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
