"""When the log is emptied into stripes."""

from __future__ import annotations

import random

import space_node

from couchestor_daemon.formats import l2p_record, media_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import commit_log, destage
from couchestor_domain import errors, ids, units

NEVER = destage.DestageLimits(log_bytes=1 << 60, age_seconds=1e9, idle_seconds=1e9)


async def loaded(
    count: int = 100, *, zone_bytes: int = 256 * units.KIB
) -> tuple[space_node.SpaceNode, dict[str, bytes]]:
    rng = random.Random(1)
    node = space_node.SpaceNode(zone_bytes=zone_bytes)
    await node.create_bucket()
    expected = {f"k{number:03}": rng.randbytes(8000) for number in range(count)}
    for key, data in expected.items():
        await node.put(key, data)
    return node, expected


async def work_off(work: destage.Destage) -> int:
    """Steps until there is nothing to do; how many stripes they moved."""
    count = 0
    while await work.step() == 0.0:
        count += 1
        assert count < 1000
    return count


async def check(node: space_node.SpaceNode, expected: dict[str, bytes]) -> None:
    for key, data in expected.items():
        assert await node.get(key) == data
    node.check_live_bytes()


def segments_with_payloads(node: space_node.SpaceNode) -> list[int]:
    return sorted(
        {
            entry.location.segment_id
            for entry in node.journaled()
            if isinstance(entry.location, l2p_record.JournalLocation)
        }
    )


def sealed(node: space_node.SpaceNode) -> list[int]:
    return [
        record.segment_id
        for record in node.segments()
        if record.state == media_records.ZoneSetState.SEALED
    ]


async def test_nothing_is_moved_before_it_is_due() -> None:
    node, _ = await loaded()
    assert await work_off(node.destage(NEVER)) == 0
    assert len(node.journaled()) == 100


async def test_the_oldest_sealed_segments_go_until_the_rest_is_within_the_limit() -> None:
    node, expected = await loaded()
    before = segments_with_payloads(node)
    assert len(before) == 5
    limits = destage.DestageLimits(log_bytes=512 * units.KIB, age_seconds=1e9, idle_seconds=1e9)
    assert await work_off(node.destage(limits)) > 0
    assert segments_with_payloads(node) == before[2:]
    await check(node, expected)


async def test_a_sealed_segment_goes_when_it_is_old_an_open_one_stays() -> None:
    node, expected = await loaded()
    limits = destage.DestageLimits(log_bytes=1 << 60, age_seconds=3600, idle_seconds=1e9)
    work = node.destage(limits)
    assert await work_off(work) == 0
    node.seconds += 3599
    assert await work_off(work) == 0
    node.seconds += 1
    assert await work_off(work) > 0
    assert len(segments_with_payloads(node)) == 1
    assert not set(segments_with_payloads(node)) & set(sealed(node))
    await check(node, expected)


async def test_an_idle_node_empties_open_segments_too_and_goes_on_in_them() -> None:
    node, expected = await loaded()
    limits = destage.DestageLimits(log_bytes=1 << 60, age_seconds=1e9, idle_seconds=30)
    work = node.destage(limits)
    assert await work_off(work) == 0
    node.seconds += 29
    await node.put("late", b"l" * 100)
    assert await work_off(work) == 0
    node.seconds += 29
    assert await work_off(work) == 0
    node.seconds += 1
    assert await work_off(work) > 0
    assert node.journaled() == []
    opened = {record.segment_id for record in node.segments()} - set(sealed(node))
    await node.put("later", b"m" * 100)
    (entry,) = node.journaled()
    assert isinstance(entry.location, l2p_record.JournalLocation)
    assert entry.location.segment_id in opened
    # What is new in an open segment is due again after the next idle time.
    assert await work_off(work) == 0
    node.seconds += 30
    assert await work_off(work) == 1
    assert node.journaled() == []
    await check(node, {**expected, "late": b"l" * 100, "later": b"m" * 100})


async def test_a_segment_that_lost_a_replica_goes_at_once() -> None:
    node, expected = await loaded()
    victim = node.segments()[2]
    holders = {record.segment_id: {d for d, _ in record.members} for record in node.segments()}
    lost = victim.members[0][0]
    node.media.remove(ids.DeviceId(lost))
    assert await work_off(node.destage(NEVER)) > 0
    assert segments_with_payloads(node) == [
        segment_id for segment_id, members in holders.items() if lost not in members
    ]
    await check(node, expected)


async def test_a_segment_with_a_damaged_replica_goes_at_once_and_is_whole_afterwards() -> None:
    node, expected = await loaded()
    victims = [segments_with_payloads(node)[1], segments_with_payloads(node)[-1]]
    assert victims[0] in sealed(node)
    assert victims[1] not in sealed(node)
    for entry in node.journaled():
        if entry.location.segment_id in victims:  # type: ignore[union-attr]
            record = next(
                each
                for each in node.segments()
                if each.segment_id == entry.location.segment_id  # type: ignore[union-attr]
            )
            device, zone = record.members[0]
            node.devices[ids.DeviceId(device)].rot(zone, entry.location.offset_bytes + 9)  # type: ignore[union-attr]
    found = media_records.ScrubRecord(
        5,
        -1,
        (),
        media_records.ScrubCounts(),
        media_records.ScrubCounts(),
        damaged_segments=tuple((segment_id, 1) for segment_id in victims),
    )

    def apply(txn: index_port.IndexWriter, _: commit_log.Placement) -> None:
        txn.put(media_records.SCRUB_KEY, media_records.pack(found))

    await node.submit(commit_log.Operation(apply=apply))
    before = segments_with_payloads(node)
    work = node.destage(NEVER)
    assert await work_off(work) > 0
    assert segments_with_payloads(node) == [each for each in before if each not in victims]
    await node.put("late", b"l" * 100)
    assert await work_off(work) == 0, "what is new in an open segment is whole"
    await check(node, {**expected, "late": b"l" * 100})


async def test_a_segment_on_a_retiring_device_goes_at_once() -> None:
    node, expected = await loaded()
    device = node.devices[ids.DeviceId(node.segments()[0].members[0][0])]
    device.retire()
    node.start()
    assert await work_off(node.destage(NEVER)) > 0
    for record in node.segments():
        if record.segment_id in segments_with_payloads(node):
            assert device.identity.device_id not in {found for found, _ in record.members}
    await check(node, expected)


async def test_stripes_are_full_across_segments() -> None:
    node, _ = await loaded()
    limits = destage.DestageLimits(log_bytes=0, age_seconds=1e9, idle_seconds=1e9)
    payload_bytes = 8000 * (100 - 15)
    stripes_count = await work_off(node.destage(limits))
    assert stripes_count <= 1 + -(-payload_bytes // (node.stripe_bytes - 12_096))


async def test_a_segment_with_a_damaged_payload_is_not_walked_over_and_over() -> None:
    node, expected = await loaded(30)
    broken = node.journaled()[3]
    assert isinstance(broken.location, l2p_record.JournalLocation)
    segment = node.segments()[0]
    for device_id, zone in segment.members:
        node.devices[ids.DeviceId(device_id)].rot(zone, broken.location.offset_bytes)
    limits = destage.DestageLimits(log_bytes=0, age_seconds=1e9, idle_seconds=1e9)
    work = node.destage(limits)
    assert await work_off(work) > 0
    assert broken in node.journaled()
    paced = node.paced_bytes
    node.seconds += destage.LOOK_AGAIN_SECONDS / 2
    assert await work_off(work) == 0
    assert node.paced_bytes == paced
    # The replica came back, say: the next look finds it.
    device_id, zone = segment.members[1]
    node.devices[ids.DeviceId(device_id)].rot(zone, broken.location.offset_bytes)
    node.seconds += destage.LOOK_AGAIN_SECONDS / 2
    assert await work_off(work) == 1
    await check(node, expected)


async def test_what_could_not_be_moved_is_moved_by_a_later_step() -> None:
    node, expected = await loaded()
    limits = destage.DestageLimits(log_bytes=0, age_seconds=1e9, idle_seconds=1e9)
    work = node.destage(limits)

    def refuse() -> None:
        raise errors.StoreFullError("no room")

    node.before_switch = refuse
    for _ in range(3):
        try:
            await work.step()
        except errors.StoreFullError:
            continue
        raise AssertionError("the step should have raised")
    node.before_switch = lambda: None
    assert await work_off(work) > 0
    assert not set(segments_with_payloads(node)) & set(sealed(node))
    await check(node, expected)


async def test_everything_goes_before_the_node_stops() -> None:
    node, expected = await loaded()
    is_stopping = False
    work = node.destage(NEVER, should_empty=lambda: is_stopping)
    assert await work_off(work) == 0
    is_stopping = True
    assert await work_off(work) > 0
    assert node.journaled() == []
    await check(node, expected)


async def test_a_walk_that_the_stop_cut_off_is_begun_again() -> None:
    node, expected = await loaded()
    is_stopping = False
    limits = destage.DestageLimits(log_bytes=0, age_seconds=1e9, idle_seconds=1e9)
    work = node.destage(limits, should_empty=lambda: is_stopping)
    await work.step()
    # What a cancelled step leaves of its walk: nothing more comes out of it.
    await work._evacuation._walk.aclose()  # type: ignore[union-attr]
    is_stopping = True
    assert await work_off(work) > 0
    assert node.journaled() == []
    await check(node, expected)
