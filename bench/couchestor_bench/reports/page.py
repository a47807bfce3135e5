"""Pages that show a run, two of them, or a layer: self-contained HTML, nothing is fetched."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from couchestor_bench.reports import comparison, document, figures, page_style, plots, text
from couchestor_domain import units

_DEFINITIONS: Final = (
    "A request belongs to the run if it was to start in the measured time, whenever it ended. "
    "Percentiles are of good answers, never interpolated, at most a thousandth above the exact "
    "value. Throughput counts good answers that ended in the measured time."
)


def of_run(found: document.Document) -> str:
    """One run."""
    if found["kind"] != "s3":
        return _of_layer(found)
    body = [
        _head(found["label"], text.headline(found), _taken(found)),
        _verdicts(found["verdicts"]),
        _tiles(found),
        _cards(figures.of([figures.Run("", found)])),
        _card("Operations", "", _operations(found)),
        _errors(found),
        '<div class="cards">',
        _card("Asked for", "", _facts(_options(found))),
        _card("Where", "", _facts(_where(found))),
        "</div>",
        f"<footer>{_DEFINITIONS}</footer>",
    ]
    return _page(f"{found['label']} - couchestor bench", "".join(body))


def of_comparison(compared: comparison.Comparison) -> str:
    """Two runs beside each other."""
    a, b = compared.first, compared.second
    named = comparison.names(a, b)
    title = f"{named[0]} and {named[1]}"
    body = [
        _head(title, text.headline(a) if a["kind"] == "s3" else "", _taken(a) + " / " + _taken(b)),
        _verdicts(compared.reasons),
    ]
    header = ["", named[0], named[1], "ratio", "change"]
    rows = "".join(
        f"<tr><td>{html.escape(row.name)}</td><td>{row.first_text}</td><td>{row.second_text}</td>"
        f'<td>{row.ratio_text}</td><td class="{row.verdict}">{html.escape(row.change)}</td></tr>'
        for row in compared.rows
    )
    body.append(_card("Figures", comparison.NOTE, _table(header, rows)))
    if a["kind"] == b["kind"] == "s3":
        runs = [figures.Run(name, found) for name, found in zip(named, (a, b), strict=True)]
        body.append(_cards(figures.of(runs)))
        body += ['<div class="cards">']
        body += [_card(name, "", _facts([*_options(f), *_where(f)])) for name, f in runs]
        body += ["</div>"]
    return _page(f"{title} - couchestor bench", "".join(body))


def _of_layer(found: document.Document) -> str:
    rows: list[dict[str, Any]] = found["rows"]
    body = [_head(found["label"], f"{found['kind']} of {found['host']['cpu']}", _taken(found))]
    columns = [name for name in (rows[0] if rows else {}) if name.endswith("_per_second")]
    charts = []
    for column in columns:
        unit = text.column(column)
        values = [
            (" ".join(str(v) for v in row.values() if isinstance(v, str)), float(row[column]))
            for row in rows
        ]
        charts.append(figures.Figure(unit, "", "", plots.bars(values, title=unit)))
    body.append(_cards(charts))
    header = [text.column(name) for name in rows[0]]
    cells = "".join(
        "<tr>"
        + "".join(
            f'<td class="word">{html.escape(v)}</td>'
            if isinstance(v, str)
            else f"<td>{text.number(v)}</td>"
            for v in row.values()
        )
        + "</tr>"
        for row in rows
    )
    words_count = sum(isinstance(each, str) for each in rows[0].values())
    body.append(_card("Figures", "", _table(header, cells, words_count=words_count)))
    body.append(_card("Where", "", _facts([*_named(found["options"]), *_host(found)])))
    return _page(f"{found['label']} - couchestor bench", "".join(body))


def _page(title: str, body: str) -> str:
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{page_style.CSS}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )


def _head(title: str, headline: str, taken: str) -> str:
    return (
        f"<h1>{html.escape(title)}</h1>"
        f'<p class="sub">{html.escape(headline)}<br/>{html.escape(taken)}</p>'
    )


def _taken(found: document.Document) -> str:
    at = str(found["taken_at"]).replace("T", " ").replace("+00:00", " UTC")
    return f"{at}, commit {document.short_commit(found)}"


def _verdicts(sentences: Sequence[str]) -> str:
    if not sentences:
        return ""
    items = "".join(f"<li>{html.escape(each)}</li>" for each in sentences)
    return f'<ul class="verdicts">{items}</ul>'


def _tiles(found: document.Document) -> str:
    total = found["measured"]["total"]
    latency = total["latency_ms"]
    tiles = [("good answers", text.number(float(total["per_second"])), "/s")]
    if total["bytes_per_second"]:
        moved = text.number(total["bytes_per_second"] / units.MIB)
        tiles.append(("user bytes", moved, "MiB/s"))
    tiles += [
        (f"latency {name}", text.number(float(latency[name])), "ms")
        for name in ("p50", "p99", "p99.9")
        if latency
    ]
    tiles.append(("failures", text.number(total["error_count"]), ""))
    return (
        '<div class="tiles">'
        + "".join(
            f'<div class="tile"><b>{value}<small>{unit}</small></b><span>{name}</span></div>'
            for name, value, unit in tiles
        )
        + "</div>"
    )


def _cards(made: Iterable[figures.Figure]) -> str:
    cards = "".join(_card(each.title, each.note, each.legend + each.svg) for each in made)
    return f'<div class="cards">{cards}</div>'


def _card(title: str, note: str, body: str) -> str:
    told = f'<p class="note">{html.escape(note)}</p>' if note else ""
    return f'<section class="card"><h2>{html.escape(title)}</h2>{told}{body}</section>'


def _operations(found: document.Document) -> str:
    names = ("min", "mean", "p50", "p90", "p95", "p99", "p99.9", "p99.99", "max")
    measured = found["measured"]
    lines = dict(measured["operations"])
    if len(found["options"]["mix"]) > 1:
        lines["all"] = measured["total"]
    rows = ""
    for name, each in lines.items():
        latency = each["latency_ms"]
        moved = each["bytes_per_second"]
        cells = [
            html.escape(name),
            text.number(each["good_count"]),
            text.number(each["error_count"]),
            text.number(float(each["per_second"])),
            text.number(moved / units.MIB) if moved else "",
            *(text.number(float(latency[p])) if latency else "" for p in names),
        ]
        rows += "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    header = ["operation", "good", "failed", "good/s", "MiB/s", *(f"{name} ms" for name in names)]
    return _table(header, rows)


def _errors(found: document.Document) -> str:
    errors: Mapping[str, int] = found["measured"]["total"]["errors"]
    if not errors:
        return ""
    rows = "".join(
        f"<tr><td>{html.escape(code)}</td><td>{count:,}</td></tr>" for code, count in errors.items()
    )
    return _card("Failures", "By S3 error code, or what else went wrong.", _table(
        ["code", "count"], rows))  # fmt: skip


def _options(found: document.Document) -> list[tuple[str, object]]:
    told = found["options"]
    named = dict(_named(told))
    mix = told["mix"]
    named["mix"] = ", ".join(f"{name} {weight:g}" for name, weight in mix.items())
    return list(named.items())


def _named(facts: Mapping[str, object]) -> list[tuple[str, object]]:
    return [(name.replace("_", " "), value) for name, value in facts.items() if value is not None]


def _where(found: document.Document) -> list[tuple[str, object]]:
    server = found["server"]
    facts: list[tuple[str, object]] = [("endpoint", server["url"])]
    if server["software"]:
        facts.append(("server", server["software"]))
    if "devices_away" in server:
        facts.append(("devices away", server["devices_away"]))
    if text.server_line(found):
        facts.append(("server's part", text.server_line(found)))
    facts.append(("load generator", text.generator_line(found["generator"])))
    return facts + _host(found)


def _host(found: document.Document) -> list[tuple[str, object]]:
    host = {name.replace("_", " "): value for name, value in found["host"].items()}
    host["memory"] = f"{int(host.pop('memory bytes')) / units.GIB:.1f} GiB"
    return [
        *((name, value) for name, value in host.items() if value is not None),
        ("commit", found["commit"]),
        ("version", found["version"]),
    ]


def _facts(facts: Iterable[tuple[str, object]]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(_told(value))}</td></tr>"
        for name, value in facts
    )
    return f'<table class="facts">{rows}</table>'


def _told(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,.6g}" if isinstance(value, float) else str(value)


def _table(header: Sequence[str], rows: str, *, words_count: int = 1) -> str:
    word = ' class="word"'
    cells = "".join(
        f"<th{word if index < words_count else ''}>{html.escape(name)}</th>"
        for index, name in enumerate(header)
    )
    return f"<table><tr>{cells}</tr>{rows}</table>"
