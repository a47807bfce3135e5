"""A run as a table in the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Final

from couchestor_bench.reports import document
from couchestor_domain import units

_WIDTH: Final = 100
COLUMNS: Final = ("p50", "p90", "p99", "p99.9", "max")


def render(found: document.Document) -> str:
    """The whole result, for people."""
    if found["kind"] != "s3":
        return layer(found)
    measured, generator = found["measured"], found["generator"]
    lines = [headline(found), ""]
    rows = [_row(name, each) for name, each in measured["operations"].items()]
    counted = sum(measured["operations"][name]["error_count"] for name in found["options"]["mix"])
    if len(found["options"]["mix"]) > 1 or measured["total"]["error_count"] != counted:
        rows.append(_row("all", measured["total"]))
    header = ["operation", "good/s", "MiB/s", "errors", *(f"{name} ms" for name in COLUMNS)]
    lines += [table(header, rows), ""]
    lines += [
        f"  {name:<14}{value}"
        for name, value in (
            ("server", server_line(found)),
            ("generator", generator_line(generator)),
            ("errors", errors_line(measured["total"]["errors"])),
        )
        if value
    ]
    for verdict in found["verdicts"]:
        lines += textwrap.wrap(verdict, _WIDTH, initial_indent="  ! ", subsequent_indent="    ")
    return "\n".join(lines)


def headline(found: document.Document) -> str:
    """What was run, in one line."""
    told = found["options"]
    arrivals = f"{told['arrivals']}), {told['connections']} connections"
    loop = (
        f"closed loop over {told['connections']} connections"
        if told["loop"] == "closed"
        else f"open loop, {told['rate']:,g}/s ({arrivals}"
    )
    mix = told["mix"]
    weights = "" if len(mix) < 2 else " (" + ", ".join(f"{k} {v:g}" for k, v in mix.items()) + ")"
    return (
        f"{told['workload']}{weights}: {told['objects']:,} keys {told['keys']}, {told['size']}; "
        f"{loop}; {found['measured']['seconds']:.1f} s after {told['warm_up_seconds']:g} s of "
        f"warm-up; {found['server']['url']}"
    )


def server_line(found: document.Document) -> str:
    """CPU and memory of the server; empty when it was not sampled."""
    samples = [each for each in found["usage"] if each["at"] >= 0]
    sampled = found["server"]["sampled"]
    if not samples or sampled is None:
        return ""
    cpus = sum(each["cpus"] for each in samples) / len(samples)
    rss = max(each["rss_bytes"] for each in samples)
    good = found["measured"]["total"]["per_second"]
    each_us = f", {cpus / good * 1e6:,.0f} us of CPU for each request" if good else ""
    return (
        f"{sampled['name']}, pid {sampled['pid']}: {cpus:.2f} CPUs{each_us}, "
        f"{rss / units.MIB:,.0f} MiB resident at most"
    )


def generator_line(generator: Mapping[str, Any]) -> str:
    """What the generator took itself."""
    cpus = generator["cpus"]
    text = f"{sum(cpus):.2f} CPUs in {len(cpus)} process{'es' if len(cpus) > 1 else ''}"
    lag = generator["lag_ms"]
    if lag:
        text += f", late by {lag['p50']:.3f} ms (p50) and {lag['p99']:.3f} ms (p99)"
    if generator["machine_busy"] is not None:
        text += f"; all CPUs of this machine {generator['machine_busy']:.0%} busy"
    return text


def errors_line(errors: Mapping[str, int]) -> str:
    """Codes with their counts; empty when there are none."""
    return ", ".join(f"{name} {count:,}" for name, count in errors.items())


def layer(found: document.Document) -> str:
    """A benchmark of a layer: its rows as they are."""
    rows: list[Mapping[str, Any]] = found["rows"]
    header = list(rows[0]) if rows else []
    cells = [
        [each if isinstance(each, str) else number(each) for each in row.values()] for row in rows
    ]
    words_count = sum(isinstance(each, str) for each in rows[0].values()) if rows else 0
    shown = table([column(name) for name in header], cells, words_count=words_count)
    return "\n".join([f"{found['label']} on {found['host']['cpu']}", "", shown])


def column(name: str) -> str:
    """How people read the name of a figure: GB/s, p50 us."""
    title = name.replace("_per_second", "/s").replace("_", " ")
    return title.replace("gb/", "GB/").replace("mb/", "MB/")


def number(value: float) -> str:
    """Three significant digits, thousands apart."""
    if isinstance(value, int):
        return f"{value:,}"
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 1 else f"{value:.{2 - len(str(int(abs(value)))) + 1}f}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, words_count: int = 1) -> str:
    """A Markdown table: the first ``words_count`` columns to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if i < words_count else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    marks = [
        f"{'-' * (width + 1)}{'-' if i < words_count else ':'}" for i, width in enumerate(widths)
    ]
    return "\n".join([line(header), f"|{'|'.join(marks)}|", *map(line, rows)])


def _row(name: str, found: Mapping[str, Any]) -> list[str]:
    latency = found["latency_ms"]
    moved = found["bytes_per_second"]
    return [
        name,
        number(float(found["per_second"])),
        number(moved / units.MIB) if moved else "",
        number(found["error_count"]),
        *(number(float(latency[each])) if latency else "" for each in COLUMNS),
    ]
