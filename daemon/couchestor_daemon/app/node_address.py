"""Where the running node of a data directory answers: ``<data_dir>/address.json``.

{"version": 1, "health_url": "http://127.0.0.1:8081"}

Written by each start and removed at an orderly stop. After a crash it is stale, and another node
may answer there: whoever asks compares the data directory that the answer names.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pathlib
from typing import Final

VERSION: Final = 1

_log = logging.getLogger("couchestor.serve")


def remember(data_dir: pathlib.Path, health_url: str) -> None:
    """Write it down. Without room for it the node serves all the same."""
    path = _path(data_dir)
    new = path.with_suffix(".new")
    try:
        new.write_text(
            json.dumps({"version": VERSION, "health_url": health_url}) + "\n", encoding="utf-8"
        )
        os.replace(new, path)
    except OSError as exc:
        _log.warning("`couchestor status` will not find this node by itself: %s", exc)


def forget(data_dir: pathlib.Path) -> None:
    """The node ends in order."""
    with contextlib.suppress(OSError):
        _path(data_dir).unlink(missing_ok=True)


def recall(data_dir: pathlib.Path) -> str:
    """The address that the last start wrote down; empty when there is none to be read."""
    try:
        found = json.loads(_path(data_dir).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    if not isinstance(found, dict) or found.get("version") != VERSION:
        return ""
    url = found.get("health_url")
    return url if isinstance(url, str) else ""


def _path(data_dir: pathlib.Path) -> pathlib.Path:
    return data_dir / "address.json"
