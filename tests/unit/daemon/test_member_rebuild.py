"""Members written anew with a few runs in flight: order, read-back, and memory, over devices in
memory."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import pytest
from shard_node import ShardNode

from couchestor_daemon import buffers
from couchestor_daemon.adapters import inline_media
from couchestor_daemon.app import repairing
from couchestor_daemon.formats import media_records, shard, zone_header
from couchestor_daemon.ports import media as media_port
from couchestor_daemon.services import (
    group_scrub,
    group_walk,
    member_rebuild,
    rebuild,
    rebuild_order,
    run_shards,
    stripe_runs,
    zone_read_back,
)
from couchestor_domain import errors, geometry, ids, units

SHAPE = geometry.StripeGeometry(4, 2)
STRIPE_BYTES = 256 * units.KIB
STRIPES_COUNT = 14
SHARD_BYTES = shard.shard_bytes(SHAPE.chunk_bytes(STRIPE_BYTES))
RUN_BYTES = buffers.size_class_bytes(6 * SHARD_BYTES)
FRESH_ZONE = ids.ZoneIndex(63)


class WatchedPool(buffers.BufferPool):
    """Remembers the most that was lent at one time, and how often it had to refuse."""

    lent_bytes_max = 0
    refused_count = 0

    def acquire(self, size_bytes: int, *, leave_bytes: int = 0) -> buffers.AlignedBuffer:
        try:
            return super().acquire(size_bytes, leave_bytes=leave_bytes)
        except errors.OverloadedError:
            self.refused_count += 1
            raise

    def try_acquire(self, size_bytes: int, *, leave_bytes: int = 0) -> buffers.AlignedBuffer | None:
        found = super().try_acquire(size_bytes, leave_bytes=leave_bytes)
        self.lent_bytes_max = max(self.lent_bytes_max, self.lent_bytes)
        return found


class Bench(ShardNode):
    """A sealed group of stripes of one length, every one a run of its own. Others go on whenever
    bytes are paced, or handed to a codec."""

    def __init__(self) -> None:
        super().__init__(SHAPE, devices_count=7)

    async def run(self, function: Any, *arguments: Any) -> Any:
        await asyncio.sleep(0)
        return function(*arguments)

    async def pace(self, bytes_count: int) -> None:
        await asyncio.sleep(0)
        await super().pace(bytes_count)

    async def fill(self) -> None:
        for _ in range(STRIPES_COUNT):
            await self.put(STRIPE_BYTES)
        await self.seal()

    def zones(self) -> tuple[ids.ZoneAddress, ...]:
        return media_records.zone_addresses(self.record().members)

    def copy_of(self, index: int) -> member_rebuild.MemberRebuild:
        """A member written to another zone of its device."""
        return member_rebuild.MemberRebuild(
            self.tools,
            self.record(),
            {index: ids.ZoneAddress(self.zones()[index].device_id, FRESH_ZONE)},
            distrusted=(),
            end_bytes=group_walk.end_bytes(self.media, self.zones()),
        )

    def rebuilding(self) -> rebuild.Rebuild:
        """The work itself, with the pool as it is now."""
        return rebuild.Rebuild(
            self.tools,
            submit=self.commits.submit,
            reserve_zones_count=0,
            delay_seconds=0.0,
            publisher=self,
            now_seconds=lambda: 1000.0,
            now_ns=lambda: 1,
        )

    async def finish(self, work: rebuild.Rebuild) -> None:
        """Step until there is nothing to do."""
        while await work.step() < rebuild.LOOK_SECONDS:
            pass

    def check_copy(self, index: int) -> None:
        """The fresh zone holds what the member does, and nothing is lent."""
        zone = self.zones()[index]
        header_bytes = zone_header.ZONE_HEADER_BYTES
        fresh = self.content(ids.ZoneAddress(zone.device_id, FRESH_ZONE))
        assert fresh[header_bytes:] == self.content(zone)[header_bytes:]
        assert self.pool.lent_bytes == 0


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(stripe_runs, "RUN_BYTES", 1)
    monkeypatch.setattr(group_scrub, "RUN_BYTES", 1)
    monkeypatch.setattr(run_shards, "PARITY_SLICE_BYTES", shard.CHECKSUM_BLOCK_BYTES)
    monkeypatch.setattr(zone_read_back, "READ_BYTES", 1)
    monkeypatch.setattr(zone_read_back, "READ_AHEAD_BYTES", 2 * SHARD_BYTES)
    monkeypatch.setattr(member_rebuild, "FLUSH_BYTES", 4 * SHARD_BYTES)
    made = Bench()
    await made.fill()
    return made


class Command(NamedTuple):
    """What a device was told."""

    name: str
    zone: ids.ZoneAddress
    start_bytes: int = 0
    end_bytes: int = 0


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[Command]:
    """Reads, writes that are not durable and flushes from now on, in the order they ended."""
    told: list[Command] = []
    media = inline_media.InlineMedia
    read, write_all, flush = media.read, media.write_all, media.flush

    async def watched_read(
        self: inline_media.InlineMedia,
        zone: ids.ZoneAddress,
        offset_bytes: int,
        buffer: memoryview,
        *,
        past_cache: bool = False,
        in_place: bool = False,
    ) -> None:
        await read(self, zone, offset_bytes, buffer, past_cache=past_cache, in_place=in_place)
        told.append(Command("read", zone, offset_bytes, offset_bytes + len(buffer)))

    async def watched_write_all(
        self: inline_media.InlineMedia, writes: Sequence[media_port.ZoneWrite], *, durable: bool
    ) -> list[errors.DeviceError]:
        found = await write_all(self, writes, durable=durable)
        if not durable:
            told.extend(
                Command("write", each.zone, each.offset_bytes, each.offset_bytes + len(each.data))
                for each in writes
            )
        return found

    async def watched_flush(
        self: inline_media.InlineMedia, zones: Collection[ids.ZoneAddress]
    ) -> None:
        await flush(self, zones)
        told.extend(Command("flush", zone) for zone in zones)

    monkeypatch.setattr(media, "read", watched_read)
    monkeypatch.setattr(media, "write_all", watched_write_all)
    monkeypatch.setattr(media, "flush", watched_flush)
    return told


async def test_runs_are_made_ahead_and_written_in_their_order(
    bench: Bench, commands: list[Command]
) -> None:
    source = bench.zones()[1]
    work = bench.copy_of(1)
    while not await work.advance():
        pass
    bench.check_copy(1)
    written = [each for each in commands if each.name == "write"]
    assert [each.start_bytes for each in written[1:]] == [each.end_bytes for each in written[:-1]]
    assert len(written) == STRIPES_COUNT
    for number, each in enumerate(written):
        before = commands[: commands.index(each)]
        read = [
            c for c in before if c.zone == source and c.end_bytes - c.start_bytes == SHARD_BYTES
        ]
        assert len(read) >= min(STRIPES_COUNT, number + member_rebuild.RUNS_AT_ONCE), number


async def test_what_was_flushed_is_read_back_while_more_is_written(
    bench: Bench, commands: list[Command]
) -> None:
    work = bench.copy_of(1)
    (fresh,) = work.fresh.values()
    while not await work.advance():
        pass
    last_write = max(n for n, each in enumerate(commands) if each.name == "write")
    pointer = flushed = 0
    back: list[Command] = []
    early_count = 0
    for number, each in enumerate(commands):
        if each.name == "write":
            pointer = each.end_bytes
        elif each.name == "flush":
            flushed = pointer
        elif each.zone == fresh and each.start_bytes >= zone_header.ZONE_HEADER_BYTES:
            back.append(each)
            early_count += number < last_write
            is_all_flushed = number > last_write and flushed == pointer
            assert is_all_flushed or each.end_bytes + 2 * SHARD_BYTES <= flushed, each
    assert early_count > STRIPES_COUNT // 3
    # Every shard once, from the first to the last.
    assert [each.start_bytes for each in back] == [
        zone_header.ZONE_HEADER_BYTES + number * SHARD_BYTES for number in range(STRIPES_COUNT)
    ]


async def test_a_shard_found_wrong_while_others_are_written_ends_the_attempt(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.rot_and_queue(next(iter(bench.data)), 1)
    before = bench.record()
    work = bench.rebuilding()
    honest = zone_read_back.ZoneReadBack.catch_up

    async def rotten(
        self: zone_read_back.ZoneReadBack, flushed_bytes: int, *, run_bytes: int
    ) -> None:
        (zone,) = self._fresh.values()
        bench.content(zone)[zone_header.ZONE_HEADER_BYTES + 5000] ^= 0xFF
        await honest(self, flushed_bytes, run_bytes=run_bytes)

    monkeypatch.setattr(zone_read_back.ZoneReadBack, "catch_up", rotten)
    with pytest.raises(errors.DeviceIoError, match=r"shard 1 of stripe 4096 .* just written there"):
        await bench.finish(work)
    assert bench.record() == before
    assert bench.pool.lent_bytes == 0


async def test_what_a_hung_read_fills_late_is_not_what_is_written(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member that is to be copied hangs: its shards are decoded, elsewhere than it may write."""
    source, honest = bench.zones()[1], bench.media.read
    hung: list[memoryview] = []

    async def read(
        zone: ids.ZoneAddress,
        offset_bytes: int,
        buffer: memoryview,
        *,
        past_cache: bool = False,
        in_place: bool = False,
    ) -> None:
        if zone == source and in_place:
            hung.append(buffer)
            raise errors.DeviceStalledError("it has not ended")
        await honest(zone, offset_bytes, buffer, past_cache=past_cache, in_place=in_place)

    async def run_codec(function: Any, *arguments: Any) -> Any:
        await asyncio.sleep(0)
        found = function(*arguments)
        for buffer in hung:
            buffer[:] = b"\x55" * len(buffer)
        return found

    monkeypatch.setattr(bench.media, "read", read)
    monkeypatch.setattr(bench, "run", run_codec)
    work = bench.copy_of(1)
    while not await work.advance():
        pass
    assert len(hung) == STRIPES_COUNT
    bench.check_copy(1)


async def test_with_memory_for_one_run_it_goes_on_by_one(bench: Bench) -> None:
    bench.pool = pool = WatchedPool(RUN_BYTES)
    work = bench.copy_of(1)
    while not await work.advance():
        pass
    bench.check_copy(1)
    assert pool.lent_bytes_max == RUN_BYTES


async def test_scrub_and_rebuild_never_keep_each_other_from_memory(bench: Bench) -> None:
    """A pool in which either, if it took what it can use, would leave the other nothing."""
    bench.pool = pool = WatchedPool(3 * RUN_BYTES + RUN_BYTES // 2)
    await bench.rot_and_queue(next(iter(bench.data)), 1)
    record, work = bench.record(), bench.rebuilding()
    end_bytes = group_walk.end_bytes(bench.media, bench.zones())
    passes_count = 0

    async def scrub_on() -> None:
        nonlocal passes_count
        while True:
            scrubbing = group_scrub.GroupScrub(bench.tools, record, end_bytes=end_bytes)
            while not scrubbing.ended:
                await scrubbing.advance()
            passes_count += 1

    scrub = asyncio.ensure_future(scrub_on())
    try:
        await bench.finish(work)
    finally:
        scrub.cancel()
    with pytest.raises(asyncio.CancelledError):
        await scrub  # OverloadedError, if it was refused memory.
    assert pool.refused_count == 0, "the rebuild was refused memory"
    assert passes_count > 0
    assert bench.record() != record
    assert pool.lent_bytes == 0
    assert pool.lent_bytes_max > 2 * RUN_BYTES


def test_the_pool_of_a_node_has_room_for_all_that_either_takes() -> None:
    """With the default stripes of 4 MiB, coded 4 + 2."""
    shard_bytes = shard.shard_bytes(SHAPE.chunk_bytes(4 * units.MIB))
    run_bytes = buffers.size_class_bytes(6 * shard_bytes)
    scrub_bytes = buffers.size_class_bytes(6 * shard_bytes + 2 * run_shards.PARITY_SLICE_BYTES)
    back_bytes = zone_read_back.READS_AT_ONCE * buffers.size_class_bytes(shard_bytes)
    pool_bytes = repairing.POOL_BYTES_MIN
    group_bytes = member_rebuild.RUNS_AT_ONCE * run_bytes + back_bytes
    others_bytes = (rebuild_order.GROUPS_AT_ONCE - 1) * group_bytes
    assert others_bytes + run_bytes + scrub_bytes <= pool_bytes
    assert group_bytes + group_scrub.RUNS_AT_ONCE * scrub_bytes + run_bytes <= pool_bytes


async def test_a_rebuild_that_is_cancelled_anywhere_gives_its_memory_back(bench: Bench) -> None:
    await bench.rot_and_queue(next(iter(bench.data)), 1)
    work = bench.rebuilding()
    cancelled_count = 0
    for turns_count in range(0, 160, 2):
        task = asyncio.ensure_future(work.step())
        for _ in range(turns_count):
            await asyncio.sleep(0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            cancelled_count += 1
        assert bench.pool.lent_bytes == 0, turns_count
    assert cancelled_count > 20
    await bench.finish(work)
    assert bench.missing_shards() == []
    assert bench.repairs() == []
    await bench.check_zones()
    await bench.check_data()
