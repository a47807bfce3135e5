"""``couchestor bench``: measures a node, any S3 endpoint, or a layer below S3."""

from __future__ import annotations

import argparse
import dataclasses
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Final

from couchestor_bench import flags, options, progress, results, server_process
from couchestor_bench.engine import bench_run, degraded_node
from couchestor_bench.layers import codec_speed, device_speed
from couchestor_bench.reports import comparison, document, page, text
from couchestor_daemon.app import option_values
from couchestor_domain import errors, geometry

_INTRODUCTION: Final = """\
Measures an S3 server, or a layer of this node below S3.

  couchestor bench get --size 1MiB --html get.html       read for 10 seconds, with plots
  couchestor bench put --rate 500 --json a.json          500 writes a second, whatever comes back
  couchestor bench mixed --keys zipf:0.99 --duration 60

The server is --endpoint or AWS_ENDPOINT_URL, the keys are AWS_ACCESS_KEY_ID and
AWS_SECRET_ACCESS_KEY. What a run puts is deleted again at its end; nothing else is touched.
"""


_COMPARING: Final = """\
Says first whether two results may be compared, then what differs. Exit status 1: they may not, as
when options or machines differ."""


_DEVICES: Final = """\
Durable appends, then reads past the page cache, in a new folder below the one that is named, which
is deleted at the end."""


def main(words: Sequence[str]) -> int:
    """Entry of the command. Returns the exit status: 1 when requests failed."""
    parser = build_parser()
    if not words:
        parser.print_help()
        return 0
    known = [*flags.WORKLOADS, *_OTHERS]
    if not words[0].startswith("-") and words[0] not in known:
        near = option_values.suggestion(words[0], known)
        parser.error(f"there is no `couchestor bench {words[0]}`{near}")
    told = parser.parse_args(words)
    return _OTHERS[told.workload](told) if told.workload in _OTHERS else _load(told)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = flags.Parser(
        prog="couchestor bench", description=_INTRODUCTION, formatter_class=raw, allow_abbrev=False
    )
    commands = parser.add_subparsers(
        dest="workload", metavar="COMMAND", required=True, parser_class=flags.Parser
    )

    def add(name: str, summary: str, detail: str = "") -> argparse.ArgumentParser:
        text = f"{summary[0].upper()}{summary[1:]}. {detail}".rstrip()
        return commands.add_parser(name, help=summary, description=text, allow_abbrev=False)

    for name, summary in flags.WORKLOADS.items():
        made = add(name, summary)
        if name == "degraded":
            flags.add_degraded_flags(made)
        else:
            flags.add_server_flags(made)
        flags.add_load_flags(made, name)
        flags.add_output_flags(made)
        if name == "degraded":
            made.add_argument("--json-healthy", metavar="FILE", help="write the first result too")
    coding = add("codec", "encode and rebuild stripes on one core, through the codec port")
    flags.add_codec_flags(coding)
    flags.add_output_flags(coding)
    devices = add("devices", "write and read a folder through the device port", _DEVICES)
    flags.add_device_flags(devices)
    flags.add_output_flags(devices)
    comparing = commands.add_parser(
        "compare", help="two results beside each other", description=_COMPARING, allow_abbrev=False
    )
    comparing.add_argument("first", metavar="A.json")
    comparing.add_argument("second", metavar="B.json")
    comparing.add_argument("--html", metavar="FILE", help="write a page with plots of both")
    reporting = commands.add_parser(
        "report", help="the table and the page of a result", allow_abbrev=False
    )
    reporting.add_argument("result", metavar="RUN.json")
    reporting.add_argument("--html", metavar="FILE", help="write a page with plots")
    return parser


def _load(told: argparse.Namespace) -> int:
    endpoint = options.endpoint_of(told, os.environ)
    plan = options.plan_of(told, endpoint=endpoint, credentials=options.credentials_of(os.environ))
    with bench_run.prepared(
        plan, audience=_audience(told), server_pid=told.server_pid, keep=told.keep
    ) as prepared:
        found = prepared.measure(label=told.label)
    _deliver(told, found)
    return 1 if found["measured"]["total"]["error_count"] else 0


def _degraded(told: argparse.Namespace) -> int:
    shape: geometry.StripeGeometry = told.coding
    away_count = shape.parity_shards if told.away is None else told.away
    if away_count > shape.parity_shards:
        raise errors.ConfigurationError(
            f"--away {away_count} is more than {shape} can lose, {shape.parity_shards}"
        )
    # What is wrong with the options is said before a node is started.
    nowhere = options.parse_endpoint(flags.DEFAULT_ENDPOINT)
    plan = options.plan_of(told, endpoint=nowhere, credentials=server_process.CREDENTIALS)
    audience = _audience(told)
    audience.phase(f"starting a node of {shape}")
    with degraded_node.node(shape, told.folder) as server:
        healthy, wounded = degraded_node.measure(
            server,
            dataclasses.replace(plan, endpoint=options.parse_endpoint(server.endpoint)),
            audience=audience,
            away_count=away_count,
            label=told.label or str(shape),
        )
    compared = comparison.compare(healthy, wounded)
    for path, found in ((told.json_healthy, healthy), (told.json, wounded)):
        if path:
            document.write(pathlib.Path(path), found)
    if told.html:
        document.write_text(pathlib.Path(told.html), page.of_comparison(compared))
    print("\n\n".join((text.render(healthy), text.render(wounded), comparison.render(compared))))
    return 1 if any(each["measured"]["total"]["error_count"] for each in (healthy, wounded)) else 0


def _codec(told: argparse.Namespace) -> int:
    audience = _audience(told)
    rows = codec_speed.measure(
        told.coding, told.stripe, seconds=told.seconds, progress=audience.phase
    )
    asked = {
        "coding": ", ".join(map(str, told.coding)),
        "stripe_bytes": ", ".join(map(str, told.stripe)),
        "seconds": told.seconds,
    }
    return _layer(told, "codec", list(rows), asked, audience)


def _devices(told: argparse.Namespace) -> int:
    audience = _audience(told)
    rows = device_speed.measure(
        told.folder,
        sizes_bytes=told.size,
        depths=told.depth,
        seconds=told.seconds,
        space_bytes=told.space,
        progress=audience.phase,
    )
    asked = {
        "folder": str(told.folder),
        "size_bytes": ", ".join(map(str, told.size)),
        "depth": ", ".join(map(str, told.depth)),
        "space_bytes": told.space,
        "seconds": told.seconds,
    }
    return _layer(told, "devices", list(rows), asked, audience, folder=told.folder)


def _layer(
    told: argparse.Namespace,
    kind: str,
    rows: list[dict[str, str | float | int]],
    asked: dict[str, object],
    audience: bench_run.Audience,
    *,
    folder: pathlib.Path | None = None,
) -> int:
    audience.phase("")
    found = {
        **bench_run.envelope(kind, told.label or kind),
        "host": results.host_facts(folder),
        "options": asked,
        "rows": rows,
    }
    _deliver(told, found)
    return 0


def _audience(told: argparse.Namespace) -> bench_run.Audience:
    if told.quiet or not sys.stderr.isatty():
        return progress.Silent(sys.stderr)
    return progress.Terminal(sys.stderr)


def _compare(told: argparse.Namespace) -> int:
    first, second = (document.read(pathlib.Path(each)) for each in (told.first, told.second))
    compared = comparison.compare(first, second)
    if told.html:
        document.write_text(pathlib.Path(told.html), page.of_comparison(compared))
    print(comparison.render(compared))
    return 1 if compared.reasons else 0


def _report(told: argparse.Namespace) -> int:
    found = document.read(pathlib.Path(told.result))
    if told.html:
        document.write_text(pathlib.Path(told.html), page.of_run(found))
    print(text.render(found))
    return 0


def _deliver(told: argparse.Namespace, found: document.Document) -> None:
    # Files first: who reads the table may go away early, as `| head` does.
    if told.json:
        document.write(pathlib.Path(told.json), found)
    if told.html:
        document.write_text(pathlib.Path(told.html), page.of_run(found))
    print(text.render(found))


_OTHERS: Final = {
    "degraded": _degraded,
    "codec": _codec,
    "devices": _devices,
    "compare": _compare,
    "report": _report,
}
"""Commands that put no load on a server that is there."""
