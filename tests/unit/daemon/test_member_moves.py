"""Members move between devices that are in service, over devices in memory."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import pytest
from shard_node import ShardNode

from couchestor_daemon.adapters import memory_device
from couchestor_daemon.formats import media_records, zone_header
from couchestor_daemon.services import (
    balance_survey,
    member_moves,
    rebuild,
    repair_queue,
    replacement_zones,
    zone_read_back,
)
from couchestor_domain import errors, events, geometry, ids, units

SHAPE = geometry.StripeGeometry(4, 2)
RETRY_SECONDS = member_moves.LOOKS_PER_RETRY * member_moves.LOOK_SECONDS


class Bench(ShardNode):
    """A node whose moves run by hand, and whose time stands still unless told."""

    def __init__(self, *, devices_count: int = 6, **other: Any) -> None:
        self.now_seconds = 1000.0
        self.must_wait = False
        self.shown: list[member_moves.Progress] = []
        super().__init__(SHAPE, devices_count=devices_count, **other)

    def start(self) -> None:
        super().start()
        self.rebuild = rebuild.Rebuild(
            self.tools,
            submit=self.commits.submit,
            reserve_zones_count=0,
            delay_seconds=300.0,
            publisher=self,
            now_seconds=lambda: self.now_seconds,
            now_ns=lambda: int(self.now_seconds * units.NS_PER_SECOND),
        )
        self.work = member_moves.MemberMoves(
            self.tools,
            zones=self.rebuild.zones,
            wanted=SHAPE,
            reserve_zones_count=0,
            limits=member_moves.Limits(gap_percent=10, dead_percent=50),
            must_wait=lambda: self.must_wait,
            publisher=self,
            now_seconds=lambda: self.now_seconds,
            report=self.shown.append,
        )

    async def settle(self) -> None:
        """Step until there is nothing to do for some time."""
        for _ in range(10_000):
            if await self.work.step() >= member_moves.LOOK_SECONDS:
                return
        raise AssertionError("the moves never come to rest")

    async def fill(self, groups_count: int) -> None:
        """Sealed groups whose zones are nearly full."""
        for _ in range(groups_count):
            for _ in range(3):
                await self.put(units.MIB)
            await self.seal()

    def retire(self, number: int) -> ids.DeviceId:
        """A device is to be emptied, from the next start on: which is now."""
        device = self.devices[ids.DeviceId(f"{number:032x}")]
        assert isinstance(device, memory_device.MemoryDevice)
        device.write_identity(dataclasses.replace(device.identity, retiring=True))
        self.start()
        return device.identity.device_id

    def used(self) -> Counter[ids.DeviceId]:
        """Members of groups by device."""
        return Counter(
            ids.DeviceId(device) for record in self.records() for device, _ in record.members
        )

    def will_copy(self, record: media_records.GroupRecord) -> bool:
        with self.index.read() as reader:
            return self.work.will_copy(reader, record)

    async def check(self) -> None:
        """Everything is whole."""
        assert self.missing_shards() == []
        await self.check_zones()
        await self.check_data()
        assert self.pool.lent_bytes == 0


async def steps_until_under_way(bench: Bench) -> None:
    while zone_header.ZoneRole.REBUILD not in bench.zone_roles().values():
        assert await bench.work.step() == 0.0, "nothing moves"


async def test_a_new_device_is_filled_and_then_nothing_moves_any_more() -> None:
    bench = Bench()
    await bench.fill(12)
    fresh = bench.add_device(6)
    bench.start()
    await bench.settle()
    await bench.check()
    used = bench.used()
    assert used[fresh] >= 8
    assert max(used.values()) - min(used.values()) <= 3
    moved_count = bench.work.progress.moved_count
    assert moved_count == used[fresh]
    assert bench.work.progress.balance_zones_count == 0
    assert max(shown.balance_zones_count for shown in bench.shown) >= 9
    # Old zones are still to be reset, and count as if they had been.
    assert Counter(bench.zone_roles().values())[zone_header.ZoneRole.LEFT] == moved_count
    await bench.settle()
    assert bench.work.progress.moved_count == moved_count
    # Another process does not see it otherwise: there is nothing to go back and forth.
    bench.start()
    await bench.settle()
    assert bench.work.progress.moved_count == 0
    assert not bench.events_of(events.ReconstructionTriggered)
    (last,) = bench.events_of(events.ZoneClosed)[-1:]
    assert (last.device_id, last.role) == (fresh, "group")


async def test_devices_that_are_nearly_equal_are_left_alone() -> None:
    bench = Bench()
    await bench.fill(3)
    bench.add_device(6)
    bench.start()
    await bench.settle()
    assert bench.work.progress.moved_count == 0


async def test_a_retiring_device_is_drained_by_copying() -> None:
    bench = Bench(devices_count=7)
    await bench.fill(4)
    leaving = bench.retire(2)
    concerned = [r for r in bench.records() if str(leaving) in dict(r.members)]
    assert concerned
    assert all(bench.will_copy(record) for record in concerned)
    written_before = {record.group_id: record.members for record in bench.records()}
    await bench.settle()
    await bench.check()
    assert bench.used()[leaving] == 0
    assert bench.work.progress.moved_count == len(concerned)
    for record in bench.records():
        before = written_before[record.group_id]
        changed = [a for a, b in zip(before, record.members, strict=True) if a != b]
        assert all(device == str(leaving) for device, _ in changed)
    # What is left of it waits for the grace of its zones and for the log.
    assert bench.work.progress.zones_left[leaving] >= len(concerned)


async def test_only_one_shard_is_read_for_each_that_moves() -> None:
    bench = Bench(devices_count=7)
    await bench.fill(1)
    leaving = ids.DeviceId(bench.record().members[0][0])
    bench.retire(int(leaving, 16))
    bench.paced_bytes = 0
    await bench.settle()
    assert bench.used()[leaving] == 0
    # Read, written, read back.
    assert bench.paced_bytes < 3.2 * bench.work.progress.moved_bytes


async def test_a_shard_that_has_rotted_is_decoded_on_the_way() -> None:
    bench = Bench(devices_count=7)
    address = await bench.put(units.MIB)
    for _ in range(2):
        await bench.put(units.MIB)
    await bench.seal()
    index = 3
    bench.retire(int(bench.record().members[index][0], 16))
    bench.rot(address, index)
    assert bench.missing_shards()
    await bench.settle()
    await bench.check()


async def test_without_a_spare_a_group_is_left_to_be_emptied() -> None:
    bench = Bench(devices_count=6)
    await bench.fill(2)
    leaving = bench.retire(2)
    assert not any(bench.will_copy(record) for record in bench.records())
    await bench.settle()
    assert bench.work.progress.moved_count == 0
    assert bench.used()[leaving] == 2


async def test_what_is_mostly_dead_or_waits_for_repair_is_left_to_others() -> None:
    bench = Bench(devices_count=7)
    addresses = [await bench.put(units.MIB) for _ in range(3)]
    await bench.seal()
    leaving = bench.retire(int(bench.record().members[1][0], 16))
    assert bench.will_copy(bench.record())
    await bench.rot_and_queue(addresses[0], 4)
    assert not bench.will_copy(bench.record())
    await bench.settle()
    assert bench.used()[leaving] == 1
    with bench.index.read() as reader:
        drop = repair_queue.drop(list(repair_queue.of_group(reader, bench.record().group_id)))
    await bench.change(drop)
    assert bench.will_copy(bench.record())
    await bench.delete(addresses[0])
    await bench.delete(addresses[1])
    assert not bench.will_copy(bench.record())
    await bench.settle()
    assert bench.used()[leaving] == 1


async def test_a_failure_domain_holds_no_more_members_than_before() -> None:
    bench = Bench()
    await bench.fill(12)
    bench.add_device(6, domain="d0")
    bench.start()
    await bench.settle()
    await bench.check()
    assert bench.used()[ids.DeviceId(f"{0:032x}")] < 12
    for record in bench.records():
        devices = {device for device, _ in record.members}
        assert not devices >= {f"{0:032x}", f"{6:032x}"}


async def test_a_group_that_changes_meanwhile_keeps_its_members() -> None:
    bench = Bench(devices_count=7)
    addresses = [await bench.put(units.MIB) for _ in range(3)]
    await bench.seal()
    bench.retire(int(bench.record().members[1][0], 16))
    before = bench.record()
    await steps_until_under_way(bench)
    place = bench.location(addresses[0])
    await bench.queue_repair(place.group_id, place.stripe_offset_bytes, 0)
    await bench.settle()
    assert bench.record() == before
    await bench.check_zones()


async def test_what_is_more_urgent_goes_first() -> None:
    bench = Bench(devices_count=7)
    await bench.fill(1)
    bench.retire(int(bench.record().members[1][0], 16))
    before = bench.record()
    await steps_until_under_way(bench)
    bench.must_wait = True
    await bench.settle()
    assert bench.record() == before
    await bench.check()
    bench.must_wait = False
    await bench.settle()
    assert bench.record() != before
    await bench.check()


async def test_a_rebuild_beside_it_leaves_its_zone_alone() -> None:
    bench = Bench(devices_count=7)
    await bench.fill(1)
    bench.retire(int(bench.record().members[1][0], 16))
    before = bench.record()
    await steps_until_under_way(bench)
    held = [z for z, role in bench.zone_roles().items() if role is zone_header.ZoneRole.REBUILD]
    await bench.rebuild.step()
    assert bench.zone_roles()[held[0]] is zone_header.ZoneRole.REBUILD
    await bench.settle()
    assert held[0] in media_records.zone_addresses(bench.record().members)
    assert bench.record() != before
    await bench.check()


async def test_what_an_earlier_process_took_is_given_back() -> None:
    bench = Bench(devices_count=7)
    await bench.fill(1)
    bench.retire(int(bench.record().members[1][0], 16))
    await steps_until_under_way(bench)
    bench.start()
    bench.must_wait = True
    await bench.settle()
    assert zone_header.ZoneRole.REBUILD not in bench.zone_roles().values()
    await bench.check()


async def test_a_target_that_does_not_hold_what_was_written_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(devices_count=7)
    await bench.fill(1)
    bench.retire(int(bench.record().members[1][0], 16))
    before = bench.record()
    honest = zone_read_back.ZoneReadBack.advance

    async def rotten(
        self: zone_read_back.ZoneReadBack, until_seconds: float, *, run_bytes: int
    ) -> None:
        (zone,) = self._fresh.values()
        bench.content(zone)[-1] ^= 0xFF
        await honest(self, until_seconds, run_bytes=run_bytes)

    monkeypatch.setattr(zone_read_back.ZoneReadBack, "advance", rotten)
    with pytest.raises(errors.DeviceIoError, match="just written there"):
        await bench.settle()
    monkeypatch.undo()
    assert bench.record() == before
    # Not tried again at once, and left to be emptied meanwhile.
    await bench.settle()
    assert bench.record() == before
    assert not bench.will_copy(before)
    await bench.check()
    bench.now_seconds += RETRY_SECONDS + 1
    await bench.settle()
    assert bench.record() != before
    await bench.check()


async def test_zones_that_others_take_first_are_not_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(devices_count=7)
    await bench.fill(1)
    bench.retire(int(bench.record().members[1][0], 16))

    async def full(self: replacement_zones.ReplacementZones, *args: Any, **kwargs: Any) -> None:
        raise errors.StoreFullError("taken")

    monkeypatch.setattr(replacement_zones.ReplacementZones, "take", full)
    assert await bench.work.step() == member_moves.LOOK_SECONDS
    monkeypatch.undo()
    await bench.settle()
    assert bench.work.progress.moved_count == 1


async def test_an_index_of_many_groups_is_looked_through_in_slices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(balance_survey, "GROUPS_PER_SLICE", 2)
    bench = Bench()
    await bench.fill(11)
    fresh = bench.add_device(6)
    bench.start()
    await bench.settle()
    assert bench.used()[fresh] >= 7
    await bench.check()
