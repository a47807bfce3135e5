"""The document of a run: everything a reader needs to judge its figures, as JSON has it.

Version 1. Every document has ``schema``, ``kind`` (``s3``, ``codec`` or ``devices``), ``label``,
``taken_at``, ``commit``, ``version``, ``host`` and ``options``. Of kind ``s3``:

    server        where it was, what it calls itself, which process was sampled
    measured      figures of each operation and of all in the mix together
    seconds       one entry a second, warm-up below 0
    usage         CPU and memory of the server, sampled once a second
    generator     what the load generator took itself, and what bounded the run
    verdicts      sentences for people: what to know before believing the figures

Of the layers: ``rows``, each with its figures. Latencies are in milliseconds, histograms pairs of
bucket and count (``reports.histogram``).
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any, Final, TypedDict

from couchestor_bench import failures
from couchestor_bench.reports import histogram, tally

SCHEMA: Final = 1
KINDS: Final = ("s3", "codec", "devices")
PERCENTILES: Final = (50.0, 90.0, 95.0, 99.0, 99.9, 99.99)


class Figures(TypedDict):
    """Of one operation, or of all together."""

    good_count: int
    error_count: int
    errors: dict[str, int]
    per_second: float
    """Good answers that ended within the measured time."""
    bytes_per_second: float
    latency_ms: dict[str, float]
    histogram: list[list[int]]
    sum_ns: int
    min_ns: int
    max_ns: int


class Second(TypedDict):
    """What one operation did in one second."""

    count: int
    size_bytes: int
    error_count: int
    p50_ms: float
    p99_ms: float
    max_ms: float


class Moment(TypedDict):
    """One second. ``seconds`` is its length: the last one may be shorter."""

    at: int
    seconds: float
    operations: dict[str, Second]


class Sample(TypedDict):
    """CPUs that the server kept busy since the sample before, and its memory now."""

    at: float
    cpus: float
    rss_bytes: int


class Generator(TypedDict):
    """The load generator's own part."""

    cpus: list[float]
    """CPUs that each process kept busy."""
    lag_ms: dict[str, float]
    machine_busy: float | None
    """Share of this machine's CPUs that were busy with anything, 0 to 1; None: not known."""
    bound: str
    """``generator``, ``machine`` or nothing."""


Document = dict[str, Any]


def figures(found: tally.Tally, *, ended_count: int, ended_bytes: int, seconds: float) -> Figures:
    """Of an operation.

    Args:
        ended_count: Good answers that ended within the measured time, whenever they began.
        ended_bytes: What these moved.
        seconds: The measured time.
    """
    counted = found.latencies
    return Figures(
        good_count=found.good_count,
        error_count=found.error_count,
        errors=dict(found.errors.most_common()),
        per_second=ended_count / seconds if seconds else 0.0,
        bytes_per_second=ended_bytes / seconds if seconds else 0.0,
        latency_ms=latencies(counted),
        histogram=counted.pairs(),
        sum_ns=counted.sum_ns,
        min_ns=counted.min_ns if counted.count else 0,
        max_ns=counted.max_ns,
    )


def latencies(counted: histogram.Histogram) -> dict[str, float]:
    """Minimum, mean, percentiles and maximum in ms; empty when nothing was counted."""
    if not counted.count:
        return {}
    named = {f"p{percent:g}": counted.percentile_ms(percent) for percent in PERCENTILES}
    return {
        "min": counted.min_ns / 1e6,
        "mean": counted.mean_ms,
        **named,
        "max": counted.max_ns / 1e6,
    }


def second(found: tally.Tally) -> Second:
    """Of an operation in one second."""
    return Second(
        count=found.good_count,
        size_bytes=found.size_bytes,
        error_count=found.error_count,
        p50_ms=found.latencies.percentile_ms(50),
        p99_ms=found.latencies.percentile_ms(99),
        max_ms=found.latencies.max_ns / 1e6,
    )


def histogram_of(found: Mapping[str, Any]) -> histogram.Histogram:
    """The histogram that figures were made of."""
    return histogram.Histogram.of(
        found["histogram"],
        sum_ns=found["sum_ns"],
        min_ns=found["min_ns"],
        max_ns=found["max_ns"],
    )


def short_commit(found: Document) -> str:
    """Ten digits, and whether the work tree was changed."""
    commit, dash, changed = str(found["commit"]).partition("-")
    return f"{commit[:10]}{dash}{changed}"


def write(path: pathlib.Path, document: Document) -> None:
    """As JSON. Raises BenchmarkError when the file cannot be written."""
    write_text(path, json.dumps(document, separators=(",", ":")) + "\n")


def write_text(path: pathlib.Path, content: str) -> None:
    """Raises BenchmarkError when the file cannot be written."""
    try:
        path.write_text(content, encoding="utf-8")
    except OSError as exc:
        raise failures.BenchmarkError(f"cannot write {path}: {exc.strerror}") from exc


def read(path: pathlib.Path) -> Document:
    """A document that ``write`` wrote.

    Raises:
        BenchmarkError: It cannot be read, is none, or of a version that is not known.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise failures.BenchmarkError(f"cannot read {path}: {exc.strerror}") from exc
    except ValueError as exc:
        raise failures.BenchmarkError(f"{path} is no JSON: {exc}") from exc
    if not isinstance(found, dict) or found.get("kind") not in KINDS:
        raise failures.BenchmarkError(
            f"{path} is no result of `couchestor bench`; make one with --json"
        )
    if found.get("schema") != SCHEMA:
        raise failures.BenchmarkError(
            f"{path} has version {found.get('schema')} of the schema, this program reads {SCHEMA}: "
            "use the program that wrote it, or a newer one"
        )
    wanted = ("host", "options", "measured", "seconds", "generator") if found["kind"] == "s3" else (
        "host", "options", "rows",
    )  # fmt: skip
    missing = [name for name in wanted if name not in found]
    if missing:
        raise failures.BenchmarkError(f"{path} is damaged: it lacks {', '.join(missing)}")
    return found
