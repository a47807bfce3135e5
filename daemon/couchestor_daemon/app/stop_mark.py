"""How the node stopped last: ``<data_dir>/running.json`` is all a start knows of it.

    content              written                                  the next start takes it for
    none or unreadable   before an index is built                 a crash in another boot
    boot id              before the first worker serves           a crash in that boot, or another
    boot id, clean       after the index was synced, at the end   a clean stop, in any boot
                         of an orderly stop

Each is durable before what follows it. So an index is never taken for synced after a mutation, nor
for one of this boot while it still is the one that a power loss left behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from typing import Final

from couchestor_daemon.services import recovery_table

BOOT_ID_PATH: Final = pathlib.Path("/proc/sys/kernel/random/boot_id")


def last_stop(data_dir: pathlib.Path) -> recovery_table.LastStop:
    """What the mark says, the worst when it says nothing."""
    try:
        mark = json.loads(_path(data_dir).read_text("utf-8"))
        if mark.get("clean") is True:
            return recovery_table.LastStop.CLEAN
        if mark.get("boot_id") == _boot_id():
            return recovery_table.LastStop.CRASH_SAME_BOOT
    except (OSError, ValueError, AttributeError):
        pass
    return recovery_table.LastStop.CRASH_OTHER_BOOT


def remove(data_dir: pathlib.Path) -> None:
    """Until the next mark a start trusts no index. Durable when this returns."""
    with contextlib.suppress(FileNotFoundError):
        _path(data_dir).unlink()
    sync_folder(data_dir)


def write_running(data_dir: pathlib.Path) -> None:
    """From now on the index changes without being synced. Durable when this returns."""
    _replace(data_dir, {"boot_id": _boot_id()})


def write_clean(data_dir: pathlib.Path) -> None:
    """The index is synced and nothing changes it any more. Durable when this returns."""
    _replace(data_dir, {"boot_id": _boot_id(), "clean": True})


def sync_folder(path: pathlib.Path) -> None:
    """Make the names in a folder durable."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _replace(data_dir: pathlib.Path, mark: dict[str, object]) -> None:
    path = _path(data_dir)
    temporary = path.with_suffix(".new")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(mark, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(data_dir)


def _path(data_dir: pathlib.Path) -> pathlib.Path:
    return data_dir / "running.json"


def _boot_id() -> str:
    return BOOT_ID_PATH.read_text("ascii").strip()
