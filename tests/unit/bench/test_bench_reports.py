"""Documents, tables, pages and comparisons of made-up runs."""

from __future__ import annotations

import copy
import json
import pathlib
import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import numpy as np
import pytest

from couchestor_bench import failures
from couchestor_bench.reports import (
    comparison,
    document,
    page,
    plots,
    tally,
    text,
    verdicts,
)

FETCHES = re.compile(r"(?:src|href|url|@import)\s*[=(:]", re.IGNORECASE)


def run(
    *,
    label: str = "a",
    per_second: float = 1000.0,
    mix: tuple[str, ...] = ("get",),
    seconds: int = 10,
    errors: dict[str, int] | None = None,
    latency_ms: float = 1.0,
    samples: bool = True,
    **options: object,
) -> document.Document:
    random = np.random.default_rng(1)
    operations: dict[str, document.Figures] = {}
    moments: list[dict[str, Any]] = []
    for name in mix:
        found = tally.Tally(size_bytes=4096)
        found.latencies.record_seconds(random.exponential(latency_ms / 1000, 5000))
        found.errors.update(errors or {})
        operations[name] = document.figures(
            found, ended_count=int(per_second * seconds), ended_bytes=4096, seconds=seconds
        )
    for at in range(-2, seconds):
        second = document.Second(
            count=int(per_second + random.integers(-9, 9)),
            size_bytes=4096,
            error_count=3 if errors else 0,
            p50_ms=latency_ms * (1 + at / 1000),
            p99_ms=latency_ms * 3,
            max_ms=latency_ms * 9,
        )
        moments.append({"at": at, "seconds": 1.0, "operations": dict.fromkeys(mix, second)})
    asked = {
        "workload": "get", "mix": dict.fromkeys(mix, 1.0), "size": "4KiB", "keys": "uniform",
        "objects": 2000, "loop": "closed", "rate": None, "arrivals": None, "connections": 16,
        "processes": 1, "warm_up_seconds": 2.0, "duration_seconds": 10.0, "seed": 1, **options,
    }  # fmt: skip
    host = {
        "cpu": "AMD <EPYC>", "cpu_count": 2, "memory_bytes": 1 << 34, "kernel": "6", "python": "3",
        "file_system": None, "load_average_1min": 0.5,
    }  # fmt: skip
    usage = [document.Sample(at=0.5, cpus=1.2, rss_bytes=1 << 28)] if samples else []
    made = {
        "schema": document.SCHEMA, "kind": "s3", "label": label,
        "taken_at": "2026-11-29T11:00:00+00:00", "commit": "0123456789abcdef-modified",
        "version": "0.1.0", "host": host, "options": asked,
        "server": {"url": "http://127.0.0.1:9000", "software": "CoucheStor", "is_local": True,
                   "sampled": {"pid": 7, "name": "couchestor"} if samples else None},
        "measured": {"seconds": float(seconds), "total": operations[mix[0]],
                     "operations": operations, "missed_count": 0, "waited_count": 0,
                     "ran_out": False},
        "seconds": moments, "usage": usage,
        "generator": {"cpus": [0.4], "lag_ms": {}, "machine_busy": 0.5, "bound": ""},
        "verdicts": ["A sentence with <tags> & signs."],
    }  # fmt: skip
    return json.loads(json.dumps(made))  # type: ignore[no-any-return]


def layer(label: str, gb: float) -> document.Document:
    made = run(label=label)
    rows = [{"what": "encode", "coding": "4 + 2", "gb_per_second": gb, "rounds": 9}]
    return {**made, "kind": "codec", "options": {"rounds": 9}, "rows": rows}


EVERY = [
    run(),
    run(mix=("get", "put", "delete"), errors={"SlowDown": 4, "<odd>": 1}),
    run(seconds=1, samples=False),
    layer("codec", 9.5),
]


@pytest.mark.parametrize("found", EVERY)
def test_a_page_fetches_nothing_and_is_well_formed(found: document.Document) -> None:
    made = page.of_run(found)
    body = made[made.index("<body>") : made.index("</html>")]
    tree = ElementTree.fromstring(body)
    assert not FETCHES.search(body)
    assert "<script" not in made
    outside = made.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert "http" not in outside.replace(html_of_url(found), "")
    assert tree.findall(".//{http://www.w3.org/2000/svg}svg")


def html_of_url(found: document.Document) -> str:
    """The endpoint is told, not linked."""
    return str(found["server"]["url"])


def test_a_page_of_two_shows_both() -> None:
    made = page.of_comparison(comparison.compare(run(label="old"), run(label="new")))
    ElementTree.fromstring(made[made.index("<body>") : made.index("</html>")])
    assert "old get" in made
    assert "new get" in made
    made = page.of_comparison(comparison.compare(layer("x", 9.0), layer("y", 10.0)))
    assert "1.11" in made


def test_a_document_comes_back_as_it_was_written(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.json"
    document.write(path, run())
    assert document.read(path) == run()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot read"),
        ("{", "is no JSON"),
        ("[]", "is no result"),
        ('{"kind": "s3", "schema": 99}', "version 99"),
        ('{"kind": "s3", "schema": 1, "host": {}}', "lacks options"),
    ],
)
def test_what_is_no_result_is_refused_by_name(
    tmp_path: pathlib.Path, content: str | None, said: str
) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(failures.BenchmarkError, match=said) as caught:
        document.read(path)
    assert str(path) in caught.value.message


def test_a_table_has_what_a_reader_needs() -> None:
    made = text.render(run(mix=("get", "put"), errors={"SlowDown": 4}))
    assert "| operation |" in made
    assert "| all " in made
    assert "SlowDown 4" in made
    assert "1.20 CPUs" in made
    assert "! A sentence" in made


@pytest.mark.parametrize(
    ("value", "said"),
    [(0, "0"), (0.0, "0"), (1234567, "1,234,567"), (1234.5, "1,234"), (99.96, "100.0"),
     (12.345, "12.3"), (1.2345, "1.23"), (0.012345, "0.0123")],
)  # fmt: skip
def test_numbers_have_three_significant_digits(value: float, said: str) -> None:
    assert text.number(value) == said


class TestComparison:
    def test_runs_alike_have_nothing_against_them(self) -> None:
        compared = comparison.compare(run(label="a"), run(label="b"))
        assert compared.reasons == []
        rate = compared.rows[0]
        assert (rate.name, rate.verdict) == ("get good/s", "unclear")
        assert rate.ratio_text == "1"

    def test_what_is_beyond_the_spread_of_seconds_is_better_or_worse(self) -> None:
        faster = run(label="b", per_second=1500, latency_ms=0.5)
        rows = {row.name: row for row in comparison.compare(run(), faster).rows}
        assert rows["get good/s"].verdict == "better"
        assert rows["get good/s"].change == "+50.0 % better"
        assert rows["get p99 ms"].verdict == "better"
        back = {row.name: row for row in comparison.compare(faster, run()).rows}
        assert back["get good/s"].verdict == "worse"
        assert back["get p50 ms"].verdict == "worse"

    def test_few_seconds_tell_nothing(self) -> None:
        compared = comparison.compare(run(seconds=2), run(seconds=2, per_second=5000))
        assert compared.rows[0].verdict == ""

    @pytest.mark.parametrize(
        ("changed", "said"),
        [
            ({"connections": 32}, "connections was 16 and 32"),
            ({"rate": 5.0}, "rate was not told and 5.0"),
            ({"mix": ("put",)}, "mix was get 1 and put 1"),
        ],
    )
    def test_other_options_are_said(self, changed: dict[str, Any], said: str) -> None:
        assert said in " ".join(comparison.compare(run(), run(**changed)).reasons)

    def test_another_machine_a_bound_generator_and_failures_are_said(self) -> None:
        other = run(label="b", errors={"SlowDown": 900})
        other["host"]["cpu_count"] = 8
        other["generator"]["bound"] = "generator"
        other["measured"]["ran_out"] = True
        said = " ".join(comparison.compare(run(), other).reasons)
        assert "cpu count was 2 and 8" in said
        assert "load generator was the bound of b" in said
        assert "900 requests of b failed" in said
        assert "b ended early" in said

    def test_different_kinds_have_nothing_to_compare(self) -> None:
        compared = comparison.compare(run(), layer("b", 1.0))
        assert compared.rows == []
        assert "One is of s3, the other of codec." in comparison.render(compared)


def facts(**changed: Any) -> verdicts.Facts:
    usual = verdicts.Facts(
        generator_cpus=[0.3], machine_busy=0.5, server_cpus=0.7, cpu_count=2, is_local=True,
        is_open=False, lag_p99_ms=0.0, good_count=50_000, error_count=0, missed_count=0,
        waited_count=0, ran_out=False, hopeless="", seconds=10.0, wanted_seconds=10.0,
    )  # fmt: skip
    return usual._replace(**changed)


@pytest.mark.parametrize(
    ("changed", "bound", "said"),
    [
        ({}, "", []),
        ({"generator_cpus": [0.2, 0.97]}, "generator", ["process of it used 97% of a CPU"]),
        ({"machine_busy": 0.95}, "machine", ["the server had 0.70", "other programs had 0.90"]),
        ({"machine_busy": 0.95, "server_cpus": 1.5}, "machine", ["with a machine of its own the"]),
        ({"machine_busy": 0.95, "is_local": False}, "", []),
        ({"machine_busy": None}, "", []),
        ({"is_open": True, "lag_p99_ms": 3.0}, "", ["late by 3.0 ms"]),
        ({"is_open": True, "waited_count": 9000}, "", ["9,000 requests were due while all"]),
        ({"missed_count": 7, "error_count": 7}, "", ["7 requests were due and never sent"]),
        ({"error_count": 5}, "", ["5 requests failed (0.01%)"]),
        ({"ran_out": True, "seconds": 3.0}, "", ["Nothing was left to do after 3.0 of 10"]),
        ({"hopeless": "AccessDenied"}, "", ["every request failed with AccessDenied"]),
        ({"good_count": 40}, "", ["Only 40 requests"]),
    ],
)
def test_what_to_know_before_believing_is_said(
    changed: dict[str, Any], bound: str, said: list[str]
) -> None:
    found = verdicts.sentences(facts(**changed))
    assert verdicts.bound(facts(**changed)) == bound
    assert all(each in " ".join(found) for each in said)
    assert len(found) == (1 if said else 0)


class TestAxes:
    @pytest.mark.parametrize(("low", "high"), [(0, 7), (-2, 10), (0, 0), (0, 123456), (0, 0.004)])
    def test_linear_ticks_lie_on_the_axis(self, low: float, high: float) -> None:
        axis = plots.linear("x", low, high)
        assert 2 <= len(axis.ticks) <= 12
        assert axis.high >= high
        assert all(axis.low <= value <= axis.high * 1.001 for value, _ in axis.ticks)

    @pytest.mark.parametrize(("low", "high"), [(0.5, 0.5), (1, 1000), (0.07, 16000), (12, 13)])
    def test_logarithmic_ticks_hold_what_is_drawn(self, low: float, high: float) -> None:
        axis = plots.logarithmic("ms", low, high)
        assert len(axis.ticks) >= 2
        assert axis.low <= low * 1.01
        assert axis.high >= high * 0.99
        assert axis.place(axis.low) == 0
        assert axis.place(axis.high) == pytest.approx(1)

    def test_each_nine_is_as_wide_as_the_one_before(self) -> None:
        axis = plots.nines("p", 99.99)
        places = [axis.place(percent) for percent in (0, 90, 99, 99.9, 99.99)]
        assert np.diff(places) == pytest.approx([0.25] * 4)


def test_a_document_is_not_changed_by_showing_it() -> None:
    found = run(mix=("get", "put"))
    kept = copy.deepcopy(found)
    page.of_run(found)
    text.render(found)
    comparison.compare(found, found)
    assert found == kept
