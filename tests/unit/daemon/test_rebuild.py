"""Lost and damaged members come back, over devices in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
from shard_node import ShardNode

from couchestor_daemon.adapters import memory_device
from couchestor_daemon.formats import media_records, shard, zone_header
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import (
    group_sealer,
    rebuild,
    rebuild_lanes,
    shard_check,
    stripe_references,
    stripe_runs,
    zone_read_back,
)
from couchestor_daemon.services.catalogue import l2p
from couchestor_domain import errors, events, geometry, ids, units

SHAPE = geometry.StripeGeometry(4, 2)
DELAY_SECONDS = 300.0
RETRY_SECONDS = rebuild.LOOKS_PER_RETRY * rebuild.LOOK_SECONDS
ROOM_SECONDS = rebuild.LOOKS_PER_ROOM * rebuild.LOOK_SECONDS
RESURVEY_SECONDS = rebuild.LOOKS_PER_RESURVEY * rebuild.LOOK_SECONDS


class Bench(ShardNode):
    """A node whose rebuild runs by hand, and whose time stands still unless told."""

    def __init__(self, *, devices_count: int = 6, **other: Any) -> None:
        self.now_seconds = 1000.0
        super().__init__(SHAPE, devices_count=devices_count, **other)

    def start(self) -> None:
        super().start()
        self.work = rebuild.Rebuild(
            self.tools,
            submit=self.commits.submit,
            reserve_zones_count=0,
            delay_seconds=DELAY_SECONDS,
            publisher=self,
            now_seconds=lambda: self.now_seconds,
            now_ns=lambda: int(self.now_seconds * units.NS_PER_SECOND),
        )

    async def settle(self) -> None:
        """Step until there is nothing to do for some time."""
        for _ in range(10_000):
            if await self.work.step() >= rebuild.LOOK_SECONDS:
                return
        raise AssertionError("the rebuild never comes to rest")

    async def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now_seconds += seconds
        await self.settle()

    async def filled(self) -> list[ids.ExtentAddress]:
        """Stripes of many lengths in one sealed group."""
        lengths = [1, 60_000, 4096, 200_000, 16_384, 100_000, 333_333]
        addresses = [await self.put(length) for length in lengths]
        await self.seal()
        return addresses

    async def check(self) -> None:
        """Everything is whole again, and nothing else was changed."""
        assert self.missing_shards() == []
        assert self.repairs() == []
        await self.check_zones()
        await self.check_data()
        assert self.pool.lent_bytes == 0


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_a_damaged_member_moves_to_a_fresh_zone_of_its_device(bench: Bench) -> None:
    addresses = await bench.filled()
    before = bench.record()
    await bench.rot_and_queue(addresses[3], 1)
    await bench.settle()
    await bench.check()
    after = bench.record()
    assert [a != b for a, b in zip(before.members, after.members, strict=True)] == [
        index == 1 for index in range(6)
    ]
    assert after.members[1][0] == before.members[1][0]
    old = media_records.zone_addresses(before.members)[1]
    assert bench.zone_roles()[old] is zone_header.ZoneRole.LEFT
    assert bench.events_of(events.ReconstructionTriggered)[0].missing_shards == (1,)
    (done,) = bench.events_of(events.ReconstructionCompleted)
    assert done.group_id == after.group_id
    assert done.rebuilt_bytes > 100_000
    assert bench.work.progress.groups_rebuilt_count == 1
    assert bench.work.progress.groups_waiting_count == 0


async def test_the_other_shards_of_the_member_are_copied_not_decoded(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stripe_runs, "RUN_BYTES", 1)
    addresses = await bench.filled()
    await bench.rot_and_queue(addresses[0], 5)
    bench.paced_bytes = 0
    await bench.settle()
    # Of six other stripes one shard is read, written, and read back; not four more.
    assert bench.paced_bytes < 4 * bench.work.progress.done_bytes
    await bench.check()


async def test_several_damaged_members_are_rebuilt_in_one_walk(bench: Bench) -> None:
    addresses = await bench.filled()
    for address, index in ((addresses[1], 0), (addresses[2], 4)):
        await bench.rot_and_queue(address, index)
    await bench.settle()
    await bench.check()
    assert len(bench.events_of(events.ReconstructionCompleted)) == 1


@pytest.mark.parametrize("members", [(0,), (5,), (0, 1), (2, 5)])
async def test_lost_devices_are_replaced_by_spares(members: tuple[int, ...]) -> None:
    bench = Bench(devices_count=8)
    await bench.filled()
    lost = [ids.DeviceId(bench.record().members[index][0]) for index in members]
    for device_id in lost:
        bench.lose(device_id)
    await bench.settle()
    assert bench.record().members == bench.record().members
    assert not bench.events_of(events.ReconstructionTriggered)
    await bench.wait(DELAY_SECONDS - 1)
    assert not bench.events_of(events.ReconstructionTriggered)
    await bench.wait(2)
    await bench.check()
    assert not {device for device, _ in bench.record().members} & set(lost)
    assert not any(zone.device_id in lost for zone in bench.zone_roles())


async def test_an_empty_device_that_joins_takes_what_a_dead_one_held(bench: Bench) -> None:
    await bench.filled()
    dead = ids.DeviceId(bench.record().members[2][0])
    bench.lose(dead)
    await bench.settle()
    await bench.wait(DELAY_SECONDS + 1)
    assert bench.missing_shards(), "there was no device to go to"
    fresh = bench.add_device(9)
    bench.start()
    await bench.settle()
    await bench.wait(DELAY_SECONDS + 1)
    await bench.check()
    assert bench.record().members[2][0] == fresh


async def test_a_device_that_is_back_in_time_is_not_replaced() -> None:
    bench = Bench(devices_count=7)
    await bench.filled()
    before = bench.record()
    device_id = ids.DeviceId(before.members[0][0])
    device = bench.devices[device_id]
    bench.lose(device_id)
    await bench.settle()
    bench.devices[device_id] = device
    bench.start()
    await bench.settle()
    await bench.wait(2 * DELAY_SECONDS)
    assert bench.record() == before
    await bench.check()


async def test_a_spare_is_in_the_failure_domain_that_holds_least(bench: Bench) -> None:
    await bench.filled()
    bench.lose(ids.DeviceId(bench.record().members[0][0]))
    other = bench.record().members[1][0]
    shared = bench.devices[ids.DeviceId(other)].identity.failure_domain
    bench.add_device(10, domain=shared)
    apart = bench.add_device(11, domain="elsewhere")
    bench.start()
    await bench.settle()
    await bench.wait(DELAY_SECONDS + 1)
    await bench.check()
    assert bench.record().members[0][0] == apart


async def test_what_was_found_damaged_by_mistake_is_taken_off(bench: Bench) -> None:
    addresses = await bench.filled()
    before = bench.record()
    place = bench.location(addresses[2])
    await bench.queue_repair(place.group_id, place.stripe_offset_bytes, 1)
    await bench.queue_repair(place.group_id, place.stripe_offset_bytes, 5)
    await bench.queue_repair(place.group_id, shard_check.ZONE_HEADER_OFFSET, 0)
    await bench.settle()
    assert bench.record() == before
    await bench.check()


async def test_rot_where_nothing_leads_to_is_not_repaired(bench: Bench) -> None:
    addresses = await bench.filled()
    before = bench.record()
    await bench.rot_and_queue(addresses[3], 1)
    await bench.delete(addresses[3])
    await bench.settle()
    assert bench.record() == before
    assert bench.repairs() == []


async def test_a_group_that_is_about_to_be_released_is_left_alone() -> None:
    bench = Bench(devices_count=7)
    addresses = await bench.filled()
    before = bench.record()
    place = bench.location(addresses[3])
    bench.media.remove(ids.DeviceId(before.members[2][0]))
    await bench.queue_repair(place.group_id, place.stripe_offset_bytes, 2)
    for address in addresses:
        await bench.delete(address)
    await bench.settle()
    await bench.wait(DELAY_SECONDS + 1)
    assert bench.record() == before
    assert bench.events_of(events.ReconstructionTriggered) == []


async def test_repairs_of_groups_that_are_gone_are_dropped(bench: Bench) -> None:
    await bench.filled()
    await bench.queue_repair(999, 4096, 1)
    await bench.settle()
    await bench.check()


async def test_an_open_group_waits_until_it_is_sealed(bench: Bench) -> None:
    address = await bench.put(50_000)
    before = bench.record()
    await bench.rot_and_queue(address, 1)
    await bench.settle()
    assert bench.record() == before
    assert len(bench.repairs()) == 1
    await bench.seal()
    await bench.settle()
    await bench.check()


async def test_a_damaged_zone_header_is_written_anew_with_its_zone(bench: Bench) -> None:
    await bench.filled()
    record = bench.record()
    bench.content(media_records.zone_addresses(record.members)[3])[10] ^= 0xFF
    await bench.queue_repair(record.group_id, shard_check.ZONE_HEADER_OFFSET, 3)
    await bench.settle()
    await bench.check()
    assert bench.record().members[3] != record.members[3]


async def test_a_parity_that_verifies_but_is_wrong_is_not_copied(bench: Bench) -> None:
    addresses = await bench.filled()
    place = bench.location(addresses[3])
    zone = media_records.zone_addresses(bench.record().members)[4]
    content = bench.content(zone)
    start = place.stripe_offset_bytes
    header_bytes = shard.header_bytes(place.chunk_bytes)
    end = start + header_bytes + place.chunk_bytes
    content[start + header_bytes] ^= 0xFF
    header = shard.unpack(memoryview(bytes(content[start : start + header_bytes])))
    assert header is not None
    wrong = memoryview(bytes(content[start + header_bytes : end]))
    content[start : start + header_bytes] = shard.pack(
        header._replace(checksums=shard.checksums(wrong))
    )
    assert bench.missing_shards() == []
    await bench.queue_repair(place.group_id, start, 4)
    await bench.settle()
    await bench.check()
    # With two data shards away the parity is what is read.
    for index in (0, 1):
        bench.lose(ids.DeviceId(bench.record().members[index][0]))
    await bench.check_data()


async def test_lost_stripes_that_are_missed_end_the_rebuild_by_name(bench: Bench) -> None:
    addresses = await bench.filled()
    before = bench.record()
    for index in (0, 1, 2):
        await bench.rot_and_queue(addresses[1], index)
    await bench.settle()
    (failed,) = bench.events_of(events.ReconstructionFailed)
    offset = bench.location(addresses[1]).stripe_offset_bytes
    assert f"stripe {offset} of group {before.group_id}" in failed.reason
    assert "60000 live bytes are lost" in failed.reason
    assert bench.record() == before
    assert bench.work.progress.groups_failed_count == 1
    await bench.check_zones()
    # Once nothing leads to it any more, the rest gets its redundancy back.
    await bench.delete(addresses[1])
    await bench.rot_and_queue(addresses[3], 0)
    await bench.wait(RETRY_SECONDS + 1)
    await bench.check()


async def test_a_stripe_that_no_member_shows_is_lost_too(bench: Bench) -> None:
    addresses = await bench.filled()
    for index in range(6):
        bench.rot(addresses[1], index, inside_bytes=30)
    place = bench.location(addresses[1])
    await bench.queue_repair(place.group_id, place.stripe_offset_bytes, 0)
    before = bench.record()
    await bench.settle()
    (failed,) = bench.events_of(events.ReconstructionFailed)
    assert f"shows stripe {place.stripe_offset_bytes}: 60000 live bytes" in failed.reason
    assert bench.record() == before


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
async def test_torn_stripes_are_left_out(bench: Bench, packed: bool) -> None:
    """What a crash left: whole on one member, on the others nothing."""
    await bench.put(10_000)
    await bench.put(70_000, mapped=False, packed=packed)
    await bench.seal()
    record = bench.record()
    zones = media_records.zone_addresses(record.members)
    torn_bytes = shard.shard_bytes(SHAPE.chunk_bytes(70_000))
    for zone in zones[1:]:
        content = bench.content(zone)
        content[-torn_bytes:] = bytes(torn_bytes)
    await bench.queue_repair(record.group_id, shard_check.ZONE_HEADER_OFFSET, 3)
    bench.content(zones[3])[10] ^= 0xFF
    await bench.settle()
    await bench.check()


async def test_a_group_that_is_sealed_when_its_device_is_long_gone_is_not_kept_waiting() -> None:
    """As when a worker goes on in another group after a start without a device."""
    bench = Bench(devices_count=7)
    await bench.put(90_000)
    bench.lose(ids.DeviceId(bench.record().members[1][0]))
    await bench.settle()
    await bench.wait(DELAY_SECONDS + 1)
    assert bench.events_of(events.ReconstructionTriggered) == []
    await bench.change(lambda txn: group_sealer.seal(txn, bench.record().group_id))
    await bench.wait(RESURVEY_SECONDS)
    assert len(bench.events_of(events.ReconstructionCompleted)) == 1


async def test_packed_stripes_are_asked_what_they_hold_instead_of_the_whole_map(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.put(10_000)
    addresses = await bench.put_packed([5_000, 300, 70_000, 4_096])
    await bench.put_packed([9_000] * 7)
    await bench.change(lambda txn: l2p.punch(txn, ids.Extent(addresses[1], 300)))
    del bench.data[addresses[1]]
    await bench.seal()

    def search(index: index_port.IndexStore, group_id: int) -> NoReturn:
        raise AssertionError("the whole map was searched")

    monkeypatch.setattr(stripe_references, "search", search)
    for index in (0, 3):
        await bench.rot_and_queue(addresses[2], index)
    await bench.settle()
    assert len(bench.events_of(events.ReconstructionCompleted)) == 1
    await bench.check()


async def test_a_packed_stripe_that_is_missed_is_lost_by_name(bench: Bench) -> None:
    await bench.put(10_000)
    address = await bench.put(70_000, packed=True)
    await bench.seal()
    for index in (0, 1, 2):
        await bench.rot_and_queue(address, index)
    await bench.settle()
    (failed,) = bench.events_of(events.ReconstructionFailed)
    assert "70000 live bytes are lost" in failed.reason


async def test_the_most_endangered_group_comes_first() -> None:
    bench = Bench(devices_count=6)
    first = await bench.filled()
    second = [await bench.put(90_000)]
    await bench.seal()
    third = [await bench.put(90_000)]
    await bench.seal()
    await bench.rot_and_queue(first[0], 0)
    for index in (0, 1):
        await bench.rot_and_queue(second[0], index)
    await bench.rot_and_queue(third[0], 3)
    await bench.settle()
    order = [event.group_id for event in bench.events_of(events.ReconstructionCompleted)]
    ids_in_order = [bench.location(place[0]).group_id for place in (second, first, third)]
    assert order == ids_in_order
    await bench.check()


async def test_without_room_it_waits_and_says_so_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    await bench.filled()
    bench.lose(ids.DeviceId(bench.record().members[2][0]))
    await bench.settle()
    await bench.wait(DELAY_SECONDS + 1)
    await bench.wait(RESURVEY_SECONDS + ROOM_SECONDS + 1)
    said = [line for line in caplog.messages if "waits for its rebuild" in line]
    assert len(said) == 1
    assert "add a device" in said[0]
    assert bench.work.progress.groups_failed_count == 0
    bench.add_device(9)
    bench.start()
    await bench.settle()
    await bench.wait(DELAY_SECONDS + 1)
    await bench.check()


@pytest.mark.parametrize("member", [0, 3, 4, 5])
async def test_stripes_of_a_locally_repairable_code_too(member: int) -> None:
    bench = Bench(devices_count=7, codec="lrc")
    addresses = await bench.filled()
    await bench.rot_and_queue(addresses[2], member)
    await bench.settle()
    await bench.check()
    bench.lose(ids.DeviceId(bench.record().members[member][0]))
    await bench.settle()
    await bench.wait(DELAY_SECONDS + 1)
    await bench.check()


async def test_a_retiring_device_is_read_and_given_nothing(bench: Bench) -> None:
    addresses = await bench.filled()
    record = bench.record()
    retiring = bench.devices[ids.DeviceId(record.members[1][0])]
    assert isinstance(retiring, memory_device.MemoryDevice)
    retiring.write_identity(dataclasses.replace(retiring.identity, retiring=True))
    fresh = bench.add_device(9)
    bench.start()
    await bench.rot_and_queue(addresses[3], 1)
    await bench.settle()
    await bench.check()
    assert bench.record().members[1][0] == fresh


# -- cut off --------------------------------------------------------------------------------------


@pytest.fixture
def in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """One turn in each step."""
    monkeypatch.setattr(rebuild_lanes, "STEP_SECONDS", 0.0)


async def steps_until(bench: Bench, reached: Callable[[], bool]) -> None:
    for _ in range(1000):
        if reached():
            return
        await bench.work.step()
    raise AssertionError("that never happens")


async def test_the_zones_of_a_rebuild_cut_off_are_freed_by_the_next_process(
    bench: Bench, in_turns: None
) -> None:
    addresses = await bench.filled()
    before = bench.record()
    await bench.rot_and_queue(addresses[3], 1)
    await steps_until(bench, lambda: zone_header.ZoneRole.REBUILD in bench.zone_roles().values())
    bench.start()
    await bench.work.step()
    assert zone_header.ZoneRole.REBUILD not in bench.zone_roles().values() or (
        len([r for r in bench.zone_roles().values() if r is zone_header.ZoneRole.REBUILD]) == 1
    )
    await bench.settle()
    await bench.check()
    assert bench.record() != before


async def test_a_group_released_meanwhile_is_not_swapped(bench: Bench, in_turns: None) -> None:
    addresses = await bench.filled()
    before = bench.record()
    await bench.rot_and_queue(addresses[3], 1)
    await steps_until(bench, lambda: zone_header.ZoneRole.REBUILD in bench.zone_roles().values())
    for address in addresses:
        await bench.delete(address)
    await bench.settle()
    assert bench.record() == before
    await bench.check_zones()
    assert bench.repairs() == []
    assert bench.pool.lent_bytes == 0


async def test_a_fresh_zone_that_does_not_keep_its_bytes_is_not_swapped_in(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses = await bench.filled()
    before = bench.record()
    await bench.rot_and_queue(addresses[3], 1)
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
    assert bench.record() == before
    monkeypatch.undo()
    await bench.wait(ROOM_SECONDS + 1)
    await bench.check()


async def test_a_pool_without_memory_only_makes_it_wait(bench: Bench, in_turns: None) -> None:
    addresses = await bench.filled()
    await bench.rot_and_queue(addresses[3], 1)
    await steps_until(bench, lambda: zone_header.ZoneRole.REBUILD in bench.zone_roles().values())
    taken = []
    while (buffer := bench.pool.try_acquire(16 * units.KIB)) is not None:
        taken.append(buffer)
    started = len(bench.events_of(events.ReconstructionTriggered))
    assert await bench.work.step() > 0
    for buffer in taken:
        buffer.release()
    await bench.settle()
    assert len(bench.events_of(events.ReconstructionTriggered)) == started
    await bench.check()
