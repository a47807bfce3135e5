"""Reading answers of Prometheus: any bytes are an answer or a typed error, and order is nothing."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import hypothesis
from hypothesis import strategies

from couchestor_domain import errors
from couchestor_operator.adapters import prometheus_answer
from couchestor_operator.control import heat

NUMBERS = strategies.one_of(
    strategies.floats().map(str),
    strategies.sampled_from(["NaN", "+Inf", "-Inf", "0", "1e400", "-0"]),
)
POINTS = strategies.lists(
    strategies.tuples(strategies.floats(0, 2e9), NUMBERS).map(list), max_size=5
)
LABELS = strategies.dictionaries(
    strategies.sampled_from(["volume", "node", "job"]),
    strategies.sampled_from(["a", "b", "pvc-a", "pvc-", ""]),
)
NAMED = strategies.lists(
    strategies.fixed_dictionaries(
        {
            "metric": strategies.fixed_dictionaries(
                {"volume": strategies.sampled_from(["a", "b", "pvc-a"])}
            ),
            "values": POINTS,
        }
    ),
    max_size=6,
)
SERIES = strategies.lists(
    strategies.fixed_dictionaries({"metric": LABELS, "values": POINTS}), max_size=6
)


def _body(series: list[dict[str, Any]]) -> bytes:
    data = {"resultType": "matrix", "result": series}
    return json.dumps({"status": "success", "data": data}).encode()


def _samples(body: bytes) -> dict[str, list[heat.Sample]]:
    read = prometheus_answer.read(body, where="it", volume_label="volume")
    return {
        volume: prometheus_answer.samples(series, where="it")
        for volume, series in read.by_volume.items()
    }


def _name(series: dict[str, Any]) -> str:
    name: str = series["metric"].get("volume", "")
    return name.removeprefix("pvc-")


@hypothesis.given(SERIES)
def test_every_point_is_read_once_and_none_is_invented(series: list[dict[str, Any]]) -> None:
    named = [one for one in series if _name(one)]
    try:
        found = _samples(_body(series))
    except errors.PrometheusQueryError:
        assert series
        assert not named
        return
    assert set(found) == {_name(one) for one in named}
    for volume, samples in found.items():
        expected = [
            (at, float(text)) for one in named if _name(one) == volume for at, text in one["values"]
        ]
        # By text: NaN is no number that equals itself.
        assert [repr(tuple(sample)) for sample in samples] == [repr(pair) for pair in expected]


@hypothesis.given(NAMED, strategies.randoms(use_true_random=False))
def test_the_order_of_series_and_points_changes_no_score(
    series: list[dict[str, Any]], chance: random.Random
) -> None:
    def scores() -> dict[str, heat.HeatScore | heat.Unknown]:
        return {
            volume: heat.score(
                samples, now_seconds=1e9, window_seconds=2e9, trust=heat.Trust(age_seconds_max=2e9)
            )
            for volume, samples in _samples(_body(series)).items()
        }

    before = scores()
    chance.shuffle(series)
    for one in series:
        chance.shuffle(one["values"])
    after = scores()
    assert after == before
    for score in after.values():
        if isinstance(score, heat.HeatScore):
            assert math.isfinite(score.iops)
            assert score.iops >= 0


@hypothesis.given(
    SERIES,
    strategies.lists(strategies.tuples(strategies.integers(0), strategies.binary())),
    strategies.booleans(),
)
def test_a_damaged_answer_is_an_answer_or_a_typed_error(
    series: list[dict[str, Any]], damage: list[tuple[int, bytes]], cut: bool
) -> None:
    body = bytearray(_body(series))
    for place, inserted in damage:
        at = place % (len(body) + 1)
        body[at : at + len(inserted)] = inserted
    if cut:
        del body[len(body) // 2 :]
    said = "it answered"
    try:
        _samples(bytes(body))
    except errors.ControlPlaneError as fault:
        said = str(fault)
    assert said.startswith(("it answered", "it could not"))
    assert said.isprintable()


@hypothesis.given(strategies.binary(max_size=200))
def test_any_bytes_are_a_complaint_or_none(body: bytes) -> None:
    assert prometheus_answer.plain(prometheus_answer.complaint(body)).isprintable()
