"""Two runs beside each other: whether they may be compared, and what differs."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from couchestor_bench.reports import document, text
from couchestor_domain import units

NOTE: Final = (
    "Unclear: the middle half of the seconds of one run overlaps that of the other. Where seconds "
    "cannot tell, such as of a maximum, nothing is said."
)
_HOST_FACTS: Final = ("cpu", "cpu_count", "memory_bytes", "kernel", "python")
_SECONDS_COUNT_MIN: Final = 5
_PERCENTILES: Final = ("p50", "p90", "p99", "p99.9", "max")
_BY_SECOND: Final = {"p50": "p50_ms", "p99": "p99_ms"}


class Row(NamedTuple):
    """One figure of both. ``verdict``: better, worse, unclear, or empty: not told."""

    name: str
    first: float
    second: float
    verdict: str = ""

    @property
    def first_text(self) -> str:
        return text.number(self.first)

    @property
    def second_text(self) -> str:
        return text.number(self.second)

    @property
    def ratio_text(self) -> str:
        return f"{self.second / self.first:.3g}" if self.first else ""

    @property
    def change(self) -> str:
        """In per cent, with the verdict."""
        if not self.first:
            return ""
        percent = f"{(self.second / self.first - 1) * 100:+.1f} %"
        return f"{percent} {self.verdict}".rstrip()


class Comparison(NamedTuple):
    """``reasons`` say why the two cannot be compared; nothing: they can."""

    first: document.Document
    second: document.Document
    reasons: list[str]
    rows: list[Row]


def compare(first: document.Document, second: document.Document) -> Comparison:
    """Whatever the two are; of different kinds there are reasons and no rows."""
    reasons = list(_reasons(first, second))
    if first["kind"] != second["kind"]:
        return Comparison(first, second, reasons, [])
    rows = _run_rows if first["kind"] == "s3" else _layer_rows
    return Comparison(first, second, reasons, list(rows(first, second)))


def names(first: document.Document, second: document.Document) -> tuple[str, str]:
    """What to call them: by label, or A and B when that is the same."""
    a, b = str(first["label"]), str(second["label"])
    return (a, b) if a != b else (f"{a} A", f"{b} B")


def render(compared: Comparison) -> str:
    """For the terminal."""
    a, b = names(compared.first, compared.second)
    lines = [f"{a}: {_taken(compared.first)}", f"{b}: {_taken(compared.second)}", ""]
    if compared.reasons:
        lines += ["Not comparable as they are:", *(f"  ! {each}" for each in compared.reasons), ""]
    rows = [
        [row.name, row.first_text, row.second_text, row.ratio_text, row.change]
        for row in compared.rows
    ]
    if rows:
        lines += [text.table(["", a, b, "ratio", "change"], rows), "", NOTE]
    return "\n".join(lines)


def _taken(found: document.Document) -> str:
    return f"{found['taken_at']}, commit {document.short_commit(found)}"


def _reasons(first: document.Document, second: document.Document) -> Iterator[str]:
    if first["kind"] != second["kind"]:
        yield f"One is of {first['kind']}, the other of {second['kind']}."
        return
    for name in sorted({*first["options"], *second["options"]} - {"bucket", "folder"}):
        a, b = first["options"].get(name), second["options"].get(name)
        if a != b:
            yield f"{name.replace('_', ' ')} was {_said(a)} and {_said(b)}."
    for name in _HOST_FACTS:
        a, b = first["host"].get(name), second["host"].get(name)
        if a != b:
            yield f"Another machine: {name.replace('_', ' ')} was {_said(a)} and {_said(b)}."
    if first["kind"] == "s3":
        for found, title in zip((first, second), names(first, second), strict=True):
            yield from _own_reasons(found, title)


def _own_reasons(found: document.Document, title: str) -> Iterator[str]:
    if found["generator"]["bound"] == "generator":
        yield f"The load generator was the bound of {title}: it tells little of the server."
    total = found["measured"]["total"]
    if not total["good_count"]:
        yield f"Nothing succeeded in {title}."
    elif total["error_count"] > 0.01 * total["good_count"]:
        yield f"{total['error_count']:,} requests of {title} failed."
    if found["measured"]["ran_out"]:
        yield f"{title} ended early: nothing was left to do."


def _said(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {weight:g}" for name, weight in value.items())
    return "not told" if value is None else str(value)


def _run_rows(first: document.Document, second: document.Document) -> Iterator[Row]:
    both = [each["measured"]["operations"] for each in (first, second)]
    shared = [name for name in both[0] if name in both[1]]
    for name in shared:
        a, b = both[0][name], both[1][name]
        rates = [_by_second(each, name, "count") for each in (first, second)]
        yield Row(
            f"{name} good/s", a["per_second"], b["per_second"],
            _verdict(rates[0], rates[1], more_is_better=True),
        )  # fmt: skip
        if a["bytes_per_second"] or b["bytes_per_second"]:
            moved = [each["bytes_per_second"] / units.MIB for each in (a, b)]
            yield Row(f"{name} MiB/s", moved[0], moved[1])
        for percentile in _PERCENTILES:
            if percentile in a["latency_ms"] and percentile in b["latency_ms"]:
                verdict = ""
                if percentile in _BY_SECOND:
                    figure = _BY_SECOND[percentile]
                    spreads = [_by_second(each, name, figure) for each in (first, second)]
                    verdict = _verdict(spreads[0], spreads[1], more_is_better=False)
                yield Row(
                    f"{name} {percentile} ms",
                    a["latency_ms"][percentile],
                    b["latency_ms"][percentile],
                    verdict,
                )
        yield Row(f"{name} failures", a["error_count"], b["error_count"])
    costs = [_cpu_us(each) for each in (first, second)]
    if costs[0] and costs[1]:
        yield Row("server's CPU us/request", costs[0], costs[1])
        yield Row("server's memory MiB", _memory_mib(first), _memory_mib(second))


def _by_second(found: document.Document, operation: str, figure: str) -> list[float]:
    """Whole seconds of the measured time alone; a count as a rate."""
    return [
        float(moment["operations"].get(operation, {}).get(figure, 0))
        for moment in found["seconds"]
        if moment["at"] >= 0 and moment["seconds"] > 0.99
    ]


def _verdict(first: Sequence[float], second: Sequence[float], *, more_is_better: bool) -> str:
    if min(len(first), len(second)) < _SECONDS_COUNT_MIN:
        return ""
    a_low, _, a_high = statistics.quantiles(first, n=4)
    b_low, _, b_high = statistics.quantiles(second, n=4)
    if b_low <= a_high and a_low <= b_high:
        return "unclear"
    return "better" if (b_low > a_high) is more_is_better else "worse"


def _cpu_us(found: document.Document) -> float:
    samples = [each["cpus"] for each in found["usage"] if each["at"] >= 0]
    good = found["measured"]["total"]["per_second"]
    return float(statistics.fmean(samples) / good * 1e6) if samples and good else 0.0


def _memory_mib(found: document.Document) -> float:
    return float(max(each["rss_bytes"] for each in found["usage"]) / units.MIB)


def _layer_rows(first: document.Document, second: document.Document) -> Iterator[Row]:
    """Rows that say the same of what was measured, figure by figure."""
    known = {_identity(row): row for row in second["rows"]}
    for row in first["rows"]:
        other = known.get(_identity(row))
        if other is None:
            continue
        for name, value in row.items():
            if not isinstance(value, str) and name in other:
                title = f"{' '.join(_identity(row))} {text.column(name)}"
                yield Row(title, float(value), float(other[name]))


def _identity(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(value for value in row.values() if isinstance(value, str))
