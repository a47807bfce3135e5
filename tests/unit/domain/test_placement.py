from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from couchestor_domain import errors, ids, placement

candidates = st.lists(
    st.builds(
        placement.Candidate,
        device_id=st.integers(0, 10**6).map(lambda number: ids.DeviceId(f"{number:032x}")),
        failure_domain=st.sampled_from(["a", "b", "c", "d"]),
        free_zones_count=st.integers(1, 50),
    ),
    min_size=1,
    max_size=16,
    unique_by=lambda candidate: candidate.device_id,
)


@given(candidates, st.data())
def test_devices_are_distinct_and_spread_over_domains(
    found: list[placement.Candidate], data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, len(found)))
    chosen = placement.choose_devices(found, count)
    assert len(set(chosen)) == count
    domain_of = {candidate.device_id: candidate.failure_domain for candidate in found}
    held = Counter(domain_of[device_id] for device_id in chosen)
    available = Counter(domain_of.values())
    for domain, number in available.items():
        # A domain left short while another holds two more would be a wasted failure domain.
        if held[domain] < number:
            assert max(held.values()) <= held[domain] + 1


@given(candidates, st.randoms(use_true_random=False))
def test_the_order_of_candidates_does_not_matter(
    found: list[placement.Candidate], rng: object
) -> None:
    shuffled = list(found)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    count = len(found) // 2 + 1
    assert set(placement.choose_devices(found, count)) == set(
        placement.choose_devices(shuffled, count)
    )


def test_too_few_devices_and_too_little_room_are_told_apart() -> None:
    full = placement.Candidate(
        device_id=ids.DeviceId("0" * 32), failure_domain="a", free_zones_count=0
    )
    with pytest.raises(errors.StoreReadOnlyError, match="2 devices are needed and 1"):
        placement.choose_devices([full], 2)
    with pytest.raises(errors.StoreFullError, match="add devices"):
        placement.choose_devices([full], 1)
