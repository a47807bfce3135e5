"""Result files: raw figures with the facts of the host and the commit they were taken on."""

from __future__ import annotations

import datetime
import json
import os
import pathlib
import platform
import subprocess
from collections.abc import Mapping, Sequence
from typing import Final

import psutil

RESULTS_DIR: Final = pathlib.Path(__file__).resolve().parents[1] / "results"
_REPOSITORY: Final = pathlib.Path(__file__).resolve().parents[2]


def host_facts(data_dir: pathlib.Path | None = None) -> dict[str, object]:
    """What a reader needs to judge figures: processor, memory, kernel, file system, load."""
    return {
        "cpu": _cpu_model(),
        "cpu_count": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "file_system": _file_system(data_dir) if data_dir else None,
        "load_average_1min": os.getloadavg()[0],
    }


def commit() -> str:
    """The commit of the work tree, marked when it holds changes; "unknown" when there is none.

    Results are no change: those of one ``make bench`` would mark each other.
    """
    if not (_REPOSITORY / "bench" / "couchestor_bench").is_dir():
        # Installed: a repository around that is somebody else's.
        return "unknown"
    name = _git("rev-parse", "HEAD")
    changed = _git("status", "--porcelain", "--", ":(top)", ":(top,exclude)bench/results")
    return f"{name}-modified" if name != "unknown" and changed else name


def write(
    name: str, figures: Mapping[str, object], *, data_dir: pathlib.Path | None = None
) -> pathlib.Path:
    """Write ``name``-<UTC time>.json into the results folder. Returns its path."""
    now = datetime.datetime.now(datetime.UTC)
    RESULTS_DIR.mkdir(parents=True, exist_ok=True)
    path = RESULTS_DIR / f"{name}-{now:%Y%m%dT%H%M%SZ}.json"
    document = {
        "name": name,
        "taken_at": now.isoformat(timespec="seconds"),
        "commit": commit(),
        "host": host_facts(data_dir),
        **figures,
    }
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; floats with three significant digits."""
    cells = [list(header), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _cpu_model() -> str:
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _file_system(path: pathlib.Path) -> str:
    place = str(path.resolve())
    mounts = [
        each for each in psutil.disk_partitions(all=True) if _is_below(place, each.mountpoint)
    ]
    return max(mounts, key=lambda each: len(each.mountpoint)).fstype if mounts else "unknown"


def _is_below(place: str, mountpoint: str) -> bool:
    return place == mountpoint or place.startswith(mountpoint.rstrip("/") + "/")


def _git(*words: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(_REPOSITORY), *words], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
