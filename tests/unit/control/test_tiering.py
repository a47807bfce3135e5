"""Which tier a volume belongs in, and which policy it follows."""

from __future__ import annotations

import itertools
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies

from couchestor_domain import errors, tiers
from couchestor_operator.control import classification, overlap, policy, selector, volume

THREE = policy.Watermarks(low_iops=500, warm_iops=2000, high_iops=5000)
TWO = policy.Watermarks(low_iops=500, warm_iops=None, high_iops=5000)
HOT, WARM, COLD = tiers.Tier.HOT, tiers.Tier.WARM, tiers.Tier.COLD


@pytest.mark.parametrize(
    ("iops", "from_hot", "from_warm", "from_cold", "from_nowhere"),
    [
        (0, COLD, COLD, COLD, COLD),
        (499, COLD, COLD, COLD, COLD),
        (500, WARM, WARM, COLD, WARM),
        (1999, WARM, WARM, COLD, WARM),
        (2000, HOT, WARM, COLD, WARM),
        (2001, HOT, WARM, WARM, WARM),
        (5000, HOT, WARM, WARM, WARM),
        (5001, HOT, HOT, HOT, HOT),
    ],
)
def test_three_tiers(
    iops: float,
    from_hot: tiers.Tier,
    from_warm: tiers.Tier,
    from_cold: tiers.Tier,
    from_nowhere: tiers.Tier,
) -> None:
    found = [
        classification.classify(iops, watermarks=THREE, current=current)
        for current in (HOT, WARM, COLD, None)
    ]
    assert found == [from_hot, from_warm, from_cold, from_nowhere]


@pytest.mark.parametrize("current", [HOT, COLD, None])
def test_without_a_warm_tier_a_volume_between_the_watermarks_stays(
    current: tiers.Tier | None,
) -> None:
    assert classification.classify(5001, watermarks=TWO, current=current) is HOT
    assert classification.classify(499, watermarks=TWO, current=current) is COLD
    for iops in (500, 2000, 5000):
        assert classification.classify(iops, watermarks=TWO, current=current) is current


@hypothesis.given(
    strategies.floats(0, 10_000),
    strategies.sampled_from([HOT, WARM, COLD, None]),
    strategies.data(),
)
def test_a_verdict_is_its_own_confirmation(
    iops: float, current: tiers.Tier | None, data: strategies.DataObject
) -> None:
    watermarks = data.draw(strategies.sampled_from([THREE, TWO]))
    verdict = classification.classify(iops, watermarks=watermarks, current=current)
    again = classification.classify(iops, watermarks=watermarks, current=verdict)
    assert again is verdict


@hypothesis.given(
    strategies.lists(strategies.floats(2000, 10_000), max_size=30),
    strategies.lists(strategies.floats(0, 2000), max_size=30),
)
def test_load_that_swings_within_a_band_moves_a_volume_once_at_most(
    high: list[float], low: list[float]
) -> None:
    for series, start in ((high, HOT), (low, COLD)):
        current: tiers.Tier | None = start
        for iops in series:
            current = classification.classify(iops, watermarks=THREE, current=current)
            assert current is start


@pytest.mark.parametrize(
    ("low", "warm", "high"), [(500, 500, 5000), (500, 5000, 5000), (5, None, 5), (9, None, 1)]
)
def test_watermarks_rise(low: float, warm: float | None, high: float) -> None:
    with pytest.raises(errors.InvalidPolicyError, match="must rise"):
        policy.Watermarks(low_iops=low, warm_iops=warm, high_iops=high)


def _policy(name: str, **changes: Any) -> policy.Policy:
    fields: dict[str, Any] = {
        "name": name,
        "created_at_seconds": 10.0,
        "watermarks": THREE,
        "sampling_window_seconds": 600.0,
        "cooldown_seconds": 3600.0,
        "migration_timeout_seconds": 1800.0,
        "storage_class": "mayastor",
        "pool_selectors": {},
    }
    return policy.Policy(**(fields | changes))


def _volume(name: str, **labels: str) -> volume.Volume:
    return volume.Volume(
        name=name,
        version="1",
        size_bytes=1,
        storage_class="mayastor",
        replicas_wanted_count=0,
        replicas=(),
        labels=labels,
    )


def test_the_oldest_policy_wins_then_the_first_by_name() -> None:
    fleet = [_volume("a", app="db"), _volume("b")]
    only_databases = selector.Selector(match_labels={"app": "db"})
    policies = [
        _policy("younger", created_at_seconds=20.0),
        _policy("beta", volume_selector=only_databases),
        _policy("alpha", volume_selector=only_databases),
        _policy("disabled", created_at_seconds=1.0, enabled=False),
        _policy("elsewhere", created_at_seconds=1.0, storage_class="other"),
    ]
    for order in itertools.permutations(policies):
        claims = overlap.resolve(order, fleet)
        assert {name: owner.name for name, owner in claims.owner_of.items()} == {
            "a": "alpha",
            "b": "younger",
        }
        assert claims.lost_to == {"beta": {"alpha": 1}, "younger": {"alpha": 1}}


def test_a_policy_in_dry_run_holds_what_it_wants() -> None:
    rehearsal = _policy("old", created_at_seconds=1.0, dry_run=True)
    claims = overlap.resolve([_policy("new"), rehearsal], [_volume("a")])
    assert claims.owner_of["a"] is rehearsal
