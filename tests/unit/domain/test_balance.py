from __future__ import annotations

import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from couchestor_domain import balance, ids

MIB = 1 << 20


def device(number: int) -> ids.DeviceId:
    return ids.DeviceId(f"{number:032x}")


def share(
    number: int, *, used: int, zones: int = 100, domain: str = "", retiring: bool = False
) -> balance.Share:
    return balance.Share(
        device_id=device(number),
        failure_domain=domain or f"d{number}",
        zones_count=zones,
        used_count=used,
        room_count=zones - used,
        zone_capacity_bytes=MIB,
        retiring=retiring,
    )


def group(number: int, *members: int, live: int = 1000) -> balance.Group:
    return balance.Group(number, tuple(map(device, members)), live, MIB)


def table(*shares: balance.Share) -> dict[ids.DeviceId, balance.Share]:
    return {each.device_id: each for each in shares}


class Store:
    """Devices and groups that moves change."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        self.width = rng.randrange(2, 6)
        count = rng.randrange(self.width, self.width + 5)
        domains = [f"r{rng.randrange(rng.choice([2, count]))}" for _ in range(count)]
        self.zones = {device(n): rng.randrange(8, 60) for n in range(count)}
        self.domains = {device(n): domains[n] for n in range(count)}
        used = dict.fromkeys(self.zones, 0)
        self.groups: dict[int, list[ids.DeviceId]] = {}
        # The last devices join when the others are full already.
        old = list(self.zones)[: rng.randrange(self.width, count + 1)]
        for number in range(rng.randrange(1, 120)):
            roomy = [each for each in old if used[each] < self.zones[each]]
            if len(roomy) < self.width:
                break
            members = rng.sample(roomy, self.width)
            self.groups[number] = members
            for each in members:
                used[each] += 1
        self.others = {
            each: rng.randrange(self.zones[each] - used[each] + 1) for each in self.zones
        }

    def shares(self) -> dict[ids.DeviceId, balance.Share]:
        found = {}
        for each, zones in self.zones.items():
            used = self.others[each] + sum(each in members for members in self.groups.values())
            found[each] = balance.Share(each, self.domains[each], zones, used, zones - used, MIB)
        return found

    def listed(self) -> list[balance.Group]:
        return [
            balance.Group(number, tuple(members), 1 + number % 7, MIB)
            for number, members in self.groups.items()
        ]

    def potential(self) -> Fraction:
        return sum(
            (Fraction(each.used_count**2, each.zones_count) for each in self.shares().values()),
            Fraction(0),
        )

    def held_per_domain(self, number: int) -> int:
        domains = [self.domains[each] for each in self.groups[number]]
        return max(map(domains.count, domains))


@given(st.integers(0, 10**9), st.sampled_from([0.0, 0.05, 0.1, 0.3]))
def test_every_move_lowers_a_potential_and_keeps_what_a_group_survives(
    seed: int, gap_min: float
) -> None:
    store = Store(seed)
    gap_before = balance.gap(store.shares().values())
    while (move := balance.next_move(store.shares(), store.listed(), gap_min=gap_min)) is not None:
        potential, held = store.potential(), store.held_per_domain(move.group_id)
        members = store.groups[move.group_id]
        assert move.target not in members
        members[move.member_index] = move.target
        # Rationals with a bounded denominator cannot fall below 0 for ever: so it ends.
        assert store.potential() < potential
        assert store.held_per_domain(move.group_id) <= held
        assert all(each.room_count >= 0 for each in store.shares().values())
    assert balance.gap(store.shares().values()) <= gap_before


def test_a_new_device_is_filled_until_all_are_about_equal() -> None:
    members = {number: list(range(6)) for number in range(60)}

    def shares() -> dict[ids.DeviceId, balance.Share]:
        return table(
            *(share(n, used=sum(n in each for each in members.values())) for n in range(7))
        )

    assert balance.excess_count(shares().values()) == 51
    moved = 0
    while (
        move := balance.next_move(
            shares(), [group(n, *each) for n, each in members.items()], gap_min=0.05
        )
    ) is not None:
        members[move.group_id][move.member_index] = 6
        moved += 1
    assert balance.gap(shares().values()) <= 0.05
    assert moved == pytest.approx(51, abs=5)


def test_the_group_with_the_most_live_bytes_goes_first() -> None:
    shares = table(share(0, used=90), share(1, used=90), share(2, used=10))
    groups = [group(1, 0, 1, live=10), group(2, 0, 1, live=30), group(3, 0, 1, live=20)]
    found = balance.next_move(shares, groups, gap_min=0.1)
    assert found == balance.Move(2, 0, device(2))


def test_where_the_emptiest_cannot_take_any_group_the_next_one_does() -> None:
    shares = table(share(0, used=90), share(1, used=90), share(2, used=10), share(3, used=20))
    found = balance.next_move(shares, [group(1, 0, 1, 2)], gap_min=0.1)
    assert found == balance.Move(1, 0, device(3))


@pytest.mark.parametrize(
    "target",
    [
        share(2, used=10, domain="d1"),
        share(2, used=10)._replace(zone_capacity_bytes=MIB - 1),
        share(2, used=10)._replace(room_count=0),
        share(2, used=10, retiring=True),
        share(2, used=89),
    ],
    ids=["domain", "small zones", "no room", "retiring", "equal enough"],
)
def test_what_is_no_target(target: balance.Share) -> None:
    shares = table(share(0, used=90), share(1, used=15), target)
    assert balance.next_move(shares, [group(1, 0, 1)], gap_min=0.1) is None
    shares[device(2)] = share(2, used=10)
    taken = balance.next_move(shares, [group(1, 0, 1)], gap_min=0.1)
    assert taken is not None


def test_a_member_may_go_to_another_device_of_its_own_domain() -> None:
    shares = table(
        share(0, used=90, domain="a"), share(1, used=90, domain="b"), share(2, used=0, domain="a")
    )
    found = balance.next_move(shares, [group(1, 0, 1)], gap_min=0.1)
    assert found == balance.Move(1, 0, device(2))


def test_a_spare_is_in_the_domain_that_holds_least_or_there_is_none() -> None:
    leaving = share(0, used=9, domain="a", retiring=True)
    others = (share(1, used=9, domain="b"), share(2, used=9, domain="c"))
    found = group(1, 0, 1, 2)
    worse = share(3, used=0, domain="b")
    assert balance.spare(table(leaving, *others, worse), found, device(0)) is None
    good = share(4, used=50, domain="d")
    assert balance.spare(table(leaving, *others, worse, good), found, device(0)) == device(4)
    assert balance.leaving_index(found.members, {device(2)}) == 2
    assert balance.leaving_index(found.members, {device(7)}) == -1


def test_nothing_is_equal_to_nothing() -> None:
    assert balance.gap([]) == 0.0
    assert balance.excess_count([share(0, used=9, retiring=True)]) == 0
