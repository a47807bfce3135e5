from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from couchestor_domain import errors, geometry, ids
from couchestor_domain.stripe_placement import (
    choice,
    cluster,
    fair_share,
    protection,
    rebalance,
)

SHARD = 1 << 20
CODINGS = st.sampled_from(
    [geometry.StripeGeometry(1, 1), geometry.StripeGeometry(2, 1), geometry.StripeGeometry(3, 2)]
)


def device(
    number: int,
    *,
    host: str,
    zone: str = "",
    shards: int = 1000,
    used: int = 0,
    usable: bool = True,
) -> cluster.Device:
    return cluster.Device(
        device_id=ids.DeviceId(f"{number:032x}"),
        host=host,
        zone=zone,
        capacity_bytes=shards * SHARD,
        used_bytes=used * SHARD,
        usable=usable,
    )


@st.composite
def clusters(draw: st.DrawFn, *, devices_count_max: int = 9) -> list[cluster.Device]:
    shape = draw(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), max_size=99))
    found = []
    for number, (zone, host) in enumerate(shape[:devices_count_max]):
        shards = draw(st.integers(1, 12))
        found.append(
            device(
                number,
                host=f"z{zone}-h{host}",
                zone=f"z{zone}",
                shards=shards,
                used=draw(st.integers(0, shards)),
                usable=draw(st.integers(0, 9)) > 0,
            )
        )
    return found


def roomy(found: Iterable[cluster.Device]) -> list[cluster.Device]:
    return [each for each in found if each.usable and each.free_bytes >= SHARD]


def known(found: Iterable[cluster.Device]) -> dict[ids.DeviceId, cluster.Device]:
    return {each.device_id: each for each in found}


def crowd(members: Sequence[cluster.Device], losable: int) -> tuple[bool, bool, int, int]:
    """What a placement is judged by, the least being best."""
    host_max = max(Counter(each.host for each in members).values())
    zone_max = max(Counter(each.zone for each in members).values())
    return (host_max > losable, zone_max > losable, host_max, zone_max)


def fills(members: Iterable[cluster.Device]) -> list[float]:
    return sorted((each.used_bytes + SHARD) / each.capacity_bytes for each in members)


def filled(
    devices: Iterable[cluster.Device], coding: geometry.StripeGeometry, groups_count: int
) -> tuple[dict[ids.DeviceId, cluster.Device], list[cluster.Group]]:
    """So many groups, one placed after the other."""
    table = known(devices)
    groups = []
    for number in range(groups_count):
        placed = choice.place(table.values(), coding, group_id=f"g{number}", shard_bytes=SHARD)
        groups.append(cluster.Group(f"g{number}", placed.members, SHARD))
        for member in placed.members:
            table[member] = cluster.with_used(table[member], SHARD)
    return table, groups


def held(groups: Iterable[cluster.Group]) -> Counter[ids.DeviceId]:
    return Counter(member for group in groups for member in group.members)


def survives(
    group: cluster.Group,
    table: dict[ids.DeviceId, cluster.Device],
    coding: geometry.StripeGeometry,
) -> protection.Survives:
    return protection.of_members([table[each] for each in group.members], coding).survives


# -- a new group ---------------------------------------------------------------------------------


@given(clusters(), CODINGS)
def test_a_group_is_placed_exactly_when_enough_devices_have_room(
    found: list[cluster.Device], coding: geometry.StripeGeometry
) -> None:
    wanted = coding.shards_count
    if sum(each.usable for each in found) < wanted:
        with pytest.raises(errors.StoreReadOnlyError, match="add nodes or devices"):
            choice.place(found, coding, group_id="g", shard_bytes=SHARD)
    elif len(roomy(found)) < wanted:
        with pytest.raises(errors.StoreFullError, match="add nodes or devices"):
            choice.place(found, coding, group_id="g", shard_bytes=SHARD)
    else:
        placed = choice.place(found, coding, group_id="g", shard_bytes=SHARD)
        assert len(placed.members) == len(set(placed.members)) == wanted
        assert set(placed.members) <= {each.device_id for each in roomy(found)}


@given(clusters(), CODINGS)
def test_no_choice_would_survive_more_and_none_of_equal_spread_is_emptier(
    found: list[cluster.Device], coding: geometry.StripeGeometry
) -> None:
    assume(len(roomy(found)) >= coding.shards_count)
    placed = choice.place(found, coding, group_id="g", shard_bytes=SHARD)
    members = [known(found)[each] for each in placed.members]
    losable = coding.parity_shards
    every = list(itertools.combinations(roomy(found), coding.shards_count))
    mine = crowd(members, losable)
    assert mine == min(crowd(each, losable) for each in every)
    as_even = [each for each in every if crowd(each, losable) <= mine]
    assert fills(members) == min(map(fills, as_even))
    host_lost, zone_lost, host_max, zone_max = mine
    assert placed.protection == protection.Protection(
        survives=protection.Survives(3 - host_lost - zone_lost),
        host_shards_max=host_max,
        zone_shards_max=zone_max,
    )


@given(clusters(), CODINGS, st.randoms(use_true_random=False))
def test_the_order_of_devices_does_not_matter(
    found: list[cluster.Device], coding: geometry.StripeGeometry, rng: object
) -> None:
    assume(len(roomy(found)) >= coding.shards_count)
    shuffled = list(found)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    first, second = (
        choice.place(each, coding, group_id="g", shard_bytes=SHARD) for each in (found, shuffled)
    )
    assert first == second


@pytest.mark.parametrize(
    ("zones", "hosts", "per_host", "expected"),
    [
        # Zones, hosts in each, devices on each: what 4+2 survives, most on a host, most in a zone.
        (3, 2, 1, (protection.Survives.ZONE, 1, 2)),
        (3, 1, 2, (protection.Survives.ZONE, 2, 2)),
        (6, 1, 1, (protection.Survives.ZONE, 1, 1)),
        (2, 3, 1, (protection.Survives.HOST, 1, 3)),
        (1, 6, 1, (protection.Survives.HOST, 1, 6)),
        (1, 3, 2, (protection.Survives.HOST, 2, 6)),
        (1, 2, 3, (protection.Survives.DEVICES, 3, 6)),
    ],
)
def test_what_a_group_survives_is_said(
    zones: int, hosts: int, per_host: int, expected: tuple[protection.Survives, int, int]
) -> None:
    found = [
        device(number, host=f"{zone}/{host}", zone=str(zone))
        for number, (zone, host, _) in enumerate(
            itertools.product(range(zones), range(hosts), range(per_host))
        )
    ]
    coding = geometry.StripeGeometry(4, 2)
    told = choice.place(found, coding, group_id="g", shard_bytes=SHARD).protection
    assert (told.survives, told.host_shards_max, told.zone_shards_max) == expected


def test_a_host_is_not_crowded_for_the_sake_of_a_zone_that_is_lost_anyway() -> None:
    found = [device(0, host="a0", zone="a"), device(1, host="a0", zone="a")]
    found += [device(2 + number, host=f"b{number}", zone="b") for number in range(5)]
    told = choice.place(found, geometry.StripeGeometry(4, 2), group_id="g", shard_bytes=SHARD)
    assert told.protection.host_shards_max == 1
    assert told.protection.zone_shards_max == 5


def test_free_space_that_is_more_than_there_is_counts_as_all_there_is() -> None:
    drive = cluster.Drive(device_id=ids.DeviceId("d"), capacity_bytes=10, free_bytes=99)
    node = cluster.Node(node_id="n", host="h", zone="z", healthy=True, drives=(drive,))
    (found,) = cluster.devices_of([node])
    assert (found.used_bytes, found.free_bytes, found.usable) == (0, 10, True)


# -- balance -------------------------------------------------------------------------------------


@st.composite
def grown_clusters(draw: st.DrawFn) -> list[cluster.Device]:
    """Of three to six hosts in each of one to three zones, of unlike sizes."""
    found: list[cluster.Device] = []
    for zone in range(draw(st.integers(1, 3))):
        for host in range(draw(st.integers(3, 6))):
            for _ in range(draw(st.integers(1, 2))):
                # So large that none is full after a thousand groups.
                shards = draw(st.integers(2000, 8000))
                made = device(len(found), host=f"{zone}/{host}", zone=str(zone), shards=shards)
                found.append(made)
    return found


@given(grown_clusters())
@settings(max_examples=12)
def test_a_thousand_groups_are_balanced_within_five_percent(found: list[cluster.Device]) -> None:
    coding = geometry.StripeGeometry(2, 1)
    table, groups = filled(found, coding, 1000)
    fair = fair_share.shares(table.values(), groups, coding)
    counts = held(groups)
    for each, amount in fair.items():
        wanted = amount / SHARD
        assert abs(counts[each] - wanted) <= max(1.0, 0.05 * wanted), (counts, wanted)


@given(clusters(), CODINGS)
def test_fair_shares_add_up_and_are_within_what_limits_allow(
    found: list[cluster.Device], coding: geometry.StripeGeometry
) -> None:
    empty = [cluster.with_used(each, -each.used_bytes) for each in found]
    assume(len(roomy(empty)) >= coding.shards_count)
    table, groups = filled(empty, coding, 1)
    fair = fair_share.shares(table.values(), groups, coding)
    assert math.isclose(sum(fair.values()), coding.shards_count * SHARD, rel_tol=1e-6)
    limits = protection.Tree(each for each in empty if each.usable).best_limits(
        coding.shards_count, coding
    )
    assert limits is not None
    for name, limit in (("host", limits.per_host), ("zone", limits.per_zone)):
        together: Counter[str] = Counter()
        for each, amount in fair.items():
            together[getattr(table[each], name)] += int(amount)
        assert max(together.values()) <= limit * SHARD + 1
    assert max(fair.values()) <= SHARD + 1


def test_a_fair_share_is_by_capacity_where_limits_leave_a_choice() -> None:
    found = [device(number, host=str(number), shards=1000 * (1 + number)) for number in range(8)]
    coding = geometry.StripeGeometry(1, 1)
    table, groups = filled(found, coding, 360)
    fair = fair_share.shares(table.values(), groups, coding)
    assert [round(fair[each.device_id] / SHARD) for each in found] == [
        20 * (1 + number) for number in range(8)
    ]


# -- minimal movement ----------------------------------------------------------------------------


@given(clusters(), CODINGS, st.data())
def test_only_lost_shards_get_new_places_and_the_best_that_the_others_leave(
    found: list[cluster.Device], coding: geometry.StripeGeometry, data: st.DataObject
) -> None:
    assume(len(roomy(found)) >= coding.shards_count)
    placed = choice.place(found, coding, group_id="g", shard_bytes=SHARD)
    group = cluster.Group("g", placed.members, SHARD)
    lost = data.draw(
        st.sets(st.integers(0, coding.shards_count - 1), min_size=1), label="lost indices"
    )
    others = [each for each in roomy(found) if each.device_id not in group.members]
    if len(others) < len(lost):
        with pytest.raises((errors.StoreFullError, errors.StoreReadOnlyError)):
            choice.replace(found, coding, group, lost=lost)
        return
    replaced = choice.replace(found, coding, group, lost=lost)
    for index, (old, new) in enumerate(zip(group.members, replaced.members, strict=True)):
        assert (new not in group.members) if index in lost else (new == old)
    assert len(set(replaced.members)) == coding.shards_count
    staying = [known(found)[each] for index, each in enumerate(group.members) if index not in lost]
    mine = crowd([known(found)[each] for each in replaced.members], coding.parity_shards)
    every = itertools.combinations(others, len(lost))
    best = min(crowd([*staying, *each], coding.parity_shards) for each in every)
    assert mine[:2] == best[:2]


def test_a_node_that_leaves_moves_its_shards_and_no_others() -> None:
    coding = geometry.StripeGeometry(4, 2)
    found = [
        device(number, host=str(number % 12), zone=str(number % 12 % 4)) for number in range(24)
    ]
    table, groups = filled(found, coding, 400)
    table = {
        each: made if made.host != "3" else device(int(each, 16), host="3", zone="3", usable=False)
        for each, made in table.items()
    }
    gone = {each for each, made in table.items() if made.host == "3"}
    moved_count = 0
    for group in groups:
        lost = [index for index, each in enumerate(group.members) if each in gone]
        if not lost:
            continue
        placed = choice.replace(table.values(), coding, group, lost=lost)
        assert placed.protection.survives is protection.Survives.ZONE
        for old, new in zip(group.members, placed.members, strict=True):
            if old != new:
                moved_count += 1
                table[new] = cluster.with_used(table[new], SHARD)
    assert moved_count == sum(count for each, count in held(groups).items() if each in gone)


def _made(groups: Iterable[cluster.Group], moves: Iterable[rebalance.Move]) -> list[cluster.Group]:
    table = {group.group_id: group for group in groups}
    for move in moves:
        group = table[move.group_id]
        assert group.members[move.shard_index] == move.source
        assert move.target not in group.members
        members = list(group.members)
        members[move.shard_index] = move.target
        table[move.group_id] = group._replace(members=tuple(members))
    return list(table.values())


@given(grown_clusters(), grown_clusters(), st.booleans())
@settings(max_examples=15)
def test_when_nodes_join_only_what_balance_needs_moves(
    found: list[cluster.Device], joining: list[cluster.Device], in_zones: bool
) -> None:
    coding = geometry.StripeGeometry(2, 1)
    table, groups = filled(found, coding, 120)
    for number, each in enumerate(joining[:4]):
        made = device(
            1000 + number,
            host=f"new/{number}",
            zone=each.zone if in_zones else "new",
            shards=each.capacity_bytes // SHARD,
        )
        table[made.device_id] = made
    fair = fair_share.shares(table.values(), groups, coding)
    before = held(groups)
    moves = rebalance.balance(table.values(), groups, coding, moves_count_max=10_000)
    needed = sum(
        max(0, math.ceil(before[each] - amount / SHARD - 0.5)) for each, amount in fair.items()
    )
    assert len(moves) <= needed
    assert len({(move.group_id, move.shard_index) for move in moves}) == len(moves)
    assert not {move.source for move in moves} & {move.target for move in moves}
    after = _made(groups, moves)
    for old, new in zip(groups, after, strict=True):
        assert survives(new, table, coding) >= survives(old, table, coding)
    # Nothing goes back, and nothing more is to be done.
    for member, count in held(after).items():
        table[member] = cluster.with_used(table[member], (count - before[member]) * SHARD)
    assert rebalance.balance(table.values(), after, coding, moves_count_max=1) == []


def test_a_node_that_joins_gets_its_share_and_the_others_keep_theirs_within_five_percent() -> None:
    coding = geometry.StripeGeometry(4, 2)
    table, groups = filled([device(number, host=str(number)) for number in range(10)], coding, 500)
    joined = device(10, host="10")
    table[joined.device_id] = joined
    moves = rebalance.balance(table.values(), groups, coding, moves_count_max=10_000)
    wanted = 500 * 6 / 11
    assert {move.target for move in moves} == {joined.device_id}
    assert 0.9 * wanted <= len(moves) <= wanted
    for count in held(_made(groups, moves)).values():
        assert abs(count - wanted) <= 0.05 * wanted


def test_moves_are_bounded_and_go_on_where_they_stopped() -> None:
    coding = geometry.StripeGeometry(2, 1)
    table, groups = filled([device(number, host=str(number)) for number in range(4)], coding, 40)
    joined = device(4, host="4")
    table[joined.device_id] = joined
    every = rebalance.balance(table.values(), groups, coding, moves_count_max=99)
    first = rebalance.balance(table.values(), groups, coding, moves_count_max=5)
    assert every[:5] == first


def test_a_group_that_a_host_could_take_away_is_spread_once_there_is_another_host() -> None:
    coding = geometry.StripeGeometry(2, 1)
    crowded = [device(number, host=str(number % 2)) for number in range(4)]
    table, groups = filled(crowded, coding, 10)
    assert {survives(each, table, coding) for each in groups} == {protection.Survives.DEVICES}
    assert rebalance.strengthen(table.values(), groups, coding, moves_count_max=99) == []
    joined = device(4, host="2")
    table[joined.device_id] = joined
    moves = rebalance.strengthen(table.values(), groups, coding, moves_count_max=99)
    assert len(moves) == len(groups)
    after = _made(groups, moves)
    assert {survives(each, table, coding) for each in after} == {protection.Survives.HOST}
    assert rebalance.strengthen(table.values(), after, coding, moves_count_max=99) == []


@given(clusters(), clusters(devices_count_max=4), CODINGS)
def test_strengthening_ends_and_only_ever_adds(
    found: list[cluster.Device], joining: list[cluster.Device], coding: geometry.StripeGeometry
) -> None:
    assume(len(roomy(found)) >= coding.shards_count)
    table, groups = filled(found, coding, 1)
    for number, each in enumerate(joining):
        made = device(100 + number, host=each.host, zone=each.zone, usable=each.usable)
        table[made.device_id] = made
    moves = rebalance.strengthen(table.values(), groups, coding, moves_count_max=99)
    assert len(moves) <= coding.shards_count
    (old,), (new,) = groups, _made(groups, moves)
    before, after = survives(old, table, coding), survives(new, table, coding)
    assert after >= before
    fresh = choice.place(
        [
            cluster.with_used(each, -SHARD if each.device_id in old.members else 0)
            for each in table.values()
        ],
        coding,
        group_id="g",
        shard_bytes=SHARD,
    )
    if all(table[each].usable for each in old.members):
        assert after >= fresh.protection.survives
