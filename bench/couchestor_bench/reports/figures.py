"""Plots of one run or of two, from their documents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from couchestor_bench.reports import document, plots
from couchestor_domain import units

_CURVE_POINTS_COUNT: Final = 160
_NINES_MAX: Final = 6.0


class Run(NamedTuple):
    """A run as it appears in plots. ``name`` is empty when it is the only one."""

    name: str
    found: document.Document


class Figure(NamedTuple):
    """One plot with what stands around it."""

    title: str
    note: str
    legend: str
    svg: str


def of(runs: Sequence[Run]) -> list[Figure]:
    """Every plot there is something for."""
    made = [_throughput(runs), _percentiles(runs), _latency_over_time(runs)]
    made += [_cpus(runs), _memory(runs), _errors(runs)]
    return [figure for figure in made if figure is not None]


def _throughput(runs: Sequence[Run]) -> Figure | None:
    series = _over_time(runs, _operations, lambda second, length: second["count"] / length)
    if len(runs) == 1 and len(series) > 1:
        series = [_summed(runs[0], len(series)), *series]
    return _time_plot(
        runs,
        "Throughput over time",
        "Good answers that ended in each second.",
        [each._replace(filled=len(series) == 1) for each in series],
        "answers/s",
    )


def _summed(run: Run, tone: int) -> plots.Series:
    names = _operations(run.found)
    points = [
        (
            _middle(moment),
            sum(
                moment["operations"][name]["count"]
                for name in names
                if name in moment["operations"]
            )
            / moment["seconds"],
        )
        for moment in run.found["seconds"]
    ]
    return plots.Series("all", points, 7 if tone < 8 else tone)


def _latency_over_time(runs: Sequence[Run]) -> Figure | None:
    names = _operations(runs[0].found)
    chosen: tuple[tuple[str, str], ...] = (("p50", "p50_ms"), ("p99", "p99_ms"), ("max", "max_ms"))
    if len(names) > 1:
        chosen = (("p99", "p99_ms"),)
    elif len(runs) > 1:
        chosen = (("p50", "p50_ms"), ("p99", "p99_ms"))
    series: list[plots.Series] = []
    for run_index, run in enumerate(runs):
        for name_index, name in enumerate(names):
            for index, (title, figure) in enumerate(chosen):
                points = [
                    (_middle(moment), moment["operations"][name][figure])
                    for moment in run.found["seconds"]
                    if moment["operations"].get(name, {}).get("count")
                ]
                words = [run.name, name if len(names) > 1 else "", title]
                tone = run_index if len(runs) > 1 else name_index or index
                series.append(
                    plots.Series(
                        " ".join(word for word in words if word),
                        points,
                        tone if len(names) == 1 or len(runs) == 1 else run_index,
                        dashed=len(runs) > 1 and (index > 0 or name_index > 0),
                    )
                )
    return _time_plot(
        runs,
        "Latency over time",
        "Of what ended in each second.",
        series,
        "ms (log)",
        logarithmic=True,
    )


def _percentiles(runs: Sequence[Run]) -> Figure | None:
    series: list[plots.Series] = []
    most = 0.0
    for run_index, run in enumerate(runs):
        figures = run.found["measured"]["operations"]
        for name_index, (name, found) in enumerate(figures.items()):
            counted = document.histogram_of(found)
            if not counted.count or (len(runs) > 1 and name not in run.found["options"]["mix"]):
                continue
            # Beyond the last request there is nothing.
            end = min(_NINES_MAX, max(1.0, plots.nines_of(100 - 100 / (counted.count + 1))))
            most = max(most, end)
            steps = range(_CURVE_POINTS_COUNT + 1)
            # From 1 % on: the very first is a single request.
            percents = [
                max(1.0, plots.percent_of(end * step / _CURVE_POINTS_COUNT)) for step in steps
            ]
            points = [(percent, counted.percentile_ms(percent)) for percent in percents]
            title = f"{run.name} {name}".strip()
            tone = name_index if len(runs) == 1 else run_index
            series.append(
                plots.Series(title, points, tone, dashed=len(runs) > 1 and name_index > 0)
            )
    values = [y for each in series for _, y in each.points if y > 0]
    if not values:
        return None
    title = "Latency by percentile"
    return Figure(
        title,
        "Good answers of the measured time.",
        plots.legend(series),
        plots.lines(
            series,
            x=plots.nines("percentile", plots.percent_of(most)),
            y=plots.logarithmic("ms (log)", min(values), max(values)),
            title=title,
        ),
    )


def _cpus(runs: Sequence[Run]) -> Figure | None:
    series = _samples(runs, lambda sample: sample["cpus"])
    return _time_plot(runs, "CPUs of the server", "Kept busy by all its processes.", series, "CPUs")


def _memory(runs: Sequence[Run]) -> Figure | None:
    series = _samples(runs, lambda sample: sample["rss_bytes"] / units.MIB)
    note = "Resident, of all its processes; pages that they share count once for each."
    return _time_plot(runs, "Memory of the server", note, series, "MiB")


def _errors(runs: Sequence[Run]) -> Figure | None:
    series = _over_time(runs, _operations, lambda second, length: second["error_count"] / length)
    if not any(y for each in series for _, y in each.points):
        return None
    return _time_plot(runs, "Failures over time", "By operation.", series, "failures/s")


def _operations(found: document.Document) -> list[str]:
    return list(found["options"]["mix"])


def _over_time(
    runs: Sequence[Run],
    names_of: Callable[[document.Document], list[str]],
    value: Callable[[Any, float], float],
) -> list[plots.Series]:
    series: list[plots.Series] = []
    for run_index, run in enumerate(runs):
        for name_index, name in enumerate(names_of(run.found)):
            points = [
                (_middle(moment), value(moment["operations"][name], moment["seconds"]))
                for moment in run.found["seconds"]
                if name in moment["operations"]
            ]
            several = len(runs) > 1
            series.append(
                plots.Series(
                    f"{run.name} {name}".strip(),
                    points,
                    run_index if several else name_index,
                    dashed=several and name_index > 0,
                )
            )
    return series


def _samples(runs: Sequence[Run], value: Callable[[Any], float]) -> list[plots.Series]:
    found = [
        plots.Series(
            run.name or "server",
            [(sample["at"], value(sample)) for sample in run.found["usage"]],
            index if len(runs) > 1 else 2,
            filled=len(runs) == 1,
        )
        for index, run in enumerate(runs)
    ]
    return [each for each in found if each.points]


def _time_plot(
    runs: Sequence[Run],
    title: str,
    note: str,
    series: Sequence[plots.Series],
    unit: str,
    *,
    logarithmic: bool = False,
) -> Figure | None:
    values = [y for each in series for _, y in each.points]
    if not values:
        return None
    warm_up = max(run.found["options"]["warm_up_seconds"] for run in runs)
    seconds = max(run.found["measured"]["seconds"] for run in runs)
    axis = (
        plots.logarithmic(unit, min(each for each in values if each > 0), max(values))
        if logarithmic
        else plots.linear(unit, 0.0, max(values))
    )
    return Figure(
        title,
        note,
        plots.legend(series),
        plots.lines(
            series,
            x=plots.linear("seconds", -float(warm_up), float(seconds), ticks_count=8),
            y=axis,
            shaded=(-float(warm_up), 0.0) if warm_up else None,
            title=title,
        ),
    )


def _middle(moment: Any) -> float:
    # The first and the last second of a run may be shorter than the others.
    begin: float = moment["at"] if moment["at"] >= 0 else moment["at"] + 1 - moment["seconds"]
    return begin + float(moment["seconds"]) / 2
