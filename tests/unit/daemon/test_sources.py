"""Finding what is alive in a segment or group, with parts of it missing."""

from __future__ import annotations

import random

import pytest
import space_node

from couchestor_daemon.formats import l2p_record, media_records, packed_stripe
from couchestor_daemon.services import group_source, log_segment, segment_source
from couchestor_daemon.services.catalogue import l2p
from couchestor_domain import ids, units


async def of_segment(
    node: space_node.SpaceNode, record: media_records.SegmentRecord
) -> list[l2p.Entry]:
    source = segment_source.SegmentSource(
        record, index=node.index, media=node.media, run_blocking=node.run, pace=node.pace
    )
    return [entry async for entries in source.entries() for entry in entries]


async def of_group(
    node: space_node.SpaceNode, record: media_records.GroupRecord
) -> list[l2p.Entry]:
    source = group_source.GroupSource(
        record,
        index=node.index,
        media=node.media,
        stripes=node.stripes,
        run_blocking=node.run,
        pace=node.pace,
    )
    return [entry async for entries in source.entries() for entry in entries]


def in_segment(node: space_node.SpaceNode, segment_id: int) -> list[l2p.Entry]:
    """What the whole L2P says, in log order."""
    found = [
        (entry.location.offset_bytes, entry)
        for entry in node.entries()
        if isinstance(entry.location, l2p_record.JournalLocation)
        and entry.location.segment_id == segment_id
    ]
    return [entry for _, entry in sorted(found)]


def in_group(node: space_node.SpaceNode, group_id: int) -> list[l2p.Entry]:
    found = [
        (entry.location.stripe_offset_bytes, entry.location.start_bytes, entry)
        for entry in node.entries()
        if isinstance(entry.location, l2p_record.StripeLocation)
        and entry.location.group_id == group_id
    ]
    return [entry for _, _, entry in sorted(found)]


async def loaded(seed: int = 1) -> space_node.SpaceNode:
    """Some objects in log and stripes, half of them moved to packed stripes, then some deleted."""
    rng = random.Random(seed)
    node = space_node.SpaceNode(zone_bytes=512 * units.KIB)
    await node.create_bucket()
    keys = [f"k{number:03}" for number in range(120)]
    for key in keys:
        await node.put(key, rng.randbytes(rng.choice([1, 700, 4096, 9000, 70_000, 300_000])))
    left = node.entries()[::2]
    while left:
        left = left[(await node.relocation.move(left)).taken_count :]
    for key in keys[::5]:
        await node.delete(key)
    for key in keys[1::7]:
        await node.put(key, rng.randbytes(3000))
    return node


async def check_sources(node: space_node.SpaceNode) -> None:
    found: list[l2p.Entry] = []
    for segment in node.segments():
        entries = await of_segment(node, segment)
        assert entries == in_segment(node, segment.segment_id)
        found += entries
    for group in node.group_records():
        entries = await of_group(node, group)
        assert entries == in_group(node, group.group_id)
        found += entries
    assert sorted(found) == sorted(node.entries())


async def test_every_live_entry_is_found_in_its_place_and_no_other() -> None:
    node = await loaded()
    assert len(node.segments()) > 2
    assert len(node.group_records()) > 2
    await check_sources(node)
    assert node.paced_bytes > 0


async def test_lost_devices_hide_nothing() -> None:
    node = await loaded()
    for number in (1, 4):
        node.media.remove(ids.DeviceId(f"{number:032x}"))
    await check_sources(node)


async def test_rot_on_some_replicas_and_shards_hides_nothing() -> None:
    node = await loaded()
    rng = random.Random(2)
    for segment in node.segments():
        for number, (device_id, zone) in enumerate(segment.members[:-1]):
            device = node.devices[ids.DeviceId(device_id)]
            size = len(device._zones[ids.ZoneIndex(zone)])
            for _ in range(20 if number else 5):
                device.rot(zone, rng.randrange(4096, size))
    for group in node.group_records():
        for device_id, zone in rng.sample(group.members, 2):
            device = node.devices[ids.DeviceId(device_id)]
            size = len(device._zones[ids.ZoneIndex(zone)])
            for _ in range(20):
                device.rot(zone, rng.randrange(4096, size))
    await check_sources(node)


async def test_a_batch_damaged_on_every_replica_hides_only_itself() -> None:
    node = await loaded()
    segment = node.segments()[1]
    before = in_segment(node, segment.segment_id)
    victim = before[1]
    assert isinstance(victim.location, l2p_record.JournalLocation)
    for device_id, zone in segment.members:
        node.devices[ids.DeviceId(device_id)].rot(zone, victim.location.offset_bytes)
    assert await of_segment(node, segment) == [entry for entry in before if entry != victim]


async def test_torn_tails_and_padding_in_a_segment_are_stepped_over() -> None:
    node = space_node.SpaceNode()
    await node.create_bucket()
    for number in range(5):
        await node.put(f"a{number}", b"x" * 5000)
    (segment,) = node.segments()
    zones = media_records.zone_addresses(segment.members)
    first = node.devices[zones[0].device_id]
    image = bytes(first._zones[zones[0].zone_index])
    # As after a crash: part of an old batch again, on one replica, then all are levelled.
    first.write(zones[0].zone_index, len(image), memoryview(image[4096:16384]), durable=True)
    log_segment.level_zones(node.media, zones, memoryview(bytearray(units.BLOCK_BYTES)))
    before = await of_segment(node, segment)
    assert before == in_segment(node, segment.segment_id)
    assert len(before) == 5


async def test_a_batch_longer_than_a_window_is_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment_source, "WINDOW_BYTES", 8192)
    node = space_node.SpaceNode()
    await node.create_bucket()
    for number in range(8):
        await node.put(f"a{number}", b"x" * 5000 * (1 + number))
    (segment,) = node.segments()
    assert len(await of_segment(node, segment)) == 8


async def test_a_table_of_many_blocks_is_read_whole() -> None:
    node = space_node.SpaceNode()
    await node.create_bucket()
    for number in range(400):
        await node.put(f"k{number}", b"y" * 60)
    entries = node.entries()
    assert (await node.relocation.move(entries)).switched_count == 400
    assert packed_stripe.table_bytes(400) == 3 * units.BLOCK_BYTES
    (group,) = node.group_records()
    assert len(await of_group(node, group)) == 400
    await node.relocation.move(node.entries()[:100])
    assert await of_group(node, group) == in_group(node, group.group_id)


async def test_a_group_that_is_released_during_the_walk_ends_it() -> None:
    node = space_node.SpaceNode()
    await node.create_bucket()
    for number in range(20):
        await node.put(f"k{number}", b"y" * 60)
    left = node.entries()
    while left:
        left = left[(await node.relocation.move(left[:10])).taken_count :]
    (group,) = node.group_records()
    source = group_source.GroupSource(
        group,
        index=node.index,
        media=node.media,
        stripes=node.stripes,
        run_blocking=node.run,
        pace=node.pace,
    )
    walk = source.entries()
    assert len(await anext(walk)) == 10
    with node.index.write() as txn:
        txn.delete(media_records.group_key(group.group_id))
        txn.commit()
    assert [entries async for entries in walk] == []


async def test_a_table_that_does_not_verify_names_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    node = space_node.SpaceNode()
    await node.create_bucket()
    for number in range(5):
        await node.put(f"k{number}", b"y" * 60)
    await node.relocation.move(node.entries())
    (group,) = node.group_records()
    for device_id, zone in group.members[:3]:
        node.devices[ids.DeviceId(device_id)].rot(zone, 2 * units.BLOCK_BYTES + 100)
    assert await of_group(node, group) == []
    assert "cannot be told" in caplog.text
