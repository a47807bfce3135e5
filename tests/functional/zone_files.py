"""The zone files of a device whose daemon may be serving: one that is reset goes while we look."""

from __future__ import annotations

import os
import pathlib
import shutil
import typing
from collections.abc import Callable, Iterator

_Read = typing.TypeVar("_Read")
_SHARD_MAGIC: typing.Final = b"CSTSHARD"


def status_of(device: pathlib.Path) -> dict[pathlib.Path, os.stat_result]:
    """The zones that the device has files for, with what the file system says of each."""
    return dict(_each(device, pathlib.Path.stat))


def with_shards(device: pathlib.Path) -> list[pathlib.Path]:
    """The zones whose beginning holds a shard, in the order of their numbers."""
    return sorted(path for path, head in _each(device, _head) if _SHARD_MAGIC in head)


def destroy(device: pathlib.Path) -> None:
    """Leave the folder of a device empty, as a disk that is gone does, under a writing node."""
    while found := list(device.iterdir()):
        for path in found:
            if path.is_dir():
                # What the node writes meanwhile is met by the next turn.
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _each(
    device: pathlib.Path, read: Callable[[pathlib.Path], _Read]
) -> Iterator[tuple[pathlib.Path, _Read]]:
    for path in (device / "zones").glob("*.zone"):
        try:
            yield path, read(path)
        except FileNotFoundError:
            # Reset by the daemon since the folder was listed.
            continue


def _head(path: pathlib.Path) -> bytes:
    with path.open("rb") as file:
        return file.read(8192)
