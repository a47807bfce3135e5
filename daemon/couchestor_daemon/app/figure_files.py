"""Files that Prometheus' values are mapped from, with room on the medium before they are written.

The client library extends a file and maps it, which leaves holes: once the file system is full, the
first figure that lands in one ends the process with SIGBUS. Here every byte is reserved before it
is mapped, and where no room is left a figure is kept in the process alone.
"""

from __future__ import annotations

import logging
import mmap
import os
from collections.abc import Callable
from typing import Any, Final

from prometheus_client import mmap_dict, values

_log = logging.getLogger("couchestor.metrics")

INITIAL_BYTES: Final = 64 * 1024
_ENTRY_BYTES_MAX: Final = 32
"""What an entry takes at most beyond its name: length, padding and two numbers."""


class ReservedDict(mmap_dict.MmapedDict):
    """The library's file of figures, without holes.

    Raises:
        OSError: no room for the file, or for another entry; what it holds is unharmed.
    """

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        if not read_mode:
            fd = os.open(filename, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                # All of it: an earlier process may have died between extending and reserving.
                os.posix_fallocate(fd, 0, max(os.fstat(fd).st_size, INITIAL_BYTES))
            finally:
                os.close(fd)
        super().__init__(filename, read_mode)  # type: ignore[no-untyped-call]

    def _init_value(self, key: str) -> None:
        needed_bytes = self._used + len(key.encode()) + _ENTRY_BYTES_MAX
        capacity_bytes = self._capacity
        while needed_bytes > capacity_bytes:
            capacity_bytes *= 2
        if capacity_bytes > self._capacity:
            os.posix_fallocate(self._f.fileno(), 0, capacity_bytes)
            self._m = mmap.mmap(self._f.fileno(), capacity_bytes)
            self._capacity = capacity_bytes
        super()._init_value(key)  # type: ignore[no-untyped-call]


def values_of(process_name: str) -> Callable[..., Any]:
    """What makes the values of this process's metrics; the class the library asks for.

    A value that no room is left for counts in memory: it is missing from the page, and said once.
    """
    # The library asks for its class by name where it opens a file, and offers no other way.
    vars(values)[mmap_dict.MmapedDict.__name__] = ReservedDict
    mapped = values.MultiProcessValue(lambda: process_name)  # type: ignore[no-untyped-call]
    is_said = False

    def value(*arguments: Any, **options: Any) -> Any:
        nonlocal is_said
        try:
            return mapped(*arguments, **options)
        except OSError as exc:
            if not is_said:
                is_said = True
                _log.warning(
                    "some figures of this process are missing from /metrics until it is restarted",
                    extra={"reason": exc.strerror},
                )
            return values.MutexValue(*arguments, **options)  # type: ignore[no-untyped-call]

    return value
