"""Runs targets under atheris, which keeps the inputs that reach new code and goes on from them.

    .venv-fuzz/bin/python -m tests.fuzz.run_atheris --seconds 60 forms chunked
    .venv-fuzz/bin/python -m tests.fuzz.run_atheris --seconds 10 all

One process for each target, one after the other. Inputs that reached something are kept in a
folder for the next run. What fails is written beside them, and the run ends with status 1.
"""

from __future__ import annotations

import argparse
import contextlib
import pathlib
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Final, NamedTuple

import atheris

CORPUS: Final = pathlib.Path(".fuzz")
BYTES_MAX: Final = 4096
MEMORY_MIB_MAX: Final = 1024
INPUT_SECONDS_MAX: Final = 10
_PACKAGES: Final = ["couchestor_domain", "couchestor_daemon", "couchestor_gateway"]
_INSIDE: Final = "--inside"
_STATISTIC: Final = re.compile(r"stat::number_of_executed_units:\s*(\d+)")
_COVERAGE: Final = re.compile(r"cov: (\d+)")

# Only the process that fuzzes needs to know what code an input reaches.
with (
    atheris.instrument_imports(include=_PACKAGES)
    if _INSIDE in sys.argv
    else contextlib.nullcontext()
):
    from tests.fuzz import catalogue


class Run(NamedTuple):
    """What became of a target."""

    name: str
    executions_count: int
    coverage_count: int
    """Edges of our code that were reached."""
    failed: bool


def _token_line(token: bytes) -> str:
    return '"' + "".join(f"\\x{byte:02x}" for byte in token) + '"\n'


def _fuzz(name: str, folder: pathlib.Path, seconds: int) -> None:
    """Does not return: libFuzzer ends the process."""
    fuzzed = catalogue.TARGETS[name]
    arguments = [
        sys.argv[0],
        f"-max_total_time={seconds}",
        f"-max_len={BYTES_MAX}",
        f"-rss_limit_mb={MEMORY_MIB_MAX}",
        f"-timeout={INPUT_SECONDS_MAX}",
        f"-artifact_prefix={folder}/failed-",
        "-print_final_stats=1",
    ]
    if fuzzed.tokens:
        words = folder / "words.dict"
        words.write_text("".join(map(_token_line, fuzzed.tokens)))
        arguments.append(f"-dict={words}")
    inputs = folder / "inputs"
    inputs.mkdir(exist_ok=True)
    for number, seed in enumerate(fuzzed.seeds):
        (inputs / f"seed-{number}").write_bytes(seed)
    atheris.Setup([*arguments, str(inputs)], fuzzed.run)
    atheris.Fuzz()


def _run_apart(name: str, corpus: pathlib.Path, seconds: int) -> Run:
    folder = corpus / name
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tests.fuzz.run_atheris", _INSIDE, str(folder)]
    ended = subprocess.run(
        [*command, "--seconds", str(seconds), name],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        text=True,
        errors="replace",
    )
    (folder / "output.txt").write_text(ended.stdout)
    executed = _STATISTIC.search(ended.stdout)
    reached = _COVERAGE.findall(ended.stdout)
    if ended.returncode:
        print("\n".join(ended.stdout.splitlines()[-40:]), file=sys.stderr)
    return Run(
        name,
        int(executed[1]) if executed else 0,
        int(reached[-1]) if reached else 0,
        failed=ended.returncode != 0,
    )


def main(arguments: Sequence[str]) -> int:
    """Run what is asked for and tell what became of it."""
    parser = argparse.ArgumentParser(
        prog="tests.fuzz.run_atheris", description="Fuzz parsers, guided by coverage."
    )
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--corpus", type=pathlib.Path, default=CORPUS, help="where inputs are kept")
    parser.add_argument(_INSIDE, type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("targets", nargs="+", choices=["all", *catalogue.TARGETS], metavar="TARGET")
    asked = parser.parse_args(arguments)
    if asked.inside is not None:
        _fuzz(asked.targets[0], asked.inside, asked.seconds)
        return 0
    names = list(catalogue.TARGETS) if "all" in asked.targets else asked.targets
    runs = []
    for name in names:
        found = _run_apart(name, asked.corpus, asked.seconds)
        runs.append(found)
        verdict = "FAILED" if found.failed else "held"
        print(
            f"{found.name:24} {verdict:6} {found.executions_count:>10,} executions,"
            f" {found.coverage_count:>6,} edges",
            flush=True,
        )
    failed = [each.name for each in runs if each.failed]
    print(
        f"{len(runs)} targets, {sum(each.executions_count for each in runs):,} executions,"
        f" {len(failed)} failed{': ' if failed else ''}{', '.join(failed)}"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
