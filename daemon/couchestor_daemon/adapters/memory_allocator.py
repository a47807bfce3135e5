"""The C library's allocator, told how a storage process uses memory.

Bodies arrive as objects of 64 KiB to 256 KiB. glibc maps and unmaps each one above 128 KiB, so the
kernel clears every page of every body anew: a tenth of the CPU time of a 1 MiB PUT. Keeping some
freed memory costs a few MiB a process.
"""

from __future__ import annotations

import ctypes
from typing import Final

from couchestor_domain import units

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
MAPPED_ALONE_BYTES_MIN: Final = 4 * units.MIB
KEPT_BYTES_MAX: Final = 16 * units.MIB


def keep_freed_memory() -> bool:
    """Serve allocations below ``MAPPED_ALONE_BYTES_MIN`` from memory that is kept when freed.

    Returns:
        False where the C library has no such settings (musl); everything works all the same.

    Source: mallopt(3).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    mallopt.argtypes = (ctypes.c_int, ctypes.c_int)
    return bool(
        mallopt(_M_MMAP_THRESHOLD, MAPPED_ALONE_BYTES_MIN)
        and mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES_MAX)
    )
