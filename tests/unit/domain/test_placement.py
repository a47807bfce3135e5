from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from couchestor_domain import errors, ids, placement

candidate_lists = st.lists(
    st.builds(
        placement.Candidate,
        device_id=st.integers(0, 10**6).map(lambda number: ids.DeviceId(f"{number:032x}")),
        failure_domain=st.sampled_from(["a", "b", "c", "d"]),
        free_zones_count=st.integers(0, 5),
        open_zones_count=st.integers(0, 3),
    ),
    max_size=16,
    unique_by=lambda candidate: candidate.device_id,
)


def candidate(name: str, domain: str, *, free: int, opened: int = 0) -> placement.Candidate:
    return placement.Candidate(
        device_id=ids.DeviceId(name),
        failure_domain=domain,
        free_zones_count=free,
        open_zones_count=opened,
    )


@given(candidate_lists, st.integers(1, 8))
def test_a_choice_exists_exactly_when_enough_devices_have_room(
    found: list[placement.Candidate], count: int
) -> None:
    usable = {item.device_id for item in found if item.free_zones_count > 0}
    if len(found) < count:
        with pytest.raises(errors.StoreReadOnlyError):
            placement.choose_devices(found, count)
    elif len(usable) < count:
        with pytest.raises(errors.StoreFullError):
            placement.choose_devices(found, count)
    else:
        chosen = placement.choose_devices(found, count)
        assert len(chosen) == len(set(chosen)) == count
        assert set(chosen) <= usable


@given(candidate_lists, st.integers(1, 8))
def test_failure_domains_share_the_load_as_evenly_as_they_can(
    found: list[placement.Candidate], count: int
) -> None:
    available = Counter(item.failure_domain for item in found if item.free_zones_count > 0)
    if available.total() < count:
        return
    domain_of = {item.device_id: item.failure_domain for item in found}
    held = Counter(domain_of[device_id] for device_id in placement.choose_devices(found, count))
    assert len(held) == min(count, len(available))
    # The most one domain holds, and so what its loss costs, is the least any choice could have.
    least = next(
        most
        for most in range(1, count + 1)
        if sum(min(most, number) for number in available.values()) >= count
    )
    assert max(held.values()) == least


@given(candidate_lists, st.integers(1, 8))
def test_within_a_domain_no_fuller_device_is_preferred(
    found: list[placement.Candidate], count: int
) -> None:
    if sum(item.free_zones_count > 0 for item in found) < count:
        return
    chosen = set(placement.choose_devices(found, count))
    for taken in (item for item in found if item.device_id in chosen):
        for left in (item for item in found if item.device_id not in chosen):
            if taken.failure_domain == left.failure_domain:
                assert taken.free_zones_count >= left.free_zones_count


@given(candidate_lists.filter(bool), st.data())
def test_the_order_of_candidates_does_not_matter(
    found: list[placement.Candidate], data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, len(found)))
    if sum(item.free_zones_count > 0 for item in found) < count:
        return
    shuffled = data.draw(st.permutations(found))
    assert placement.choose_devices(found, count) == placement.choose_devices(shuffled, count)


def test_ties_go_to_free_zones_then_open_zones_then_the_id() -> None:
    found = [
        candidate("d", "a", free=9),
        candidate("c", "b", free=5, opened=0),
        candidate("b", "c", free=5, opened=2),
        candidate("a", "d", free=5, opened=2),
        candidate("e", "a", free=8),
    ]
    assert placement.choose_devices(found, 5) == ("d", "c", "a", "b", "e")


def test_too_few_devices_and_too_little_room_are_told_apart() -> None:
    full = candidate("0" * 32, "a", free=0)
    with pytest.raises(errors.StoreReadOnlyError, match="2 devices are needed and 1"):
        placement.choose_devices([full], 2)
    with pytest.raises(errors.StoreFullError, match="add devices"):
        placement.choose_devices([full], 1)


@pytest.mark.parametrize("count", [0, -1])
def test_asking_for_nothing_is_a_programming_fault(count: int) -> None:
    with pytest.raises(AssertionError):
        placement.choose_devices([candidate("a", "a", free=1)], count)


# -- a spare for one member ------------------------------------------------------------------------


def test_a_spare_is_the_same_device_while_it_has_room() -> None:
    found = [candidate("a", "x", free=1), candidate("b", "y", free=9)]
    chosen = placement.choose_spare(found, preferred=ids.DeviceId("a"), taken_domains=["x"])
    assert chosen == "a"
    found[0] = candidate("a", "x", free=0)
    chosen = placement.choose_spare(found, preferred=ids.DeviceId("a"), taken_domains=["x"])
    assert chosen == "b"


def test_a_spare_is_where_the_fewest_other_members_are() -> None:
    found = [
        candidate("a", "x", free=9),
        candidate("b", "y", free=5),
        candidate("c", "z", free=2),
        candidate("d", "z", free=3),
    ]
    gone = ids.DeviceId("e")
    assert placement.choose_spare(found, preferred=gone, taken_domains=["x", "y", "x"]) == "d"
    assert placement.choose_spare(found, preferred=gone, taken_domains=["x", "z"]) == "b"
    assert placement.choose_spare(found, preferred=gone, taken_domains=["x", "y", "z"]) == "a"


def test_no_spare_says_what_is_missing() -> None:
    with pytest.raises(errors.StoreReadOnlyError, match="add a device"):
        placement.choose_spare([], preferred=ids.DeviceId("e"), taken_domains=[])
    with pytest.raises(errors.StoreFullError, match="free zone"):
        placement.choose_spare(
            [candidate("a", "x", free=0)], preferred=ids.DeviceId("a"), taken_domains=[]
        )
