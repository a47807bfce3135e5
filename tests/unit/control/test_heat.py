"""The heat of a volume: weighted by time, and Unknown whenever samples cannot be trusted."""

from __future__ import annotations

import math
import random

import hypothesis
import pytest
from hypothesis import strategies

from couchestor_operator.control import heat

NOW = 1_000_000.0
TRUST = heat.Trust()


def _score(
    *samples: tuple[float, float], window_seconds: float = 600.0
) -> heat.HeatScore | heat.Unknown:
    """Score of samples given as (seconds before now, IOPS)."""
    return heat.score(
        [heat.Sample(NOW - age, iops) for age, iops in samples],
        now_seconds=NOW,
        window_seconds=window_seconds,
        trust=TRUST,
    )


def test_samples_weigh_as_long_as_they_were_the_newest() -> None:
    # 100 for 200 s, 700 for 100 s; the first 300 s of the window are not known.
    found = _score((300, 100), (100, 700))
    assert isinstance(found, heat.HeatScore)
    assert found.iops == pytest.approx((100 * 200 + 700 * 100) / 300)
    assert found.covered_ratio == pytest.approx(0.5)
    assert found.newest_age_seconds == 100


def test_a_burst_of_many_samples_weighs_no_more_than_its_time() -> None:
    burst = [(100.0 - index / 10, 9000.0) for index in range(100)]
    calm = [(600.0 - 60 * index, 0.0) for index in range(9)]
    found = _score(*calm, *burst, (90, 0), (30, 0))
    assert isinstance(found, heat.HeatScore)
    assert found.iops == pytest.approx(9000 * 10 / 600)


def test_what_was_before_the_window_speaks_for_its_beginning() -> None:
    found = _score((700, 50), (500, 150), (250, 150), window_seconds=600)
    assert isinstance(found, heat.HeatScore)
    assert found.iops == pytest.approx((50 * 100 + 150 * 500) / 600)
    assert found.covered_ratio == 1.0


def test_two_series_of_one_volume_count_as_the_busier() -> None:
    found = _score((300, 900), (300, 0), (10, 900), (10, 0))
    assert isinstance(found, heat.HeatScore)
    assert found.iops == 900


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        ([], heat.Unknown.NO_DATA),
        ([(301, 5)], heat.Unknown.STALE),
        ([(10, 5)], heat.Unknown.TOO_FEW),
        ([(400, 5), (10, math.nan)], heat.Unknown.NOT_A_NUMBER),
        ([(400, math.inf), (10, 5)], heat.Unknown.NOT_A_NUMBER),
        ([(400, -1), (10, 5)], heat.Unknown.NOT_A_NUMBER),
        ([(400, 1e308), (200, 1e308), (10, 1e308)], heat.Unknown.NOT_A_NUMBER),
        ([(400, 5), (math.nan, 5)], heat.Unknown.NOT_A_NUMBER),
        ([(400, 5), (-61, 5)], heat.Unknown.FROM_THE_FUTURE),
    ],
)
def test_what_cannot_be_trusted_is_unknown(
    samples: list[tuple[float, float]], reason: heat.Unknown
) -> None:
    assert _score(*samples) is reason


def test_a_little_skew_is_tolerated() -> None:
    found = _score((270, 100), (-30, 300))
    assert isinstance(found, heat.HeatScore)
    assert found.iops == 100
    assert found.newest_age_seconds == 0


SAMPLES = strategies.lists(
    strategies.tuples(strategies.floats(-90, 4000), strategies.floats(0, 1e9)), max_size=40
)


@hypothesis.given(SAMPLES, strategies.randoms(use_true_random=False))
def test_a_score_lies_between_its_samples_whatever_their_order(
    samples: list[tuple[float, float]], chance: random.Random
) -> None:
    found = _score(*samples)
    shuffled = list(samples)
    chance.shuffle(shuffled)
    assert _score(*shuffled) == found
    if isinstance(found, heat.HeatScore):
        values = [iops for _, iops in samples]
        assert min(values) * (1 - 1e-9) <= found.iops <= max(values) * (1 + 1e-9)
        assert TRUST.covered_ratio_min <= found.covered_ratio <= 1.0


@hypothesis.given(SAMPLES, strategies.floats(0, 1e9))
def test_more_load_never_makes_a_volume_colder(
    samples: list[tuple[float, float]], more: float
) -> None:
    before = _score(*samples)
    after = _score(*((age, iops + more) for age, iops in samples))
    if isinstance(before, heat.HeatScore):
        assert isinstance(after, heat.HeatScore)
        assert after.iops >= before.iops * (1 - 1e-9)
    else:
        assert after is before
