"""The kernel's errors as ours: the boundary of every adapter that drives a file or a disk."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import Final

from couchestor_domain import errors

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_GONE: Final = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.ENXIO, errno.ESTALE, errno.ENOTCONN}
    | {errno.ENOMEDIUM}
)


def from_os_error(exc: OSError, *, command: str, place: str, device: str) -> errors.DeviceError:
    """The typed error for a failed system call; anything not understood is an I/O error."""
    reason = os.strerror(exc.errno) if exc.errno else str(exc)
    message = f"{command} on {place} failed: {reason}"
    if exc.errno in _FULL:
        return errors.DeviceFullError(message, device=device, errno=exc.errno)
    if exc.errno in _GONE:
        return errors.DeviceGoneError(message, device=device, errno=exc.errno)
    return errors.DeviceIoError(message, device=device, errno=exc.errno)


@contextlib.contextmanager
def mapped(command: str, *, place: str, device: str) -> Iterator[None]:
    """Raise OSErrors of the block as DeviceFullError, DeviceGoneError or DeviceIoError."""
    try:
        yield
    except OSError as exc:
        raise from_os_error(exc, command=command, place=place, device=device) from exc
