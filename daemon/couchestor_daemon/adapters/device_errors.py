"""The kernel's errors as ours: the boundary of every adapter that drives a file or a disk."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import Final

from couchestor_domain import errors

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE})
"""No descriptor is left, in the process or on the machine."""
_STARVED: Final = DESCRIPTORS | {errno.ENOMEM}
UNHARMED: Final = _FULL | _STARVED
"""A write that fails so has harmed nothing that was on the device before."""
_GONE: Final = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.ENXIO, errno.ESTALE, errno.ENOTCONN}
    | {errno.ENOMEDIUM}
)


def from_os_error(
    exc: OSError, *, command: str, place: str, device: str, is_sync: bool = False
) -> errors.DeviceError:
    """The typed error for a failed system call; anything not understood is an I/O error.

    Args:
        is_sync: The call had to make earlier writes durable. After it fails, for want of whatever,
            nothing unflushed can be trusted.
    """
    reason = os.strerror(exc.errno) if exc.errno else str(exc)
    message = f"{command} on {place} failed: {reason}"
    if exc.errno in _FULL:
        return errors.DeviceFullError(message, device=device, errno=exc.errno)
    if exc.errno in _STARVED and not is_sync:
        return errors.DeviceStarvedError(message, device=device, errno=exc.errno)
    if exc.errno in _GONE:
        return errors.DeviceGoneError(message, device=device, errno=exc.errno)
    return errors.DeviceIoError(message, device=device, errno=exc.errno)


@contextlib.contextmanager
def mapped(command: str, *, place: str, device: str) -> Iterator[None]:
    """Raise OSErrors of the block as DeviceFullError, DeviceStarvedError, DeviceGoneError or
    DeviceIoError."""
    try:
        yield
    except OSError as exc:
        raise from_os_error(exc, command=command, place=place, device=device) from exc
