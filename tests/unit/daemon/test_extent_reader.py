"""Reads whose places move, get old, or are given to others meanwhile."""

from __future__ import annotations

import msgspec
import pytest
import stripe_node

from couchestor_daemon.formats import l2p_record, media_records
from couchestor_daemon.services import extent_reader, zone_grace
from couchestor_daemon.services.catalogue import l2p
from couchestor_domain import errors, ids, objects, units

DATA = bytes(range(256)) * 1024  # Four stripes.
SMALL = bytes(range(256)) * 8
OLD = zone_grace.PLACES_KEPT_SECONDS + 0.1


@pytest.fixture
async def node() -> stripe_node.StripeNode:
    made = stripe_node.StripeNode()
    await made.make_bucket()
    return made


async def looked_up(node: stripe_node.StripeNode, key: str) -> objects.ObjectRecord:
    return await node.store.get_object(bucket=stripe_node.BUCKET, key=key)


async def read(node: stripe_node.StripeNode, record: objects.ObjectRecord) -> bytes:
    found = await node.store.fetch(record, start_bytes=0, length_bytes=record.size_bytes)
    return bytes(found)


async def delete(node: stripe_node.StripeNode, key: str) -> None:
    await node.store.delete_object(
        bucket=stripe_node.BUCKET, key=key, conditions=objects.NO_CONDITIONS
    )


def reset_everything(node: stripe_node.StripeNode) -> None:
    """As when all zones were given to others."""
    for device in node.devices.values():
        for report in device.report():
            device.reset(report.zone_index)


async def move_to_copy(node: stripe_node.StripeNode, record: objects.ObjectRecord) -> None:
    """Relocate an object's bytes, by way of another object with the same bytes."""
    copy = await node.put("copy", await read(node, record))
    (extent,), (twin,) = record.extents, copy.extents
    with node.index.write() as txn:
        resolved = l2p.resolve(txn, extent, start_bytes=0, length_bytes=extent.length_bytes)
        copies = l2p.resolve(txn, twin, start_bytes=0, length_bytes=twin.length_bytes)
        l2p.punch(txn, twin)
        for (address, location, _, _), (_, target, _, _) in zip(resolved, copies, strict=True):
            assert l2p.replace(txn, address, expected=location, location=target)
        txn.commit()


def erase(node: stripe_node.StripeNode, location: l2p_record.Location) -> set[ids.ZoneAddress]:
    """Reset the zones of the segment or group that a place is in; returns them."""
    with node.index.read() as reader:
        if isinstance(location, l2p_record.JournalLocation):
            value = reader.get(media_records.segment_key(location.segment_id))
            assert value is not None
            members = media_records.unpack(media_records.SegmentRecord, value).members
        else:
            value = reader.get(media_records.group_key(location.group_id))
            assert value is not None
            members = media_records.unpack(media_records.GroupRecord, value).members
    zones = set(media_records.zone_addresses(members))
    for zone in zones:
        node.devices[zone.device_id].reset(zone.zone_index)
    return zones


def watch_reads(
    node: stripe_node.StripeNode, monkeypatch: pytest.MonkeyPatch
) -> set[ids.ZoneAddress]:
    """The zones that are read from now on."""
    looked_at: set[ids.ZoneAddress] = set()
    honest = node.media.try_read

    def try_read(zone: ids.ZoneAddress, offset_bytes: int, buffer: memoryview) -> bool:
        looked_at.add(zone)
        return honest(zone, offset_bytes, buffer)

    monkeypatch.setattr(node.media, "try_read", try_read)
    return looked_at


def first_place(record: objects.ObjectRecord) -> l2p_record.Location:
    assert isinstance(record.places, extent_reader.Places)
    return record.places.extents[0][0][1]


def assert_no_damage(node: stripe_node.StripeNode) -> None:
    assert node.damage == []
    told = {event.name for event in node.published}
    assert not told & {"ShardFailed", "DegradedRead"}, told


def other_group_from_now_on(node: stripe_node.StripeNode) -> None:
    """The next stripe goes to another group."""
    for group in node.groups._open:
        group.offset_bytes = group.capacity_bytes


@pytest.mark.parametrize("data", [SMALL, DATA], ids=["log", "stripes"])
async def test_old_places_are_looked_up_again(
    node: stripe_node.StripeNode, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    await node.put("k", data)
    record = await looked_up(node, "k")
    before = first_place(record)
    other_group_from_now_on(node)
    node.start("worker-1")  # Another segment, too.
    await move_to_copy(node, record)
    emptied = erase(node, before)
    node.now_seconds += OLD
    looked_at = watch_reads(node, monkeypatch)
    assert await read(node, record) == data
    assert_no_damage(node)
    assert not looked_at & emptied


@pytest.mark.parametrize("data", [SMALL, DATA], ids=["log", "stripes"])
async def test_young_places_that_were_given_away_all_the_same_are_looked_up_again(
    node: stripe_node.StripeNode, data: bytes
) -> None:
    """A process that was held up between the lookup and the read."""
    await node.put("k", data)
    record = await looked_up(node, "k")
    before = first_place(record)
    other_group_from_now_on(node)
    node.start("worker-1")
    await move_to_copy(node, record)
    erase(node, before)
    assert await read(node, record) == data
    assert_no_damage(node)


@pytest.mark.parametrize("age_seconds", [0.0, OLD])
@pytest.mark.parametrize("data", [SMALL, DATA], ids=["log", "stripes"])
async def test_a_version_that_is_gone_reads_on_while_its_bytes_are_there(
    node: stripe_node.StripeNode, data: bytes, age_seconds: float
) -> None:
    await node.put("k", data)
    record = await looked_up(node, "k")
    await delete(node, "k")
    node.now_seconds += age_seconds
    assert await read(node, record) == data
    reset_everything(node)
    with pytest.raises(errors.VersionGoneError):
        await read(node, record)
    assert_no_damage(node)


async def test_a_version_that_goes_in_the_middle_of_a_read_ends_it_with_a_clear_error(
    node: stripe_node.StripeNode,
) -> None:
    await node.put("k", DATA)
    record = await looked_up(node, "k")
    pieces = node.store.stream(record, start_bytes=0, length_bytes=len(DATA))
    found = bytearray()

    async def take() -> None:
        async for piece in pieces:
            found.extend(piece)
            if len(found) == 2 * stripe_node.STRIPE_BYTES:
                await delete(node, "k")
                node.now_seconds += OLD
            if len(found) == 3 * stripe_node.STRIPE_BYTES:
                reset_everything(node)

    with pytest.raises(errors.VersionGoneError):
        await take()
    assert found == DATA[: 3 * stripe_node.STRIPE_BYTES]
    assert_no_damage(node)


async def test_damage_of_a_version_that_is_gone_is_decoded_and_not_reported(
    node: stripe_node.StripeNode,
) -> None:
    await node.put("k", DATA)
    record = await looked_up(node, "k")
    await delete(node, "k")
    node.media.report_failure(ids.DeviceId(f"{0:032x}"), errors.DeviceGoneError("pulled out"))
    assert await read(node, record) == DATA
    assert_no_damage(node)


async def test_damage_of_a_present_version_is_reported(node: stripe_node.StripeNode) -> None:
    await node.put("k", DATA)
    record = await looked_up(node, "k")
    node.media.report_failure(ids.DeviceId(f"{0:032x}"), errors.DeviceGoneError("pulled out"))
    assert await read(node, record) == DATA
    assert node.damage
    assert {"ShardFailed", "DegradedRead"} <= {event.name for event in node.published}


async def test_bytes_that_are_lost_where_the_index_leads_are_an_error_of_the_media(
    node: stripe_node.StripeNode,
) -> None:
    for key, data in (("small", SMALL), ("large", DATA)):
        await node.put(key, data)
        record = await looked_up(node, key)
        erase(node, first_place(record))
        with pytest.raises(errors.InsufficientShardsError):
            await read(node, record)


async def test_members_that_a_rebuild_replaced_are_seen_by_the_next_lookup(
    node: stripe_node.StripeNode,
) -> None:
    await node.put("k", DATA)
    early = await looked_up(node, "k")
    assert await read(node, early) == DATA
    (group,) = node.group_records()
    zone = media_records.zone_addresses(group.members)[0]
    device = node.devices[zone.device_id]
    spare = ids.ZoneIndex(20)
    content = memoryview(bytearray(units.MIB))
    device.read(zone.zone_index, 0, content)
    device.write(spare, 0, content, durable=True)
    moved = ((zone.device_id, int(spare)), *group.members[1:])
    with node.index.write() as txn:
        changed = msgspec.structs.replace(group, members=moved)
        txn.put(media_records.group_key(group.group_id), media_records.pack(changed))
        txn.commit()
    device.reset(zone.zone_index)
    assert await read(node, await looked_up(node, "k")) == DATA
    assert_no_damage(node)
    # One that looked them up before finds out, and calls it no damage either.
    assert await read(node, early) == DATA
    assert_no_damage(node)
