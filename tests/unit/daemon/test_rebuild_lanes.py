"""Several groups rebuilt at the same time, over devices in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import lost_device_node
import pytest
from lost_device_node import LOST, LostDeviceNode

from couchestor_daemon import buffers
from couchestor_daemon.formats import media_records, shard, zone_header
from couchestor_daemon.services import (
    background,
    group_scrub,
    group_walk,
    member_rebuild,
    rebuild,
    rebuild_lanes,
    rebuild_order,
    run_shards,
    stripe_runs,
    zone_read_back,
)
from couchestor_domain import errors, events, ids


@pytest.fixture
async def bench() -> LostDeviceNode:
    made = LostDeviceNode()
    await made.fill()
    return made


@pytest.fixture
def in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """One turn of each lane, and one run in each turn."""
    monkeypatch.setattr(rebuild_lanes, "STEP_SECONDS", 0.0)
    monkeypatch.setattr(stripe_runs, "RUN_BYTES", 1)


async def test_groups_are_rebuilt_side_by_side_each_once(bench: LostDeviceNode) -> None:
    before = {record.group_id: record for record in bench.records()}
    lost = bench.of_device(LOST)
    bench.lose(LOST)
    await bench.settle()
    assert bench.rebuilt_at_once_max == rebuild_order.GROUPS_AT_ONCE
    done = bench.groups_of(events.ReconstructionCompleted)
    assert sorted(done) == sorted(bench.groups_of(events.ReconstructionTriggered)) == sorted(lost)
    for record in bench.records():
        changed = [
            old for old, new in zip(before[record.group_id].members, record.members, strict=True)
            if old != new
        ]  # fmt: skip
        assert [device for device, _ in changed] == [LOST] * (record.group_id in lost)
    assert bench.work.progress.groups_rebuilt_count == len(lost)
    assert bench.work.progress.left_bytes == 0
    assert max(told.groups_waiting_count for told in bench.told) == len(lost)
    await bench.check()


async def test_no_more_begin_than_may_and_in_the_order_of_the_queue(
    bench: LostDeviceNode, in_turns: None
) -> None:
    lost = bench.lost_groups()
    bench.lose(LOST)
    while await bench.work.step() < rebuild.LOOK_SECONDS:
        assert len(set(bench.fresh_zones().values())) == len(bench.fresh_zones())
        assert len(bench.fresh_zones()) <= rebuild_order.GROUPS_AT_ONCE
    assert bench.groups_of(events.ReconstructionTriggered) == lost
    await bench.check()


@pytest.mark.parametrize("reserve_count", [0, 3])
async def test_zones_of_the_reserve_are_left_by_all_together(
    monkeypatch: pytest.MonkeyPatch, reserve_count: int
) -> None:
    monkeypatch.setattr(LostDeviceNode, "reserve_zones_count", reserve_count)
    bench = LostDeviceNode(devices_count=6)
    await bench.fill()
    bench.lose(LOST)
    spare = bench.add_device(20)
    zones_count = bench.devices[spare].identity.zone_count
    room_count = 2
    taken = zones_count - reserve_count - room_count

    def take(txn: Any) -> None:
        for number in range(taken):
            zone = ids.ZoneAddress(spare, ids.ZoneIndex(zones_count - 1 - number))
            txn.put(
                media_records.zone_key(zone),
                media_records.pack(
                    media_records.ZoneRecord(int(zone_header.ZoneRole.SEGMENT), 1 << 40)
                ),
            )

    await bench.change(take)
    bench.start()
    await bench.settle()
    assert len(bench.events_of(events.ReconstructionCompleted)) == room_count
    roles = [zone for zone in bench.zone_roles() if zone.device_id == spare]
    assert len(roles) == len(set(roles)) == room_count
    assert not bench.fresh_zones()
    await bench.check_data()


async def test_what_one_group_fails_of_does_not_stop_the_others(
    bench: LostDeviceNode,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    in_turns: None,
) -> None:
    lost = bench.lost_groups()
    bench.lose(LOST)
    honest = zone_read_back.ZoneReadBack.advance

    async def rotten(
        self: zone_read_back.ZoneReadBack, until_seconds: float, *, run_bytes: int
    ) -> None:
        if self._record.group_id == lost[0]:
            raise errors.DeviceIoError("it is not what was written")
        await honest(self, until_seconds, run_bytes=run_bytes)

    monkeypatch.setattr(zone_read_back.ZoneReadBack, "advance", rotten)
    await bench.settle()
    assert bench.groups_of(events.ReconstructionFailed) == lost[:1]
    assert sorted(bench.groups_of(events.ReconstructionCompleted)) == lost[1:]
    # The others went on with the zones they had, and the zone of the failed one is free again.
    assert sorted(bench.groups_of(events.ReconstructionTriggered)) == lost
    assert not bench.fresh_zones()
    assert [line for line in caplog.messages if "it is not what was written" in line] == [
        "one group waits for its rebuild, others go on: it is not what was written"
    ]
    monkeypatch.undo()
    bench.now_seconds += rebuild.LOOKS_PER_ROOM * rebuild.LOOK_SECONDS
    await bench.settle()
    await bench.check()


async def test_lost_stripes_of_one_group_do_not_stop_the_others_either(
    bench: LostDeviceNode,
) -> None:
    lost = bench.lost_groups()
    bench.lose(LOST)
    address = next(a for a in bench.data if bench.location(a).group_id == lost[0])
    for index in [i for i, (device, _) in enumerate(bench.records()[0].members) if device != LOST][
        :3
    ]:
        bench.rot(address, index)
    await bench.settle()
    assert bench.groups_of(events.ReconstructionFailed) == lost[:1]
    assert sorted(bench.groups_of(events.ReconstructionCompleted)) == lost[1:]
    assert bench.work.progress.groups_failed_count == 1


async def test_when_all_fail_the_step_says_so(
    bench: LostDeviceNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.lose(LOST)

    async def rotten(*told: Any, **named: Any) -> None:
        raise errors.DeviceIoError("it is not what was written")

    monkeypatch.setattr(zone_read_back.ZoneReadBack, "advance", rotten)
    with pytest.raises(errors.DeviceIoError, match="not what was written"):
        await bench.settle()
    monkeypatch.undo()
    bench.now_seconds += rebuild.LOOKS_PER_ROOM * rebuild.LOOK_SECONDS
    await bench.settle()
    await bench.check()


async def test_a_bug_in_one_ends_the_step_and_gives_all_up(
    bench: LostDeviceNode, monkeypatch: pytest.MonkeyPatch, in_turns: None
) -> None:
    bench.lose(LOST)
    await bench.steps_until(lambda: len(bench.fresh_zones()) == rebuild_order.GROUPS_AT_ONCE)

    async def broken(*told: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(member_rebuild.MemberRebuild, "_write", broken)
    with pytest.raises(ZeroDivisionError):
        await bench.work.step()
    assert bench.pool.lent_bytes == 0
    monkeypatch.undo()
    bench.now_seconds += lost_device_node.RESURVEY_SECONDS
    await bench.settle()
    await bench.check()


async def test_a_survey_does_not_begin_again_what_is_under_way(
    bench: LostDeviceNode, monkeypatch: pytest.MonkeyPatch, in_turns: None
) -> None:
    lost = bench.of_device(LOST)
    slow = sorted(lost)[1]
    honest = member_rebuild.MemberRebuild.advance
    turns_count = 0

    async def advance(
        self: member_rebuild.MemberRebuild, *, until_seconds: float | None = None
    ) -> bool:
        """One of them takes longer than all the others."""
        nonlocal turns_count
        if self.record.group_id == slow and turns_count < 40:
            turns_count += 1
            return False
        return await honest(self, until_seconds=until_seconds)

    monkeypatch.setattr(member_rebuild.MemberRebuild, "advance", advance)
    bench.lose(LOST)
    await bench.steps_until(lambda: len(bench.fresh_zones()) == rebuild_order.GROUPS_AT_ONCE)
    joined = bench.add_device(30)
    bench.media.admit(bench.devices[joined])
    bench.media.employ(joined)
    await bench.work.step()
    assert len(bench.fresh_zones()) == rebuild_order.GROUPS_AT_ONCE
    await bench.settle()
    assert sorted(bench.groups_of(events.ReconstructionTriggered)) == sorted(lost)
    await bench.check()


# -- cut off --------------------------------------------------------------------------------------


async def test_a_step_that_is_cancelled_anywhere_leaves_nothing_wrong(
    bench: LostDeviceNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stripe_runs, "RUN_BYTES", 1)
    bench.lose(LOST)
    cancelled_count = 0
    for turns_count in range(0, 120, 2):
        task = asyncio.ensure_future(bench.work.step())
        for _ in range(turns_count):
            await asyncio.sleep(0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            cancelled_count += 1
        assert bench.pool.lent_bytes == 0, turns_count
        assert len(bench.fresh_zones()) <= 2 * rebuild_order.GROUPS_AT_ONCE, turns_count
        bench.now_seconds += lost_device_node.RESURVEY_SECONDS
    assert cancelled_count > 20
    await bench.settle()
    await bench.check()


async def test_a_stop_ends_all_lanes(bench: LostDeviceNode) -> None:
    bench.lose(LOST)
    stop = asyncio.Event()
    runner = asyncio.ensure_future(background.BackgroundRunner([bench.work]).run(stop))
    await bench.has_begun_all.wait()
    stop.set()
    await runner
    assert bench.pool.lent_bytes == 0
    assert len(asyncio.all_tasks()) == 1
    bench.start()
    await bench.settle()
    await bench.check()


# -- memory ---------------------------------------------------------------------------------------


async def test_with_memory_for_one_run_they_go_on_one_after_the_other(
    bench: LostDeviceNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stripe_runs, "RUN_BYTES", 1)
    run_bytes = run_of(bench)
    lost = bench.lost_groups()
    bench.pool = buffers.BufferPool(run_bytes)
    bench.start_rebuild()
    bench.lose(LOST)
    waits = [await bench.work.step()]
    while waits[-1] < rebuild.LOOK_SECONDS:
        waits.append(await bench.work.step())
    assert set(waits) == {0.0, rebuild.LOOK_SECONDS}, "all of them were refused memory"
    # Those that wait for it are not passed by later ones.
    assert bench.groups_of(events.ReconstructionCompleted) == lost
    await bench.check()


async def test_a_scrub_beside_them_is_never_refused_memory(
    bench: LostDeviceNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pool that the lanes would take all of, if each took its first run whatever that leaves."""
    monkeypatch.setattr(stripe_runs, "RUN_BYTES", 1)
    monkeypatch.setattr(group_scrub, "RUN_BYTES", 1)
    monkeypatch.setattr(run_shards, "PARITY_SLICE_BYTES", 4096)
    run_bytes = run_of(bench)
    bench.pool = buffers.BufferPool(3 * run_bytes + run_bytes // 2)
    bench.start_rebuild()
    record = next(r for r in bench.records() if LOST not in dict(r.members))
    zones = media_records.zone_addresses(record.members)
    end_bytes = group_walk.end_bytes(bench.media, zones)
    bench.lose(LOST)
    passes_count = 0

    async def scrub_on() -> None:
        nonlocal passes_count
        while True:
            scrubbing = group_scrub.GroupScrub(bench.tools, record, end_bytes=end_bytes)
            while not scrubbing.ended:
                await scrubbing.advance()
            passes_count += 1

    scrub = asyncio.ensure_future(scrub_on())
    waits = [0.0]
    try:
        while waits[-1] < rebuild.LOOK_SECONDS:
            waits.append(await bench.work.step())
    finally:
        scrub.cancel()
    with pytest.raises(asyncio.CancelledError):
        await scrub  # OverloadedError, if it was refused memory.
    assert set(waits) == {0.0, rebuild.LOOK_SECONDS}, "all of them were refused memory"
    assert passes_count > 0
    await bench.check()


def run_of(bench: LostDeviceNode) -> int:
    """Memory of a run of one stripe."""
    place = bench.location(next(iter(bench.data)))
    shard_bytes = shard.shard_bytes(place.chunk_bytes)
    return buffers.size_class_bytes(lost_device_node.SHAPE.shards_count * shard_bytes)


def parts(whole: buffers.BufferPool, count: int) -> Sequence[buffers.PoolPart]:
    return [buffers.PoolPart(whole) for _ in range(count)]


def test_a_part_of_a_pool_takes_all_it_can_only_while_it_has_nothing() -> None:
    whole = buffers.BufferPool(4 * 4096)
    mine, other = parts(whole, 2)
    first = mine.acquire(4096)
    second = mine.acquire(4096)
    third = mine.acquire(4096)
    assert (mine.lent_bytes, other.lent_bytes, whole.lent_bytes) == (3 * 4096, 0, 3 * 4096)
    with pytest.raises(errors.OverloadedError, match="12288 of 16384 bytes"):
        mine.acquire(4096)
    others = other.acquire(4096)
    assert other.try_acquire(4096) is None
    for buffer in (first, second, third, others):
        buffer.release()
        buffer.release()
    assert (mine.lent_bytes, other.lent_bytes, whole.lent_bytes) == (0, 0, 0)
