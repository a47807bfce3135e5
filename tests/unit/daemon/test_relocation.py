"""Live bytes on their way to new stripes, with clients and failing devices in between."""

from __future__ import annotations

import asyncio
import random

import pytest
import space_node

from couchestor_daemon.adapters import memory_index
from couchestor_daemon.formats import l2p_record, packed_stripe, shard
from couchestor_daemon.services import payload_reader, recording_writer, relocation, stripe_reader
from couchestor_daemon.services.catalogue import l2p, liveness
from couchestor_domain import errors, events, geometry, ids, units

RNG = random.Random(1)


def device(node: space_node.SpaceNode, number: int) -> space_node.TroubledDevice:
    return node.devices[ids.DeviceId(f"{number:032x}")]


async def small_objects(node: space_node.SpaceNode, count: int) -> dict[str, bytes]:
    """Objects of many lengths whose bytes are in the log."""
    await node.create_bucket()
    found = {
        f"k{i:04}": RNG.randbytes(RNG.choice([1, 700, 4096, 4096, 9000])) for i in range(count)
    }
    for key, data in found.items():
        await node.put(key, data)
    return found


async def check(node: space_node.SpaceNode, expected: dict[str, bytes]) -> None:
    for key, data in expected.items():
        assert await node.get(key) == data, key
    node.check_live_bytes()
    assert node.pool.lent_bytes == 0
    assert not node.groups._unsettled


async def move_everything(node: space_node.SpaceNode) -> list[relocation.Moved]:
    left = node.entries()
    moved = []
    while left:
        moved.append(await node.relocation.move(left))
        left = left[moved[-1].taken_count :]
    return moved


async def table_of(
    node: space_node.SpaceNode, location: l2p_record.StripeLocation
) -> tuple[packed_stripe.Entry, ...] | None:
    with node.index.read() as reader:
        members = payload_reader.members_of(reader, location.group_id)
    stripe = stripe_reader.StripeLocation(*location[:4])
    out = memoryview(bytearray(shard.shard_bytes(stripe.chunk_bytes)))
    header = await node.stripes.read_shard_raw(stripe, members, 0, out)
    if header.extent_address != packed_stripe.ADDRESS:
        assert header.extent_address < 1 << 60
        return None
    data = memoryview(bytearray(stripe.data_bytes))
    await node.stripes.read(stripe, members, 0, len(data), data)
    return packed_stripe.unpack(data, data_bytes=stripe.data_bytes)


async def test_small_objects_move_from_the_log_into_packed_stripes() -> None:
    node = space_node.SpaceNode()
    expected = await small_objects(node, 300)
    moved = await move_everything(node)
    assert sum(one.switched_count for one in moved) == 300
    assert sum(one.switched_bytes for one in moved) == sum(map(len, expected.values()))
    assert all(one.stripe_bytes <= node.stripe_bytes for one in moved)
    # All but the last are as full as the next payload left them.
    assert all(one.stripe_bytes > node.stripe_bytes - 9500 for one in moved[:-1])
    await check(node, expected)
    for address, location in node.entries():
        assert isinstance(location, l2p_record.StripeLocation), location
        table = await table_of(node, location)
        if table is None:  # Alone in the last one.
            assert location.length_bytes == location.data_bytes == moved[-1].switched_bytes
            continue
        assert (address, location.start_bytes, location.length_bytes) in [
            (entry.extent_address, entry.start_bytes, entry.logical_bytes) for entry in table
        ]
    destaged = list(node.events_of(events.StripeDestaged))
    assert len(destaged) == len(moved)
    assert all(event.duration_seconds >= 0 for event in destaged)
    assert node.paced_bytes > 2 * sum(map(len, expected.values()))


async def test_blocks_in_a_packed_stripe_lie_on_block_boundaries() -> None:
    node = space_node.SpaceNode()
    await node.create_bucket()
    for number in range(40):
        await node.put(f"k{number}", RNG.randbytes(4096))
    await move_everything(node)
    starts = {
        found.location.start_bytes % units.BLOCK_BYTES
        for found in node.entries()
        if isinstance(found.location, l2p_record.StripeLocation)
    }
    assert starts == {0}


async def test_whole_and_long_stripes_move_without_a_table() -> None:
    node = space_node.SpaceNode()
    await node.create_bucket()
    expected = {"big": RNG.randbytes(600_000), "mid": RNG.randbytes(200_000)}
    for key, data in expected.items():
        await node.put(key, data)
    before = node.entries()
    assert max(entry.location.length_bytes for entry in before) == node.stripe_bytes
    moved = await move_everything(node)
    assert sum(one.switched_count for one in moved) == len(before)
    after = node.entries()
    assert all(old.location != new.location for old, new in zip(before, after, strict=True))
    for _, location in after:
        assert isinstance(location, l2p_record.StripeLocation)
        if location.length_bytes == node.stripe_bytes:
            assert (location.start_bytes, location.data_bytes) == (0, node.stripe_bytes)
            assert await table_of(node, location) is None
    await check(node, expected)
    assert {event.group_id for event in node.events_of(events.StripeDestaged)} <= {
        location.group_id
        for _, location in after
        if isinstance(location, l2p_record.StripeLocation) and location.start_bytes
    }


async def test_an_entry_longer_than_a_stripe_gets_one_of_its_own() -> None:
    node = space_node.SpaceNode()
    await node.create_bucket()
    expected = {"big": RNG.randbytes(256 * units.KIB), "a": b"a" * 500, "b": b"b" * 500}
    for key, data in expected.items():
        await node.put(key, data)
    node.relocation._stripe_bytes = 64 * units.KIB
    moved = await move_everything(node)
    assert [one.taken_count for one in moved] == [1, 2]
    assert moved[0].stripe_bytes == 256 * units.KIB
    await check(node, expected)


async def test_what_clients_change_meanwhile_is_not_switched() -> None:
    node = space_node.SpaceNode()
    expected = await small_objects(node, 20)
    chosen = node.entries()
    changes = iter([node.delete("k0003"), node.put("k0004", b"newer")])

    async def submit_after_changes(operation: object) -> object:
        for change in changes:
            await change
        return await node.maintenance.submit(operation)  # type: ignore[arg-type]

    node.relocation._submit = submit_after_changes
    moved = await node.relocation.move(chosen)
    assert (moved.taken_count, moved.switched_count) == (20, 18)
    del expected["k0003"]
    expected["k0004"] = b"newer"
    await check(node, expected)
    with pytest.raises(errors.NoSuchKeyError):
        await node.get("k0003")
    # The same entries again: none is where it was.
    again = await node.relocation.move(chosen)
    assert (again.switched_count, again.unreadable) == (0, [])
    await check(node, expected)


def test_a_batch_of_moves_counts_live_bytes_once_and_skips_what_has_moved() -> None:
    index = memory_index.MemoryIndex()
    old = [l2p_record.JournalLocation(7, 4096 * i, 10, 1) for i in range(4)]
    new = [l2p_record.StripeLocation(9, 0, 4096, 40, 10 * i, 10) for i in range(4)]
    addresses = [ids.ExtentAddress(100 * i) for i in range(1, 5)]
    with index.write() as txn:
        l2p.insert_all(txn, list(zip(addresses[:3], old[:3], strict=True)))
        txn.commit()
    moves = [l2p.Move(*found) for found in zip(addresses, old, new, strict=True)]
    moves[0] = moves[0]._replace(expected=old[1])
    twice = [*moves, moves[1]._replace(location=new[3])]
    with index.write() as txn:
        recorder = recording_writer.RecordingWriter(txn)
        assert l2p.replace_all(recorder, twice) == moves[1:3]
        assert liveness.group_bytes(recorder, 9) == 20
    with index.write() as txn:
        recorder = recording_writer.RecordingWriter(txn)
        assert l2p.replace_all(recorder, moves) == moves[1:3]
        assert recorder.writes_count == 2 + 2
        assert l2p.replace_all(recorder, moves) == []
        assert recorder.writes_count == 4


async def test_bytes_that_do_not_verify_are_left_and_reported() -> None:
    node = space_node.SpaceNode()
    expected = await small_objects(node, 10)
    chosen = node.entries()
    broken, half_broken = chosen[2].location, chosen[5].location
    (segment,) = node.segments()
    for location, replicas in ((broken, segment.members), (half_broken, segment.members[:2])):
        assert isinstance(location, l2p_record.JournalLocation)
        for device_id, zone in replicas:
            node.devices[ids.DeviceId(device_id)].rot(zone, location.offset_bytes)
    moved = await node.relocation.move(chosen)
    assert (moved.taken_count, moved.switched_count) == (10, 9)
    assert moved.unreadable == [chosen[2]]
    assert node.entries()[2] == chosen[2]
    del expected["k0002"]
    await check(node, expected)


async def test_nothing_readable_writes_no_stripe() -> None:
    node = space_node.SpaceNode()
    await small_objects(node, 3)
    chosen = node.entries()
    for device_id in list(node.devices)[:6]:
        node.media.remove(device_id)
    moved = await node.relocation.move(chosen)
    assert (moved.stripe_bytes, moved.switched_count) == (0, 0)
    assert moved.unreadable == chosen
    assert node.pool.lent_bytes == 0


async def test_lost_replicas_and_shards_are_read_around() -> None:
    node = space_node.SpaceNode()
    expected = await small_objects(node, 30)
    await node.put("big", RNG.randbytes(500_000))
    expected["big"] = await node.get("big")
    for device_id, _ in node.segments()[0].members[:2]:
        node.media.remove(ids.DeviceId(device_id))
    moved = await move_everything(node)
    assert sum(one.switched_count for one in moved) == len(node.entries())
    assert not any(one.unreadable for one in moved)
    await check(node, expected)
    assert {str(event.geometry) for event in node.events_of(events.StripeEncoded)} == {"4+2", "2+2"}


async def test_a_write_that_was_lost_is_noticed_before_anything_refers_to_it() -> None:
    node = space_node.SpaceNode()
    expected = await small_objects(node, 30)
    chosen = node.entries()
    liar = device(node, 0)
    liar.lost_writes_count = 1
    moved = await node.relocation.move(chosen)
    assert moved.switched_count == 30
    assert len(list(node.events_of(events.StripeEncoded))) == 2
    (failed,) = node.events_of(events.ShardFailed)
    assert failed.device_id == liar.identity.device_id
    for device_id in list(node.devices)[4:]:
        node.media.remove(device_id)
    await check(node, expected)


async def test_a_device_that_keeps_losing_writes_leaves_everything_where_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relocation, "RETRY_SECONDS", 0.001)
    node = space_node.SpaceNode()
    expected = await small_objects(node, 5)
    chosen = node.entries()
    device(node, 0).lost_writes_count = 100
    with pytest.raises(errors.DestageError):
        await node.relocation.move(chosen)
    assert node.entries() == chosen
    await check(node, expected)


async def test_a_device_that_dies_in_between_costs_a_new_layout() -> None:
    node = space_node.SpaceNode()
    expected = await small_objects(node, 20)
    await node.relocation.move(node.entries()[:2])
    victim = device(node, 3)
    victim.failure = errors.DeviceGoneError("pulled out")
    moved = await node.relocation.move(node.entries()[2:])
    assert moved.switched_count == 18
    assert list(node.events_of(events.StripeEncoded))[-1].geometry == "3+2"
    await check(node, expected)


async def test_a_device_that_dies_after_the_write_is_not_relied_on() -> None:
    node = space_node.SpaceNode()
    expected = await small_objects(node, 20)
    original = node.groups.write_stripe

    async def write_then_die(*args: object, **named: object) -> object:
        place = await original(*args, **named)  # type: ignore[arg-type]
        node.media.remove(list(node.devices)[1])
        return place

    node.groups.write_stripe = write_then_die  # type: ignore[assignment, method-assign]
    moved = await node.relocation.move(node.entries())
    assert moved.switched_count == 20
    groups = {
        location.group_id
        for _, location in node.entries()
        if isinstance(location, l2p_record.StripeLocation)
    }
    (record,) = [found for found in node.group_records() if found.group_id in groups]
    assert geometry.StripeGeometry(record.data_shards, record.parity_shards) == (
        geometry.StripeGeometry(3, 2)
    )
    await check(node, expected)


async def test_a_cancelled_move_ends_what_threads_are_at_and_leaves_nothing_lent() -> None:
    node = space_node.SpaceNode()
    expected = await small_objects(node, 20)
    cancelled_count = 0
    while True:
        task = asyncio.create_task(node.relocation.move(node.entries()))
        for _ in range(cancelled_count):
            await asyncio.sleep(0)
        if task.done():
            break
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        cancelled_count += 1
        await check(node, expected)
    assert cancelled_count > 3


async def test_a_commit_that_fails_leaves_the_entries_where_they_were() -> None:
    node = space_node.SpaceNode()
    expected = await small_objects(node, 20)
    chosen = node.entries()

    def refuse() -> None:
        raise errors.StoreFullError("no room for the log")

    node.before_switch = refuse
    with pytest.raises(errors.StoreFullError):
        await node.relocation.move(chosen)
    assert node.entries() == chosen
    await check(node, expected)
