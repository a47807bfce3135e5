"""Space that comes back from groups that are half dead, also of a full store."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest
import space_node

from couchestor_daemon.formats import media_records
from couchestor_daemon.services import (
    departures,
    reclaim,
    release,
    stranded_groups,
    zone_allocation,
)
from couchestor_domain import errors, geometry, ids, units

ONLY_LOW = reclaim.ReclaimLimits(dead_percent=100, free_percent=15)
NO_LIMITS = reclaim.ReclaimLimits(dead_percent=101, free_percent=0)
RNG = random.Random(1)


def victim(group_id: int, live_share: float, *, must_move: bool = False) -> reclaim.Victim:
    record = media_records.GroupRecord(group_id, 2, "w", 4, 2, 0, ())
    return reclaim.Victim(record, live_share, must_move)


def chosen(*victims: reclaim.Victim, low: bool = False, stranded_room: bool = True) -> int | None:
    found = reclaim.choose(
        victims,
        applied_sequence=1000,
        room_is_low=low,
        limits=reclaim.ReclaimLimits(),
        has_room_for_stranded=stranded_room,
    )
    return None if found is None else found.record.group_id


def test_victims_are_chosen_by_need_then_by_age_and_dead_share() -> None:
    assert chosen() is None
    assert chosen(victim(1, 0.9), victim(2, 0.6)) is None
    assert chosen(victim(1, 0.9), victim(2, 0.6), low=True) == 2
    assert chosen(victim(1, 0.95), low=True) is None
    assert chosen(victim(900, 0.6), victim(901, 0.7), low=True) == 900
    assert chosen(victim(900, 0.6), victim(100, 0.7), low=True) == 100
    assert chosen(victim(900, 0.5), victim(100, 0.7), low=True) == 900
    assert chosen(victim(900, 0.2), victim(950, 0.1)) == 950
    assert chosen(victim(1, 0.99, must_move=True)) == 1
    assert chosen(victim(1, 0.99, must_move=True), victim(900, 0.4)) == 900
    assert chosen(victim(1, 0.99, must_move=True), victim(900, 0.6), low=True) == 900


def test_the_groups_that_can_lose_least_come_first_while_there_is_room() -> None:
    dead = victim(500, 0.1)
    weak = victim(900, 0.9)._replace(redundancy_count=0)
    old = victim(1, 0.9)._replace(redundancy_count=1)
    emptier = victim(2, 0.5)._replace(redundancy_count=1)
    assert chosen(dead, old, weak, emptier) == 900
    assert chosen(dead, old, emptier) == 2
    assert chosen(dead, old, weak, stranded_room=False) == 500
    assert chosen(old, weak, stranded_room=False) is None


async def work_off(work: reclaim.Reclaim) -> int:
    count = 0
    while await work.step() == 0.0:
        count += 1
        assert count < 5000
    return count


async def released_count(node: space_node.SpaceNode) -> int:
    """Let what is empty go at once; how many groups that was."""
    before = len(node.group_records())
    work = release.Release(
        index=node.index,
        media=node.media,
        submit=node.maintenance.submit,
        publisher=node,
        run_blocking=node.run,
        clock=node,
        trusted=lambda: None,
        grace_seconds=0.0,
    )
    await work.step()
    return before - len(node.group_records())


def by_state(node: space_node.SpaceNode, state: media_records.ZoneSetState) -> list[int]:
    return [record.group_id for record in node.group_records() if record.state == state]


async def load(
    node: space_node.SpaceNode, count: int, *, size_bytes: int = 250_000
) -> dict[str, bytes]:
    await node.create_bucket()
    expected = {f"k{number:04}": RNG.randbytes(size_bytes) for number in range(count)}
    for key, data in expected.items():
        await node.put(key, data)
    return expected


async def check(node: space_node.SpaceNode, expected: dict[str, bytes]) -> None:
    for key, data in expected.items():
        assert await node.get(key) == data
    node.check_live_bytes()
    assert node.pool.lent_bytes == 0


async def test_a_group_that_is_mostly_dead_is_emptied_and_others_are_left() -> None:
    node = space_node.SpaceNode()
    expected = await load(node, 60)
    groups = by_state(node, media_records.ZoneSetState.SEALED)
    assert len(groups) == 3
    before = {group_id: node.live_bytes(group_id) for group_id in groups}
    for key in sorted(expected)[:8]:  # More than half of the first group.
        await node.delete(key)
        del expected[key]
    work = node.reclaim(reclaim.ReclaimLimits(free_percent=0))
    assert await work_off(work) > 0
    assert node.live_bytes(groups[0]) == 0
    assert all(node.live_bytes(group_id) == before[group_id] for group_id in groups[1:])
    await check(node, expected)


async def fill(node: space_node.SpaceNode, *, prefix: str = "k") -> dict[str, bytes]:
    """Objects until there is no room; those that were taken."""
    taken: dict[str, bytes] = {}
    while True:
        key, data = f"{prefix}{len(taken):04}", RNG.randbytes(250_000)
        try:
            await node.put(key, data)
        except errors.StoreFullError:
            return taken
        taken[key] = data


def full_store(*, reserve_share_count: int) -> space_node.SpaceNode:
    return space_node.SpaceNode(
        zones_count=16, reserve_zones_count=4, reserve_share_count=reserve_share_count
    )


async def test_a_full_store_of_which_half_is_deleted_evenly_has_room_again() -> None:
    node = full_store(reserve_share_count=2)
    await node.create_bucket()
    expected = await fill(node)
    count = len(expected)
    for key in sorted(expected)[::2]:
        await node.delete(key)
        del expected[key]
    with pytest.raises(errors.StoreFullError):
        await node.put("still full", RNG.randbytes(250_000))
    work = node.reclaim(ONLY_LOW)
    steps_count = 0
    while await work.step() == 0.0 or await released_count(node):
        steps_count += 1
        assert steps_count < 1000
        await released_count(node)
    await check(node, expected)
    fresh = await fill(node, prefix="n")
    assert len(fresh) > 0.2 * count
    await check(node, expected | fresh)


async def test_without_a_share_of_the_reserve_a_full_store_would_stay_full() -> None:
    node = full_store(reserve_share_count=0)
    await node.create_bucket()
    expected = await fill(node)
    for key in sorted(expected)[::2]:
        await node.delete(key)
    work = node.reclaim(ONLY_LOW)
    with pytest.raises(errors.StoreFullError):
        await work_off(work)
    assert await released_count(node) == 0


async def test_room_that_waits_for_its_release_counts_as_room() -> None:
    node = full_store(reserve_share_count=2)
    await node.create_bucket()
    expected = await fill(node)
    groups = by_state(node, media_records.ZoneSetState.SEALED)
    for key in sorted(expected)[: 2 * len(expected) // 3]:
        await node.delete(key)
    assert sum(node.live_bytes(group_id) == 0 for group_id in groups) > 3
    assert await work_off(node.reclaim(ONLY_LOW)) == 0


async def test_what_is_as_compact_as_it_can_be_is_not_moved_for_ever() -> None:
    node = space_node.SpaceNode(zone_bytes=256 * units.KIB, stripe_bytes=128 * units.KIB)
    await node.create_bucket()
    keys = [f"k{number:05}" for number in range(9000)]
    for first in range(0, len(keys), 100):
        await asyncio.gather(*(node.put(key, RNG.randbytes(90)) for key in keys[first:][:100]))
    left = node.entries()
    while left:
        left = left[(await node.relocation.move(left)).taken_count :]
    groups = by_state(node, media_records.ZoneSetState.SEALED)
    assert groups
    record = next(found for found in node.group_records() if found.group_id == groups[0])
    assert record.writer == "maintenance"
    limits = reclaim.ReclaimLimits(dead_percent=10, free_percent=90)
    work = node.reclaim(limits)
    assert node.live_bytes(groups[0]) < 0.7 * work._room_bytes(record), "loose, as it looks"
    assert await work_off(work) == 0
    for key in keys[: 9000 // 4]:
        await node.delete(key)
    node.check_live_bytes()
    assert await work_off(work) > 0
    assert node.live_bytes(groups[0]) == 0
    before = node.entries()
    assert await work_off(work) == 0
    assert node.entries() == before


async def test_narrow_groups_get_their_full_width_back() -> None:
    node = space_node.SpaceNode(devices_count=7)
    victims = [ids.DeviceId(f"{number:032x}") for number in (0, 1)]
    node.start(away=victims)
    expected = await load(node, 60)
    node.start()
    narrow = by_state(node, media_records.ZoneSetState.SEALED)
    assert {record.data_shards for record in node.group_records()} == {3}
    work = node.reclaim(
        NO_LIMITS,
        must_move=lambda reader, record: departures.is_narrow(node.media, record, node.coding),
    )
    assert await work_off(work) > 0
    assert all(node.live_bytes(group_id) == 0 for group_id in narrow)
    full = [record for record in node.group_records() if record.data_shards == 4]
    assert sum(node.live_bytes(record.group_id) for record in full) > 8_000_000
    await check(node, expected)


async def test_a_retiring_device_is_emptied() -> None:
    node = space_node.SpaceNode(devices_count=7)
    expected = await load(node, 60)
    device = node.devices[ids.DeviceId(f"{2:032x}")]
    device.retire()
    node.start()
    on_it = {
        record.group_id
        for record in node.group_records()
        if record.state == media_records.ZoneSetState.SEALED
        and departures.has_retiring_member(node.media, record.members)
    }
    assert on_it
    work = node.reclaim(
        NO_LIMITS,
        must_move=lambda reader, record: departures.has_retiring_member(node.media, record.members),
    )
    await work_off(work)
    assert all(node.live_bytes(group_id) == 0 for group_id in on_it)
    await check(node, expected)


def stranded_among(node: space_node.SpaceNode, delay_seconds: float = 30.0) -> reclaim.Strandings:
    return stranded_groups.StrandedGroups(
        node.media,
        wanted=node.coding,
        reserve_zones_count=1,
        delay_seconds=delay_seconds,
        now_seconds=node.monotonic_seconds,
        now_ns=node.now_ns,
    ).among


async def test_a_lost_device_without_a_spare_is_told_from_one_with() -> None:
    node = space_node.SpaceNode(devices_count=7, zones_count=8)
    await load(node, 3)
    (record,) = node.group_records()
    members = {device_id for device_id, _ in record.members}
    (outside,) = set(node.devices) - members
    among = stranded_among(node, delay_seconds=0.0)
    with node.index.read() as reader:
        assert not departures.has_lost_member(node.media, record.members)
        assert not among(reader, [record])
        lost = ids.DeviceId(record.members[0][0])
        node.media.remove(lost)
        assert departures.has_lost_member(node.media, record.members)
        assert not among(reader, [record])
        node.media.remove(outside)
        assert among(reader, [record]) == {
            record.group_id: stranded_groups.Stranded(1, frozenset({lost}))
        }


async def test_a_spare_without_room_beyond_the_reserve_is_none() -> None:
    node = space_node.SpaceNode(devices_count=7, zones_count=8)
    await load(node, 3)
    (record,) = node.group_records()
    (outside,) = set(node.devices) - {device_id for device_id, _ in record.members}
    node.media.remove(ids.DeviceId(record.members[0][0]))
    among = stranded_among(node, delay_seconds=0.0)
    taken = media_records.pack(media_records.ZoneRecord(1, 1))
    with node.index.read() as reader:
        free = zone_allocation.free_zones(reader, node.devices[outside].identity)
    for position, zone in enumerate(free):
        with node.index.read() as reader:
            is_stranded = bool(among(reader, [record]))
        assert is_stranded == (len(free) - position <= 1)
        with node.index.write() as txn:
            txn.put(media_records.zone_key(ids.ZoneAddress(outside, zone)), taken)
            txn.commit()


async def test_a_device_that_may_come_back_is_waited_for() -> None:
    node = space_node.SpaceNode()
    await load(node, 30)
    records = node.group_records()
    among = stranded_among(node)
    node.media.remove(ids.DeviceId(records[0].members[0][0]))
    with node.index.read() as reader:
        assert not among(reader, records)
        node.seconds += 29.0
        assert not among(reader, records)
        node.seconds += 1.0
        assert set(among(reader, records)) == {record.group_id for record in records}
        node.start()  # It is back.
        assert not stranded_among(node, delay_seconds=0.0)(reader, records)


async def test_what_moving_cannot_help_is_not_stranded() -> None:
    node = space_node.SpaceNode(devices_count=9)
    await load(node, 3)
    (record,) = node.group_records()
    members = [ids.DeviceId(device_id) for device_id, _ in record.members]
    among = stranded_among(node, delay_seconds=0.0)
    for outside in set(node.devices) - set(members):
        node.media.remove(outside)
    with node.index.read() as reader:
        for count, is_stranded in ((1, True), (2, True), (3, False), (4, False)):
            node.media.remove(members[count - 1])
            assert bool(among(reader, [record])) == is_stranded, count


async def test_groups_without_a_spare_move_to_narrower_ones_with_all_parity() -> None:
    node = space_node.SpaceNode(zones_count=64)
    expected = await load(node, 60)
    full = by_state(node, media_records.ZoneSetState.SEALED)
    assert len(full) > 1
    lost = ids.DeviceId(f"{3:032x}")
    node.start(away=[lost])
    seen: list[reclaim.StrandedProgress] = []
    work = node.reclaim(NO_LIMITS, stranded=stranded_among(node), report=seen.append)
    assert await work_off(work) == 0
    node.seconds += 30.0
    assert await work_off(work) > 0
    assert all(node.live_bytes(group_id) == 0 for group_id in full)
    alive = [
        record
        for record in node.group_records()
        if node.live_bytes(record.group_id) and record.state == media_records.ZoneSetState.SEALED
    ]
    assert {(record.data_shards, record.parity_shards) for record in alive} == {(3, 2)}
    assert not any(departures.has_lost_member(node.media, record.members) for record in alive)
    assert [progress.groups_count for progress in seen] == [*range(len(full), -1, -1)]
    assert seen[0].lost_device_ids == {lost}
    await check(node, expected)
    await released_count(node)
    await check(node, expected)
    assert await work_off(work) == 0
    node.start()  # The device is replaced.
    work = node.reclaim(
        NO_LIMITS,
        must_move=lambda reader, record: departures.is_narrow(node.media, record, node.coding),
        stranded=stranded_among(node, delay_seconds=0.0),
    )
    narrow = [record.group_id for record in alive]
    assert await work_off(work) > 0
    assert not any(node.live_bytes(group_id) for group_id in narrow)
    await check(node, expected)


async def test_stranded_groups_stop_before_the_store_is_full() -> None:
    node = space_node.SpaceNode(zones_count=24, reserve_zones_count=2)
    expected = await load(node, 1)
    with contextlib.suppress(errors.StoreFullError):
        for number in range(1000):
            data = RNG.randbytes(250_000)
            await node.put(f"more{number:04}", data)
            expected[f"more{number:04}"] = data
    assert len(expected) < 1000
    node.start(away=[ids.DeviceId(f"{3:032x}")])
    seen: list[reclaim.StrandedProgress] = []
    work = node.reclaim(
        NO_LIMITS, stranded=stranded_among(node, delay_seconds=0.0), report=seen.append
    )
    before = node.entries()
    assert await work_off(work) == 0
    assert node.entries() == before
    assert seen[-1].waits_for_room
    stuck_count = seen[-1].groups_count
    assert stuck_count > 5
    for key in sorted(expected)[: len(expected) // 2]:
        await node.delete(key)
        del expected[key]
    await released_count(node)
    while await work_off(work):
        await released_count(node)
    assert seen[-1].groups_count == 0
    await check(node, expected)


async def test_a_group_with_damage_beyond_repair_is_not_walked_over_and_over() -> None:
    node = space_node.SpaceNode()
    expected = await load(node, 30)
    group_id = by_state(node, media_records.ZoneSetState.SEALED)[0]
    (record,) = [found for found in node.group_records() if found.group_id == group_id]
    for device_id, zone in record.members[:3]:
        node.devices[ids.DeviceId(device_id)].rot(zone, 2 * units.BLOCK_BYTES + 5)
    work = node.reclaim(NO_LIMITS, must_move=lambda reader, record: True)
    assert await work_off(work) > 0
    assert 0 < node.live_bytes(group_id) <= 256 * units.KIB
    assert await work_off(work) == 0
    node.seconds += reclaim.LOOK_AGAIN_SECONDS
    for device_id, zone in record.members[:1]:
        node.devices[ids.DeviceId(device_id)].rot(zone, 2 * units.BLOCK_BYTES + 5)
    assert await work_off(work) > 0
    assert node.live_bytes(group_id) == 0
    await check(node, expected)
    assert geometry.StripeGeometry(record.data_shards, record.parity_shards) == node.coding


async def test_a_store_that_runs_out_of_room_waits_for_no_pace() -> None:
    node = space_node.SpaceNode()
    await load(node, 2)
    work = node.reclaim(reclaim.ReclaimLimits(free_percent=20))
    assert await work.step() == reclaim.POLL_SECONDS
    assert not work.is_urgent
    await fill(node, prefix="m")
    with pytest.raises(errors.StoreFullError):  # Quite full: it tries all the same.
        await work.step()
    assert work.is_urgent
