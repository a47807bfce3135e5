"""What a walk reads ahead, and what of it the runs that it plans need not read again."""

from __future__ import annotations

import asyncio
import random

import hypothesis
import pytest
from hypothesis import strategies as st
from tests.unit.daemon import test_group_walk

from couchestor_daemon.services import group_walk, run_plan, run_shards
from couchestor_domain import errors, ids, units

ZONES = [ids.ZoneAddress(ids.DeviceId(f"{n:032x}"), ids.ZoneIndex(n)) for n in range(3)]
LENGTH_BYTES = 6 * units.MIB
CONTENT = {zone: random.Random(n).randbytes(LENGTH_BYTES) for n, zone in enumerate(ZONES)}


class CountingMedia:
    """Zones of known bytes; says what was read of them."""

    def __init__(self) -> None:
        self.reads: list[tuple[ids.ZoneAddress, int, int, bool]] = []
        self.failing = False

    async def read(
        self,
        zone: ids.ZoneAddress,
        offset_bytes: int,
        buffer: memoryview,
        *,
        past_cache: bool = False,
        in_place: bool = False,
    ) -> None:
        """Fill the buffer, or half of it and fail."""
        self.reads.append((zone, offset_bytes, len(buffer), past_cache))
        if self.failing:
            buffer[: len(buffer) // 2] = bytes(len(buffer) // 2)
            raise errors.DeviceIoError("as told")
        found = CONTENT[zone][offset_bytes : offset_bytes + len(buffer)]
        assert len(found) == len(buffer), "beyond what is written"
        buffer[:] = found


def read_ahead(media: CountingMedia, *, past_cache: bool) -> run_plan.ReadAhead:
    return run_plan.ReadAhead(media, end_bytes=LENGTH_BYTES, past_cache=past_cache)


async def look(ahead: run_plan.ReadAhead, zone: ids.ZoneAddress, offset: int, length: int) -> bytes:
    """As ``group_walk`` reads."""
    window = memoryview(bytearray(length))
    if not ahead.try_read(zone, offset, window):
        await ahead.read(zone, offset, window)
    return bytes(window)


@hypothesis.given(
    st.lists(
        st.tuples(
            st.sampled_from(ZONES),
            st.one_of(st.integers(0, 20), st.integers(0, 700)),
            st.integers(1, 5),
            st.booleans(),
        ),
        max_size=60,
    ),
    st.booleans(),
)
def test_reads_and_fills_give_what_is_there(
    walk: list[tuple[ids.ZoneAddress, int, int, bool]], past_cache: bool
) -> None:
    async def body() -> None:
        media = CountingMedia()
        ahead = read_ahead(media, past_cache=past_cache)
        at = dict.fromkeys(ZONES, 0)
        for zone, leap, blocks, fails in walk:
            offset, length = at[zone] + leap * units.BLOCK_BYTES, blocks * units.BLOCK_BYTES
            if offset + length > LENGTH_BYTES:
                continue
            at[zone] = offset
            media.failing = fails
            try:
                assert await look(ahead, zone, offset, length) == CONTENT[zone][offset:][:length]
            except errors.DeviceIoError:
                assert fails
            for start in (offset, max(0, offset - 64 * units.BLOCK_BYTES)):
                view = memoryview(bytearray(offset + length - start))
                if ahead.fill(zone, start, view):
                    assert view == CONTENT[zone][start : offset + length]
        assert all(each[3] == past_cache for each in media.reads)

    asyncio.run(body())


@pytest.mark.parametrize("shard_kib", [20, 68, 132, 260])
def test_past_the_cache_a_walk_over_small_shards_has_read_them_all(shard_kib: int) -> None:
    async def body() -> None:
        media, shard_bytes = CountingMedia(), shard_kib * units.KIB
        ahead, zone = read_ahead(media, past_cache=True), ZONES[1]
        filled = whole = 0
        run_start = offset = units.BLOCK_BYTES
        while offset + shard_bytes <= LENGTH_BYTES:
            # The header, and the last block for checksums.
            await look(ahead, zone, offset, units.BLOCK_BYTES)
            await look(ahead, zone, offset + shard_bytes - 4 * units.KIB, 4 * units.KIB)
            offset += shard_bytes
            if offset + shard_bytes - run_start > units.MIB:
                view = memoryview(bytearray(offset - run_start))
                whole += 1
                if ahead.fill(zone, run_start, view):
                    filled += 1
                    assert view == CONTENT[zone][run_start:offset]
                run_start = offset
        # Windows grow to their length first.
        assert filled >= whole - 2 > 0
        assert sum(length for _, _, length, _ in media.reads) <= LENGTH_BYTES + units.MIB

    asyncio.run(body())


def test_large_shards_are_not_read_for_their_headers() -> None:
    async def body() -> None:
        media = CountingMedia()
        ahead, zone = read_ahead(media, past_cache=True), ZONES[0]
        for offset in range(0, LENGTH_BYTES - units.MIB, units.MIB + 4 * units.KIB):
            await look(ahead, zone, offset, units.BLOCK_BYTES)
            await look(ahead, zone, offset + units.MIB - 16 * units.KIB, 16 * units.KIB)
            assert not ahead.fill(zone, offset, memoryview(bytearray(units.MIB)))
        assert sum(length for _, _, length, _ in media.reads) <= LENGTH_BYTES // 4

    asyncio.run(body())


def test_runs_of_a_group_are_filled_from_its_walk() -> None:
    async def body() -> None:
        group = test_group_walk.Group()
        await group.format()
        offsets = [await group.append(20_000) for _ in range(12)]
        end = group_walk.end_bytes(group.media, group.zones)
        plan = run_plan.RunPlan(
            group.media, group.record, end_bytes=end, run_bytes=64 * units.KIB, past_cache=True
        )
        seen: list[int] = []
        while run := await plan.next_run():
            seen += [found.location.stripe_offset_bytes for found in run]
            view = memoryview(bytearray(run_shards.length_bytes(run)))
            assert plan.fill(group.zones[0], seen[-len(run)], view)
            there = memoryview(bytearray(len(view)))
            await group.media.read(group.zones[0], seen[-len(run)], there)
            assert view == there
            assert not plan.fill(group.zones[1], seen[-len(run)], view), "only one is walked"
        assert seen == offsets

    asyncio.run(body())
