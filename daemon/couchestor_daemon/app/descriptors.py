"""How many files and connections the processes of a node may have open."""

from __future__ import annotations

import resource
from typing import Final

from couchestor_daemon.adapters import directory_device

WANTED_COUNT: Final = 1 << 20
"""Beyond it there is nothing to gain, and some libraries look at every possible descriptor."""
_PER_FILE_COUNT_MAX: Final = 3
_FILES_COUNT_MIN: Final = 8


def raise_limit() -> None:
    """Let this process and its children open as many as the hard limit allows.

    The usual soft limit of 1,024 is meant for programs that cannot watch more at one time.
    """
    soft_count, hard_count = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted_count = WANTED_COUNT
    if hard_count != resource.RLIM_INFINITY:
        wanted_count = min(wanted_count, hard_count)
    if soft_count != resource.RLIM_INFINITY and soft_count < wanted_count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted_count, hard_count))


def files_per_device(devices_count: int) -> int:
    """Zone files that each device may keep open unused: all together half of what may be open, so
    that connections have the other half."""
    soft_count, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = directory_device.OPEN_FILES_COUNT_MAX
    if soft_count == resource.RLIM_INFINITY:
        return most
    fitting = soft_count // 2 // _PER_FILE_COUNT_MAX // max(1, devices_count)
    return max(_FILES_COUNT_MIN, min(most, fitting))
