"""Dockerfiles without a container runtime: read, and their commands run in a temporary folder.

What is run are the very lines of the Dockerfile, with its paths moved below the folder, and
offline: what ``make setup`` and ``make test-kube`` have installed is in uv's cache. Left out is
what brings the tools, which are here: the Debian packages, pip's uv, the build backend.
"""

from __future__ import annotations

import fnmatch
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
from typing import Final, NamedTuple

ROOT: Final = pathlib.Path(__file__).resolve().parents[2]
PREFIX: Final = "/opt/couchestor"
TOOLS: Final = "/tools/bin/"
_RUN_SECONDS_MAX: Final = 200.0


class Instruction(NamedTuple):
    """One of a Dockerfile."""

    name: str
    text: str


class Stage(NamedTuple):
    """What follows a FROM."""

    base: str
    instructions: list[Instruction]

    def texts(self, name: str) -> list[str]:
        """Of the instructions of a name."""
        return [each.text for each in self.instructions if each.name == name]


def read(path: pathlib.Path) -> tuple[dict[str, str], list[Stage]]:
    """The arguments before the first stage, and the stages."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    for line in filter(None, joined.splitlines()):
        name, _, text = line.partition(" ")
        match name:
            case "ARG" if not stages:
                key, _, value = text.partition("=")
                arguments[key] = value
            case "FROM":
                stages.append(Stage(text, []))
            case _:
                stages[-1].instructions.append(Instruction(name, text))
    return arguments, stages


def sent(path: str) -> bool:
    """Whether ``.dockerignore`` leaves a path of the checkout in: the last rule that meets it."""
    found = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        rule = line.removeprefix("!")
        if not rule or rule.startswith("#"):
            continue
        parts = path.split("/")
        heads = ["/".join(parts[: count + 1]) for count in range(len(parts))]
        # The rules in use: a name at the root, a path, and a name at any depth.
        pattern, at_any_depth = rule.removeprefix("**/"), rule.startswith("**/")
        if any(fnmatch.fnmatchcase(each, pattern) for each in (parts if at_any_depth else heads)):
            found = line.startswith("!")
    return found


def built(dockerfile: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """What the last stage copies out of the first, made below ``folder``. Returns where it is."""
    source, prefix = folder / "src", folder / PREFIX.removeprefix("/")
    source.mkdir()
    _, (build, _) = read(dockerfile)
    tools = pathlib.Path(sys.executable).parent
    for instruction in build.instructions:
        words = shlex.split(instruction.text)
        if instruction.name == "COPY":
            _copy(words, source)
        elif instruction.name == "RUN" and not _brings_tools(instruction.text):
            moved = [
                word.replace(TOOLS, f"{tools}/")
                .replace(PREFIX, str(prefix))
                .replace("/wheels", str(folder / "wheels"))
                for word in words
            ]
            if moved[0] == "python3":
                moved[0] = str(getattr(sys, "_base_executable", sys.executable))
            _run(moved, source)
    return prefix


def bare_environment(folder: pathlib.Path) -> dict[str, str]:
    """Of a process in an image: no shell, no other program, no home, nothing of this machine."""
    return {"PATH": f"{folder}/bin", "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"}


def _brings_tools(text: str) -> bool:
    return text.startswith(("apt-get ", "python3 -m venv /tools")) or (
        text.startswith(TOOLS) and f" {PREFIX}" not in text and " build " not in text
    )


def _copy(words: list[str], source: pathlib.Path) -> None:
    *names, target = words
    for name in names:
        place = source / (target if len(names) == 1 and not target.endswith("/") else "")
        if target.endswith("/"):
            place = source / target / pathlib.PurePosixPath(name).name
        place.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, place, ignore=_left_out)
        else:
            shutil.copy(ROOT / name, place)


def _left_out(folder: str, names: list[str]) -> set[str]:
    inside = pathlib.Path(folder).relative_to(ROOT)
    return {name for name in names if not sent(str(inside / name))}


def _run(words: list[str], folder: pathlib.Path) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ["HOME"],
        "UV_OFFLINE": "1",
        "UV_PYTHON_DOWNLOADS": "never",
    } | {
        name: value
        for name, value in os.environ.items()
        if name in ("UV_CACHE_DIR", "XDG_CACHE_HOME")
    }
    ended = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, timeout=_RUN_SECONDS_MAX
    )
    assert ended.returncode == 0, (
        f"{shlex.join(words)}\n{ended.stderr}\nIf uv's cache was emptied, `make clean` and `make"
        " setup` or `make test-kube` fill it."
    )
