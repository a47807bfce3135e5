"""Space that comes back from groups that are half dead, also of a full store."""

from __future__ import annotations

import asyncio
import random

import pytest
import space_node

from couchestor_daemon.formats import media_records
from couchestor_daemon.services import departures, reclaim, release
from couchestor_domain import errors, geometry, ids, units

ONLY_LOW = reclaim.ReclaimLimits(dead_percent=100, free_percent=15)
NO_LIMITS = reclaim.ReclaimLimits(dead_percent=101, free_percent=0)
RNG = random.Random(1)


def victim(group_id: int, live_share: float, *, must_move: bool = False) -> reclaim.Victim:
    record = media_records.GroupRecord(group_id, 2, "w", 4, 2, 0, ())
    return reclaim.Victim(record, live_share, must_move)


def chosen(*victims: reclaim.Victim, low: bool = False) -> int | None:
    found = reclaim.choose(
        victims, applied_sequence=1000, room_is_low=low, limits=reclaim.ReclaimLimits()
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


async def test_a_lost_device_without_a_spare_is_told_from_one_with() -> None:
    node = space_node.SpaceNode(devices_count=7, zones_count=4)
    await load(node, 3)
    (record,) = node.group_records()
    members = {device_id for device_id, _ in record.members}
    (outside,) = set(node.devices) - members
    assert not departures.has_lost_member(node.media, record.members)
    node.media.remove(ids.DeviceId(record.members[0][0]))
    assert departures.has_lost_member(node.media, record.members)
    with node.index.read() as reader:
        assert departures.has_spare(reader, node.media, record)
    node.media.remove(outside)
    with node.index.read() as reader:
        assert not departures.has_spare(reader, node.media, record)


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
