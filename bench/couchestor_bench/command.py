"""``couchestor bench``: measures a node, any S3 endpoint, or a layer below S3."""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Final

from couchestor_bench import options, progress
from couchestor_bench.engine import bench_run
from couchestor_bench.reports import document, text
from couchestor_daemon.app import option_values

_INTRODUCTION: Final = """\
Measures an S3 server, or a layer of this node below S3.

  couchestor bench get --size 1MiB --html get.html       read for 10 seconds, with plots
  couchestor bench put --rate 500 --json a.json          500 writes a second, whatever comes back
  couchestor bench mixed --keys zipf:0.99 --duration 60

The server is --endpoint or AWS_ENDPOINT_URL, the keys are AWS_ACCESS_KEY_ID and
AWS_SECRET_ACCESS_KEY. What a run puts is deleted again at its end; nothing else is touched.
"""


def main(words: Sequence[str]) -> int:
    """Entry of the command. Returns the exit status: 1 when requests failed."""
    parser = build_parser()
    if not words:
        parser.print_help()
        return 0
    if not words[0].startswith("-") and words[0] not in options.WORKLOADS:
        near = option_values.suggestion(words[0], options.WORKLOADS)
        parser.error(f"there is no `couchestor bench {words[0]}`{near}")
    told = parser.parse_args(words)
    return _load(told)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = options.Parser(
        prog="couchestor bench", description=_INTRODUCTION, formatter_class=raw, allow_abbrev=False
    )
    commands = parser.add_subparsers(
        dest="workload", metavar="COMMAND", required=True, parser_class=options.Parser
    )
    for name, summary in options.WORKLOADS.items():
        made = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            allow_abbrev=False,
        )
        options.add_load_flags(made, name)
        options.add_output_flags(made)
    return parser


def _load(told: argparse.Namespace) -> int:
    plan = options.plan_of(told, os.environ)
    found = bench_run.carry_out(
        plan,
        audience=_audience(told),
        label=told.label,
        server_pid=told.server_pid,
        keep=told.keep,
    )
    _deliver(told, found)
    return 1 if found["measured"]["total"]["error_count"] else 0


def _audience(told: argparse.Namespace) -> bench_run.Audience:
    if told.quiet or not sys.stderr.isatty():
        return progress.Silent()
    return progress.Terminal(sys.stderr)


def _deliver(told: argparse.Namespace, found: document.Document) -> None:
    print(text.render(found))
    if told.json:
        document.write(pathlib.Path(told.json), found)
