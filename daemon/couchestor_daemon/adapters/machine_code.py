"""Functions made of machine code at run time, in memory that is never writable and executable."""

from __future__ import annotations

import ctypes
import mmap
import os
import pathlib
import platform
from collections.abc import Callable
from typing import Any, Final

import numpy as np

_CPU_FACTS: Final = pathlib.Path("/proc/cpuinfo")


_kept: Final[list[mmap.mmap]] = []
"""Mapped for as long as functions can be called, which is until the process ends."""


class MachineCodeError(Exception):
    """Code cannot be run here; the text says why."""


def processor_features() -> frozenset[str]:
    """What the processor can do and the kernel lets it, as Linux names it (``avx2``).

    Nothing where that is not an x86-64 or the system does not say.
    """
    if platform.machine() != "x86_64":
        return frozenset()
    try:
        text = _CPU_FACTS.read_text("ascii", "replace")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            return frozenset(value.split())
    return frozenset()


def loaded(code: bytes, *arguments: type[Any]) -> Callable[..., None]:
    """A function of C's calling convention that returns nothing. It is called without the GIL.

    The code is written to a file that has no name and mapped from there, read-only: a process that
    may not make its own memory executable (systemd's MemoryDenyWriteExecute) can still do that.

    Raises:
        MachineCodeError: the system does not allow it.
    """
    try:
        descriptor = os.memfd_create("couchestor-code", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, code)
            mapping = mmap.mmap(
                descriptor,
                len(code),
                flags=mmap.MAP_PRIVATE,
                prot=mmap.PROT_READ | mmap.PROT_EXEC,
            )
        finally:
            os.close(descriptor)
    except (OSError, AttributeError) as exc:
        raise MachineCodeError(f"memory with code cannot be mapped: {exc}") from exc
    address = np.frombuffer(mapping, np.uint8).ctypes.data
    function = ctypes.CFUNCTYPE(None, *arguments)(address)
    _kept.append(mapping)
    return function
