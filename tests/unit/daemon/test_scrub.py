"""A scrub finds what is damaged before a reader does, over devices in memory."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Callable
from typing import Any

import pytest
from shard_node import ShardNode

from couchestor_daemon.adapters import simulated_device
from couchestor_daemon.formats import l2p_record, media_records, shard, zone_header
from couchestor_daemon.services import (
    commit_log,
    group_scrub,
    group_walk,
    log_damage,
    rebuild,
    scrub,
    scrub_position,
    segment_scrub,
    shard_check,
)
from couchestor_domain import errors, events, geometry, ids, units

SHAPE = geometry.StripeGeometry(4, 2)
PERIOD_SECONDS = 1000.0
LENGTHS = (1, 60_000, 4096, 200_000, 16_384, 100_000, 333_333)


class Bench(ShardNode):
    """A node whose scrub runs by hand, on a clock that moves only when it is told to."""

    def __init__(self, *, devices_count: int = 6, **other: Any) -> None:
        self.now_seconds = 5000.0
        super().__init__(SHAPE, devices_count=devices_count, **other)

    def start(self) -> None:
        super().start()
        self.reports: list[media_records.ScrubRecord] = []
        self.work = scrub.Scrub(
            self.tools,
            submit=self.commits.submit,
            period_seconds=PERIOD_SECONDS,
            publisher=self,
            now_seconds=lambda: self.now_seconds,
            now_ns=lambda: int(self.now_seconds * units.NS_PER_SECOND),
            report=self.reports.append,
        )

    @property
    def counts(self) -> media_records.ScrubCounts:
        """Of the pass under way or just ended."""
        return self.work.record.counts

    async def scrub(self) -> None:
        """One pass, however long that takes; from the beginning, after one that has ended."""
        if self.work.record.phase == scrub_position.Phase.WAITING:
            self.now_seconds += PERIOD_SECONDS
        for _ in range(10_000):
            self.now_seconds += await self.work.step()
            if self.work.record.phase == scrub_position.Phase.WAITING and self.counts.ended_ns:
                return
        raise AssertionError("the scrub never ends")

    async def filled(self, *, sealed: bool = True) -> list[ids.ExtentAddress]:
        """Stripes of many lengths in one group."""
        addresses = [await self.put(length) for length in LENGTHS]
        if sealed:
            await self.seal()
        return addresses

    async def rebuild(self) -> None:
        """What the rebuild makes of the findings."""
        work = rebuild.Rebuild(
            self.tools,
            submit=self.commits.submit,
            reserve_zones_count=0,
            delay_seconds=0.0,
            publisher=self,
            now_seconds=lambda: self.now_seconds,
            now_ns=lambda: 1,
            on_repaired=self.work.repaired,
        )
        while await work.step() < rebuild.LOOK_SECONDS:
            continue


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_a_pass_over_what_is_whole_reads_all_and_finds_nothing(bench: Bench) -> None:
    await bench.filled()
    await bench.put(70_000)
    small = [await bench.put_small(length) for length in (10, 5000, 100_000)]
    await bench.scrub()
    assert bench.counts.shards_count == 6 * (len(LENGTHS) + 1)
    assert (bench.counts.damaged_count, bench.counts.findings_count) == (0, 0)
    assert bench.repairs() == []
    assert not bench.events_of(events.ShardFailed)
    assert bench.counts.read_bytes > 6 * sum(LENGTHS) // 4 + 3 * 105_010
    assert bench.reports[-1].counts == bench.counts
    assert bench.pool.lent_bytes == 0
    assert small


@pytest.mark.parametrize("sealed", [True, False], ids=["sealed", "open"])
@pytest.mark.parametrize("index", [0, 3, 5])
@pytest.mark.parametrize("inside_bytes", [30, 5000], ids=["header", "chunk"])
async def test_rot_is_queued_for_repair(
    bench: Bench, index: int, inside_bytes: int, sealed: bool
) -> None:
    addresses = await bench.filled(sealed=sealed)
    bench.rot(addresses[3], index, inside_bytes=inside_bytes)
    place = bench.location(addresses[3])
    await bench.scrub()
    assert bench.repairs() == [(place.group_id, place.stripe_offset_bytes, index)]
    (failed,) = bench.events_of(events.ShardFailed)
    assert failed.device_id == bench.record().members[index][0]
    assert bench.counts.damaged_count == 1
    await bench.scrub()
    assert len(bench.events_of(events.ShardFailed)) == 1, "it is known already"


async def test_what_a_scrub_finds_the_rebuild_brings_back(bench: Bench) -> None:
    addresses = await bench.filled()
    for address, index in zip(addresses[1:], (0, 5, 1, 0, 5, 1), strict=True):
        bench.rot(address, index)
    await bench.scrub()
    assert bench.counts.damaged_count == 6
    await bench.rebuild()
    assert bench.missing_shards() == []
    assert bench.repairs() == []
    await bench.check_zones()
    await bench.scrub()
    assert (bench.counts.damaged_count, bench.counts.findings_count) == (0, 0)
    assert bench.work.record.last.damaged_count == 6


async def test_the_report_tells_what_was_rebuilt_since_the_last_one(bench: Bench) -> None:
    addresses = await bench.filled()
    for index in (1, 4):
        bench.rot(addresses[3], index)
    bench.rot(addresses[1], 1)
    await bench.scrub()
    assert (bench.counts.damaged_count, bench.counts.repaired_count) == (3, 0)
    await bench.rebuild()
    assert bench.work.record.repaired_count == 3
    await bench.work.step()  # In the index by now, so that a restart goes on counting.
    bench.start()
    await bench.scrub()
    assert (bench.counts.damaged_count, bench.counts.repaired_count) == (0, 3)
    assert bench.work.record.repaired_count == 0
    assert bench.work.record.last.damaged_count == 3


async def test_a_record_of_before_is_read(bench: Bench) -> None:
    """Without what was rebuilt, and without segments."""
    old = media_records.VERSION + media_records.ENCODER.encode(
        [5, -1, [], [1, 2, 3, 4, 5, 6], [0, 0, 0, 0, 0, 0]]
    )
    record = media_records.unpack(media_records.ScrubRecord, old)
    assert record.counts == media_records.ScrubCounts(1, 2, 3, 4, 5, 6)
    assert (record.repaired_count, record.damaged_segments) == (0, ())
    await bench.change(lambda txn: txn.put(media_records.SCRUB_KEY, old))
    bench.start()
    assert bench.work.record.counts.findings_count == 6


async def test_rot_that_nobody_misses_is_left_alone(bench: Bench) -> None:
    addresses = await bench.filled()
    for index in range(6):
        bench.rot(addresses[3], index)
    await bench.delete(addresses[3])
    await bench.scrub()
    assert bench.repairs() == []
    assert bench.counts.damaged_count == 0


async def test_a_stripe_that_is_being_written_is_not_damaged(bench: Bench) -> None:
    """Its shards are on some members, and nothing leads to it yet."""
    await bench.put(20_000)
    await bench.put(200_000, mapped=False)
    zone = media_records.zone_addresses(bench.record().members)[2]
    content = bench.content(zone)
    content[-50_000:] = bytes(50_000)
    await bench.scrub()
    assert bench.repairs() == []
    assert bench.counts.damaged_count == 0


async def test_a_read_that_fails_once_is_no_damage() -> None:
    bench = Bench(world=simulated_device.SimulatedWorld(1), zone_bytes=units.MIB)
    await bench.filled()
    device = bench.devices[ids.DeviceId(bench.record().members[4][0])]
    assert isinstance(device, simulated_device.SimulatedDevice)
    await bench.work.step()
    device.fail_next_read(1)
    await bench.scrub()
    assert bench.repairs() == []


async def test_a_wrong_parity_is_found_although_every_checksum_fits(bench: Bench) -> None:
    addresses = await bench.filled()
    place = bench.location(addresses[3])
    content = bench.content(media_records.zone_addresses(bench.record().members)[5])
    start, header_bytes = place.stripe_offset_bytes, shard.header_bytes(place.chunk_bytes)
    end = start + header_bytes + place.chunk_bytes
    content[start + header_bytes] ^= 0xFF
    header = shard.unpack(memoryview(bytes(content[start : start + header_bytes])))
    assert header is not None
    wrong = shard.checksums(memoryview(bytes(content[start + header_bytes : end])))
    content[start : start + header_bytes] = shard.pack(header._replace(checksums=wrong))
    await bench.scrub()
    assert bench.repairs() == [(place.group_id, start, 5)]
    await bench.rebuild()
    await bench.scrub()
    assert bench.counts.damaged_count == 0
    assert bench.repairs() == []


async def test_a_lost_zone_header_and_a_lost_zone_are_found(bench: Bench) -> None:
    await bench.filled()
    group = bench.record().group_id
    zones = media_records.zone_addresses(bench.record().members)
    bench.content(zones[1])[10] ^= 0xFF
    bench.devices[zones[2].device_id].reset(zones[2].zone_index)
    await bench.scrub()
    assert (group, shard_check.ZONE_HEADER_OFFSET, 1) in bench.repairs()
    of_zone = [row for row in bench.repairs() if row[2] == 2]
    assert len(of_zone) == scrub.REPAIRS_PER_MEMBER_MAX
    assert bench.counts.damaged_count == 1 + 1 + len(LENGTHS)
    await bench.rebuild()
    assert bench.missing_shards() == []
    await bench.check_zones()


async def test_members_on_devices_that_are_away_are_not_its_business(bench: Bench) -> None:
    await bench.filled()
    bench.lose(ids.DeviceId(bench.record().members[2][0]))
    await bench.scrub()
    assert bench.repairs() == []
    assert bench.counts.shards_count == 5 * len(LENGTHS)


async def test_a_stripe_that_no_member_shows_is_told(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    addresses = await bench.filled()
    for index in range(6):
        bench.rot(addresses[1], index, inside_bytes=30)
    await bench.scrub()
    offset = bench.location(addresses[1]).stripe_offset_bytes
    (line,) = [line for line in caplog.messages if "are lost" in line]
    assert f"shows stripe {offset};" in line
    assert f"60000 bytes at address {addresses[1]}" in line
    assert bench.counts.findings_count == 1


# -- the log --------------------------------------------------------------------------------------


async def test_rot_in_live_batches_of_the_log_is_told(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    addresses = [await bench.put_small(20_000) for _ in range(5)]
    record = bench.segment_of(addresses[2])
    zones = media_records.zone_addresses(record.members)
    place = bench.journal(addresses[2])
    bench.content(zones[1])[place.offset_bytes + 7] ^= 0xFF
    dead = bench.journal(addresses[4])
    bench.content(zones[0])[dead.offset_bytes + 7] ^= 0xFF
    await bench.forget(addresses[4])
    await bench.scrub()
    (line,) = [line for line in caplog.messages if "does not verify on" in line]
    assert zones[1].device_id in line
    assert "20000 live bytes" in line
    assert bench.counts.findings_count == 1


async def test_a_batch_that_is_read_while_it_is_written_is_not_damaged(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is on the first replica when the window is read, and on all when the index is asked."""
    address = await bench.put_small(20_000)
    place = bench.journal(address)
    late = media_records.zone_addresses(bench.segment_of(address).members)[1]
    honest, reads = bench.media.read, 0

    async def read(
        zone: ids.ZoneAddress,
        offset_bytes: int,
        buffer: memoryview,
        *,
        past_cache: bool = False,
        in_place: bool = False,
    ) -> None:
        nonlocal reads
        await honest(zone, offset_bytes, buffer, past_cache=past_cache)
        if zone == late and offset_bytes + len(buffer) > place.offset_bytes:
            reads += 1
            if reads == 1:
                buffer[place.offset_bytes - offset_bytes :] = bytes(
                    len(buffer) - (place.offset_bytes - offset_bytes)
                )

    monkeypatch.setattr(bench.media, "read", read)
    await bench.scrub()
    assert reads == 2
    assert bench.counts.findings_count == 0


async def test_segments_with_a_damaged_replica_are_remembered_until_a_pass_finds_them_whole(
    bench: Bench,
) -> None:
    address = await bench.put_small(20_000)
    zone = media_records.zone_addresses(bench.segment_of(address).members)[1]
    bench.content(zone)[bench.journal(address).offset_bytes + 7] ^= 0xFF
    await bench.scrub()
    segment_id = bench.segment_of(address).segment_id
    with bench.index.read() as reader:
        assert list(log_damage.segments(reader)) == [segment_id]
        needed = log_damage.last_sequence(reader)
        assert 0 < needed <= commit_log.applied_sequence(reader)
    bench.start()
    bench.content(zone)[bench.journal(address).offset_bytes + 7] ^= 0xFF
    await bench.scrub()
    with bench.index.read() as reader:
        assert log_damage.segments(reader) == {}


async def test_a_batch_of_mutations_counts_until_a_checkpoint_holds_it(bench: Bench) -> None:
    address = await bench.put_small(20_000)
    record = bench.segment_of(address)
    zone = media_records.zone_addresses(record.members)[2]
    begin = len(bench.content(zone))
    await bench.change(lambda txn: txn.put(b"xx", b"v"))
    bench.content(zone)[begin + 20] ^= 0xFF
    await bench.scrub()
    assert bench.counts.findings_count == 0
    with bench.index.read() as reader:
        damaged = log_damage.last_sequence(reader)
    assert damaged
    complete = int(media_records.CheckpointState.COMPLETE)
    image = media_records.CheckpointRecord(9, complete, 1, ((),), sequence=damaged)
    await bench.change(
        lambda txn: txn.put(media_records.checkpoint_key(9), media_records.pack(image))
    )
    await bench.scrub()
    with bench.index.read() as reader:
        assert log_damage.last_sequence(reader) == 0


async def test_a_payload_that_is_on_no_replica_is_told(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    addresses = [await bench.put_small(20_000) for _ in range(3)]
    await bench.seal_segments()
    record = bench.segment_of(addresses[1])
    place = bench.journal(addresses[1])
    for zone in media_records.zone_addresses(record.members):
        bench.content(zone)[place.offset_bytes + 7] ^= 0xFF
    await bench.scrub()
    (line,) = [line for line in caplog.messages if "verify on no replica" in line]
    assert line.startswith("scrub: 20000 live bytes")


async def test_a_segment_header_that_is_lost_is_told(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    address = await bench.put_small(20_000)
    zone = media_records.zone_addresses(bench.segment_of(address).members)[2]
    bench.content(zone)[10] ^= 0xFF
    await bench.scrub()
    assert [line for line in caplog.messages if f"has no header on device {zone.device_id}" in line]


async def test_a_segment_that_is_being_released_has_lost_nothing(bench: Bench) -> None:
    """Its zones are reset and its record is still there, as after a crash between the two."""
    address = await bench.put_small(20_000)
    await bench.seal_segments()
    record = bench.segment_of(address)
    for zone in media_records.zone_addresses(record.members):
        bench.content(zone)[10] ^= 0xFF
    await bench.forget(address)
    await bench.scrub()
    assert bench.counts.findings_count == 3, "a recovery needs it"
    with bench.index.read() as reader:
        sequence = int(commit_log.applied_sequence(reader))
    complete = int(media_records.CheckpointState.COMPLETE)
    held = (record.segment_id, 8192)
    for number, open_segments in ((9, (held,)), (10, ())):
        image = media_records.CheckpointRecord(
            number, complete, 1, ((),), sequence=sequence + number, open_segments=open_segments
        )
        await bench.change(
            lambda txn, image=image: txn.put(  # type: ignore[misc]
                media_records.checkpoint_key(image.checkpoint_id), media_records.pack(image)
            )
        )
        await bench.scrub()
        # The checkpoint is a record alone, which is told once.
        assert bench.counts.findings_count == (3 if open_segments else 0) + 1


async def test_batches_longer_than_a_window_are_read(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segment_scrub, "WINDOW_BYTES", 8192)
    addresses = [await bench.put_small(length) for length in (100, 90_000, 7000, 30_000)]
    await bench.seal_segments()
    bench.start()
    await bench.scrub()
    assert bench.counts.findings_count == 0
    zone = media_records.zone_addresses(bench.segment_of(addresses[1]).members)[0]
    bench.content(zone)[bench.journal(addresses[1]).offset_bytes + 80_000] ^= 0xFF
    await bench.scrub()
    assert bench.counts.findings_count == 1


# -- the index ------------------------------------------------------------------------------------


async def test_tables_that_do_not_fit_one_another_are_told(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    await bench.filled()
    stray = ids.ZoneAddress(next(iter(bench.devices)), ids.ZoneIndex(60))
    lost = l2p_record.StripeLocation(4711, 4096, 4096, 1000, 0, 1000)

    def spoil(txn: Any) -> None:
        txn.put(
            media_records.zone_key(stray),
            media_records.pack(media_records.ZoneRecord(int(zone_header.ZoneRole.GROUP), 4712)),
        )
        txn.put(l2p_record.key(ids.ExtentAddress(5)), l2p_record.pack(lost))

    await bench.change(spoil)
    await bench.scrub()
    assert [line for line in caplog.messages if "zone 60 of device" in line and "4712" in line]
    assert [line for line in caplog.messages if "address 5 are said to be in group 4711" in line]
    assert bench.counts.findings_count == 2


# -- position and pace ----------------------------------------------------------------------------


async def until(bench: Bench, reached: Callable[[], bool]) -> None:
    for _ in range(1000):
        if reached():
            return
        await bench.work.step()
    raise AssertionError("that never happens")


async def test_a_restart_goes_on_where_the_pass_was(bench: Bench) -> None:
    for _ in range(3):
        await bench.put(100_000)
        await bench.seal()
    first = bench.records()[0].group_id
    await until(bench, lambda: bench.work.record.position == first)
    bench.now_seconds += scrub_position.SAVE_SECONDS + 1
    await bench.work.step()
    saved = bench.work.record
    assert saved.position >= first
    bench.start()
    await bench.work.step()
    assert bench.reports[0] == saved
    await bench.scrub()
    assert bench.counts.shards_count == 18
    assert bench.counts.started_ns == saved.counts.started_ns


async def test_a_pass_is_spread_over_its_period(bench: Bench) -> None:
    for _ in range(4):
        await bench.put(100_000)
        await bench.seal()
    began = bench.now_seconds
    await bench.scrub()
    took_seconds = bench.now_seconds - began
    assert 0.7 * PERIOD_SECONDS < took_seconds <= PERIOD_SECONDS
    ended = bench.work.record
    bench.now_seconds = began + PERIOD_SECONDS - 1
    assert await bench.work.step() == 1.0
    assert bench.work.record == ended
    bench.now_seconds = began + PERIOD_SECONDS
    await bench.work.step()
    assert bench.work.record.phase == scrub_position.Phase.GROUPS
    assert bench.work.record.last == ended.counts


async def test_a_pass_that_is_behind_does_not_wait(bench: Bench) -> None:
    await bench.filled()
    await bench.work.step()
    bench.now_seconds += 10 * PERIOD_SECONDS
    assert bench.work.record.phase == scrub_position.Phase.GROUPS
    while bench.work.record.phase != scrub_position.Phase.WAITING:
        assert await bench.work.step() == 0.0


async def test_a_member_replaced_during_the_pass_is_not_reported(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses = await bench.filled()
    bench.rot(addresses[3], 1)
    place = bench.location(addresses[3])
    await bench.queue_repair(place.group_id, place.stripe_offset_bytes, 1)
    honest = group_scrub.GroupScrub.advance

    async def overtaken(self: group_scrub.GroupScrub) -> list[group_scrub.Suspect]:
        suspects = await honest(self)
        assert [suspect.shard_index for suspect in suspects] == [1]
        await bench.rebuild()
        return suspects

    monkeypatch.setattr(group_scrub.GroupScrub, "advance", overtaken)
    await bench.scrub()
    assert bench.missing_shards() == []
    assert bench.repairs() == []
    assert bench.counts.damaged_count == 0


def end_of(bench: Bench) -> int:
    return group_walk.end_bytes(bench.media, media_records.zone_addresses(bench.record().members))


async def test_a_refusal_of_memory_loses_nothing_that_was_found_before_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_scrub, "RUN_BYTES", 1)
    addresses = await bench.filled()
    bench.rot(addresses[0], 2)
    others = [bench.pool.acquire(size * units.KIB) for size in (28_672, 3_584, 192)]
    assert bench.pool.limit_bytes - bench.pool.lent_bytes == 320 * units.KIB
    work = group_scrub.GroupScrub(bench.tools, bench.record(), end_bytes=end_of(bench))
    # The stripes before the first large one.
    (found,) = await work.advance()
    assert (found.shard_index, found.offset_bytes) == (
        2,
        bench.location(addresses[0]).stripe_offset_bytes,
    )
    assert not work.ended
    with pytest.raises(errors.OverloadedError):
        await work.advance()
    for buffer in others:
        buffer.release()
    assert await work.advance() == []
    assert work.ended
    assert len(work.found) == len(LENGTHS)
    assert bench.pool.lent_bytes == 0


async def test_the_next_run_is_read_while_the_one_before_is_verified(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_scrub, "RUN_BYTES", 1)
    addresses = await bench.filled()
    last = media_records.zone_addresses(bench.record().members)[5]
    honest, was_read = bench.media.read, asyncio.Event()
    awaited = bench.location(addresses[group_scrub.RUNS_AT_ONCE]).stripe_offset_bytes

    async def read(
        zone: ids.ZoneAddress,
        offset_bytes: int,
        buffer: memoryview,
        *,
        past_cache: bool = False,
        in_place: bool = False,
    ) -> None:
        if (zone, offset_bytes) == (last, awaited):
            was_read.set()
        await honest(zone, offset_bytes, buffer, past_cache=past_cache)

    async def run_codec(function: Callable[..., Any], *arguments: Any) -> Any:
        if work.shards_count:
            # All but the first run: its end alone is to begin another one.
            await asyncio.wait_for(was_read.wait(), 5)
        return function(*arguments)

    monkeypatch.setattr(bench.media, "read", read)
    work = group_scrub.GroupScrub(
        dataclasses.replace(bench.tools, run_codec=run_codec),
        bench.record(),
        end_bytes=end_of(bench),
    )
    assert await work.advance() == []
    assert work.shards_count == 6 * len(LENGTHS)


async def test_each_member_is_read_from_its_start_to_its_end(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_scrub, "RUN_BYTES", 1)
    await bench.filled()
    # A walk looks for headers on the first member besides.
    places = dict.fromkeys(media_records.zone_addresses(bench.record().members)[1:], 1)
    under_way: set[ids.ZoneAddress] = set()
    honest, rng = bench.media.read, random.Random(1)

    async def read(
        zone: ids.ZoneAddress,
        offset_bytes: int,
        buffer: memoryview,
        *,
        past_cache: bool = False,
        in_place: bool = False,
    ) -> None:
        if zone in places and offset_bytes:
            assert zone not in under_way
            under_way.add(zone)
            assert offset_bytes >= places[zone]
            places[zone] = offset_bytes + len(buffer)
            for _ in range(rng.randrange(20)):
                await asyncio.sleep(0)
            under_way.discard(zone)
        await honest(zone, offset_bytes, buffer, past_cache=past_cache)

    monkeypatch.setattr(bench.media, "read", read)
    work = group_scrub.GroupScrub(bench.tools, bench.record(), end_bytes=end_of(bench))
    assert await work.advance() == []
    assert len(set(places.values())) == 1
    assert work.ended
