"""Bit flips in one of a hundred blocks of all shards: scrub finds, rebuild repairs every one.

The flips follow from a seed and leave each stripe as many good shards as it needs. What is proved
is that the shards are, byte for byte, what they were.
"""

from __future__ import annotations

import random
from typing import NamedTuple

import pytest
from shard_node import ShardNode

from couchestor_daemon.formats import frame, media_records, shard
from couchestor_daemon.services import rebuild, scrub, scrub_position
from couchestor_domain import events, geometry, ids, units

PERIOD_SECONDS = 1000.0
LENGTHS = (100, 60_000, 4096, 200_000, 16_384, 100_000, 333_333)
GROUPS_COUNT = 6
ROTTED_PERCENT = 1


class Block(NamedTuple):
    """A 4 KiB block of a shard of a stripe that something leads to."""

    address: ids.ExtentAddress
    shard_index: int
    inside_bytes: int
    """Where a flip is not in padding, within the shard."""


class Bench(ShardNode):
    """A node with sealed groups, its scrub and its rebuild."""

    def __init__(self, shape: geometry.StripeGeometry) -> None:
        super().__init__(shape, devices_count=shape.shards_count)
        self.now_seconds = 0.0
        self.scrubbing = scrub.Scrub(
            self.tools,
            submit=self.commits.submit,
            period_seconds=PERIOD_SECONDS,
            publisher=self,
            now_seconds=self.clock,
            now_ns=lambda: int(self.now_seconds * units.NS_PER_SECOND),
        )
        self.rebuilding = rebuild.Rebuild(
            self.tools,
            submit=self.commits.submit,
            reserve_zones_count=0,
            delay_seconds=0.0,
            publisher=self,
            now_seconds=self.clock,
            now_ns=lambda: 1,
            on_repaired=self.scrubbing.repaired,
        )

    def clock(self) -> float:
        return self.now_seconds

    async def fill(self) -> None:
        for _ in range(GROUPS_COUNT):
            for length in LENGTHS:
                await self.put(length)
            for record in self.records():
                sealed = media_records.GroupRecord(
                    record.group_id,
                    int(media_records.ZoneSetState.SEALED),
                    "gone",
                    *(record.data_shards, record.parity_shards, record.codec_id, record.members),
                )
                await self.change(
                    lambda txn, sealed=sealed: txn.put(  # type: ignore[misc]
                        media_records.group_key(sealed.group_id), media_records.pack(sealed)
                    )
                )
            self.groups = self.fresh_groups()

    def blocks(self, rng: random.Random) -> list[Block]:
        found = []
        for address in self.data:
            place = self.location(address)
            header_bytes = shard.header_bytes(place.chunk_bytes)
            used_bytes = frame.FRAME_BYTES + shard.FIXED.size
            for index in range(self.shape.shards_count):
                found.append(Block(address, index, rng.randrange(used_bytes)))
                found += [
                    Block(address, index, header_bytes + start + rng.randrange(units.BLOCK_BYTES))
                    for start in range(0, place.chunk_bytes, units.BLOCK_BYTES)
                ]
        return found

    def shard_content(self, address: ids.ExtentAddress, index: int) -> bytes:
        """From where the index says that it is now."""
        place = self.location(address)
        record = next(r for r in self.records() if r.group_id == place.group_id)
        zone = media_records.zone_addresses(record.members)[index]
        start = place.stripe_offset_bytes
        return bytes(self.content(zone)[start : start + shard.shard_bytes(place.chunk_bytes)])

    async def scrub_pass(self) -> media_records.ScrubCounts:
        if self.scrubbing.record.phase == scrub_position.Phase.WAITING:
            self.now_seconds += PERIOD_SECONDS
        for _ in range(10_000):
            self.now_seconds += await self.scrubbing.step()
            counts = self.scrubbing.record.counts
            if self.scrubbing.record.phase == scrub_position.Phase.WAITING and counts.ended_ns:
                return counts
        raise AssertionError("the scrub never ends")

    async def rebuild_all(self) -> None:
        for _ in range(10_000):
            if await self.rebuilding.step() >= rebuild.LOOK_SECONDS:
                return
        raise AssertionError("the rebuild never ends")


def flip_some(bench: Bench, rng: random.Random) -> list[Block]:
    """Rot at least one in a hundred blocks, and no more shards of a stripe than it can spare."""
    blocks = bench.blocks(rng)
    wanted = -(-len(blocks) * ROTTED_PERCENT // 100)
    hurt: dict[ids.ExtentAddress, set[int]] = {}
    flipped: list[Block] = []
    for block in rng.sample(blocks, len(blocks)):
        shards = hurt.setdefault(block.address, set())
        if len(shards | {block.shard_index}) > bench.shape.parity_shards:
            continue
        shards.add(block.shard_index)
        bench.rot(block.address, block.shard_index, inside_bytes=block.inside_bytes)
        flipped.append(block)
        if len(flipped) == wanted:
            return flipped
    raise AssertionError(f"only {len(flipped)} of {wanted} blocks can rot")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shape", ["4+2", "8+3", "2+1"])
async def test_every_flip_is_found_and_repaired(shape: str, seed: int) -> None:
    k, m = map(int, shape.split("+"))
    rng = random.Random(f"{shape} {seed}")
    bench = Bench(geometry.StripeGeometry(k, m))
    await bench.fill()
    before = {
        (address, index): bench.shard_content(address, index)
        for address in bench.data
        for index in range(k + m)
    }
    flipped = flip_some(bench, rng)
    hurt = {(block.address, block.shard_index) for block in flipped}
    assert len(flipped) * 100 >= len(bench.blocks(rng)) * ROTTED_PERCENT
    assert len(bench.missing_shards()) == len(hurt), "every flip damages its shard"

    found = await bench.scrub_pass()
    assert (found.damaged_count, found.findings_count) == (len(hurt), 0)
    await bench.rebuild_all()

    for key, content in before.items():
        assert bench.shard_content(*key) == content, key
    await bench.check_data()
    await bench.check_zones()
    assert bench.repairs() == []
    again = await bench.scrub_pass()
    assert (again.damaged_count, again.findings_count) == (0, 0)
    assert again.repaired_count == len(hurt)
    assert bench.events_of(events.ReconstructionFailed) == []


async def test_a_stripe_beyond_repair_is_named_and_everything_else_comes_back() -> None:
    rng = random.Random(11)
    bench = Bench(geometry.StripeGeometry(4, 2))
    await bench.fill()
    lost = list(bench.data)[3]
    place = bench.location(lost)
    flip_some(bench, rng)
    whole = [
        index
        for index in range(6)
        if (place.group_id, place.stripe_offset_bytes, index) not in bench.missing_shards()
    ]
    for index in whole[: len(whole) - 3]:
        bench.rot(lost, index)
    found = await bench.scrub_pass()
    assert found.damaged_count >= 3
    await bench.rebuild_all()
    left = bench.missing_shards()
    assert len([one for one in left if one[:2] == (place.group_id, place.stripe_offset_bytes)]) == 3
    assert {group_id for group_id, _, _ in left} == {place.group_id}
    (failure,) = bench.events_of(events.ReconstructionFailed)
    assert failure.group_id == place.group_id
    assert (
        f"of the 4+2 shards of stripe {place.stripe_offset_bytes} of group {place.group_id} only 3 "
        f"verify: {len(bench.data[lost])} live bytes are lost"
    ) in failure.reason.replace("4 + 2", "4+2")
