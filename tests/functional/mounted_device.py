"""A device of a node that is a file system of its own, on a loop device: what only the kernel can
do to a disk can be done to it."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import subprocess
import typing
from collections.abc import Iterator

import pytest

_IMAGE_BYTES: typing.Final = 256 << 20
_NEEDED: typing.Final = ("losetup", "mkfs.ext4", "mount", "umount", "fsfreeze")


def run(*command: str) -> str:
    """A command of the system that has to succeed."""
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout


@contextlib.contextmanager
def mounted(
    folder: pathlib.Path, image: pathlib.Path, *, size_bytes: int = _IMAGE_BYTES
) -> Iterator[None]:
    """A file system of its own below ``folder``; thawed, if need be, and gone at the end.

    Skips where that is not allowed: in most containers, and to anybody but root.
    """
    missing = [name for name in _NEEDED if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"freezing a file system needs root and {', '.join(missing or _NEEDED)}")
    with image.open("wb") as file:
        file.truncate(size_bytes)
    folder.mkdir(parents=True)
    run("mkfs.ext4", "-q", "-E", "nodiscard", str(image))
    try:
        run("mount", "-o", "loop,noatime", str(image), str(folder))
    except subprocess.CalledProcessError as exc:
        pytest.skip(f"no loop device can be mounted here: {exc.stderr.strip()}")
    try:
        run("rmdir", str(folder / "lost+found"))
        yield
    finally:
        subprocess.run(["fsfreeze", "-u", str(folder)], check=False, capture_output=True)
        run("umount", "-l", str(folder))
