from __future__ import annotations

import pytest

from couchestor_domain import tiers


def test_tiers_run_from_fastest_to_slowest() -> None:
    assert [tier.value for tier in tiers.Tier] == ["hot", "warm", "cold"]


@pytest.mark.parametrize("text", ["HOT", "lukewarm", ""])
def test_a_word_that_is_no_tier_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a valid Tier"):
        tiers.Tier(text)
