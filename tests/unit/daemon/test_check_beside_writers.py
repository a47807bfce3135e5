"""What ``couchestor check`` says beside a node that goes on working: damage, and nothing else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from shard_node import ShardNode

from couchestor_daemon.formats import index_keys, media_records, zone_header
from couchestor_daemon.services import (
    full_check,
    group_scrub,
    index_audit,
    log_chain,
    rebuild,
    segment_scrub,
    shard_check,
)
from couchestor_domain import geometry, ids

RUNNING = full_check.Manner(is_running=True)


class Bench(ShardNode):
    """A node that is looked at while it changes."""

    def __init__(self, *, devices_count: int = 7, **other: Any) -> None:
        super().__init__(geometry.StripeGeometry(4, 2), devices_count=devices_count, **other)

    async def check(self, manner: full_check.Manner = RUNNING) -> list[index_audit.Finding]:
        return await full_check.FullCheck(self.tools, manner=manner).findings()

    async def filled(self) -> list[ids.ExtentAddress]:
        addresses = [await self.put(length) for length in (60_000, 200_000, 16_384)]
        await self.seal()
        await self.put(90_000)
        await self.put_small(5000)
        return addresses

    async def rebuild(self) -> None:
        """Until nothing waits for it."""
        work = rebuild.Rebuild(
            self.tools,
            submit=self.commits.submit,
            reserve_zones_count=0,
            delay_seconds=0.0,
            publisher=self,
            now_seconds=lambda: 1e6,
            now_ns=lambda: 1,
        )
        for _ in range(20):
            await work.step()


@pytest.fixture
def bench() -> Bench:
    return Bench()


def during_the_scrub(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[], Awaitable[None]]
) -> list[int]:
    """Make a change after a group was read and before what was found in it is judged; the numbers
    of suspects that it was found with."""
    honest, counts = group_scrub.GroupScrub.advance, list[int]()

    async def overtaken(self: group_scrub.GroupScrub) -> list[group_scrub.Suspect]:
        suspects = await honest(self)
        if suspects and not counts:
            await change()
        counts.append(len(suspects))
        return suspects

    monkeypatch.setattr(group_scrub.GroupScrub, "advance", overtaken)
    return counts


async def test_nothing_is_said_of_what_is_whole(bench: Bench) -> None:
    await bench.filled()
    assert await bench.check() == []


async def test_damage_is_told_once_two_looks_have_found_it(bench: Bench) -> None:
    addresses = await bench.filled()
    bench.rot(addresses[1], 2)
    (finding,) = await bench.check()
    assert finding.is_damage
    assert finding.text.startswith("1 shards of member 2 of group")
    assert "the running node rebuilds them" in finding.text


async def test_what_only_one_look_finds_is_not_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses = await bench.filled()
    honest, calls = shard_check.ShardCheck.verdict, 0

    async def wrong_once(self: shard_check.ShardCheck, *told: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 1:
            return await honest(self, *told, **named)
        bench.rot(addresses[1], 2)  # The same bits once more: whole again, for the second look.
        return shard_check.Verdict.DAMAGED

    bench.rot(addresses[1], 2)
    monkeypatch.setattr(shard_check.ShardCheck, "verdict", wrong_once)
    assert await bench.check() == []
    assert calls == 1


async def test_a_member_that_is_swapped_during_the_look_is_not_damaged(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses = await bench.filled()
    bench.rot(addresses[1], 2)
    place = bench.location(addresses[1])
    await bench.queue_repair(place.group_id, place.stripe_offset_bytes, 2)
    old = media_records.zone_addresses(bench.records()[0].members)[2]

    async def swap() -> None:
        await bench.rebuild()
        await bench.media.reset(old)

    looked = during_the_scrub(monkeypatch, swap)
    manner = full_check.Manner(is_running=False)  # The first look alone must not be fooled.
    found = [one for one in await bench.check(manner) if "shards of member" in one.text]
    assert (looked[0], found) == (1, [])
    assert media_records.zone_addresses(bench.records()[0].members)[2] != old


async def test_a_group_that_is_released_during_the_look_is_not_damaged(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses = await bench.filled()
    group = bench.records()[0]
    bench.rot(addresses[1], 2)

    async def release() -> None:
        for address in addresses:
            await bench.delete(address)
        for zone in media_records.zone_addresses(group.members):
            await bench.media.reset(zone)

    looked = during_the_scrub(monkeypatch, release)
    assert await bench.check(full_check.Manner()) == []
    assert looked[0] == 1


async def test_stripes_that_are_appended_during_the_look_are_not_lost(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.filled()
    honest, appended = group_scrub.GroupScrub.advance, 0

    async def advance(self: group_scrub.GroupScrub) -> list[group_scrub.Suspect]:
        nonlocal appended
        suspects = await honest(self)
        if self.record.state == media_records.ZoneSetState.OPEN:
            appended += 1
            await bench.put(30_000)
        return suspects

    monkeypatch.setattr(group_scrub.GroupScrub, "advance", advance)
    assert await bench.check(full_check.Manner()) == []
    assert appended


async def test_lost_stripes_are_told(bench: Bench) -> None:
    addresses = await bench.filled()
    for index in range(6):
        bench.rot(addresses[1], index, inside_bytes=30)
    (finding,) = await bench.check()
    assert finding.text.startswith("200000 live bytes are lost")


async def test_a_rebuild_under_way_is_nothing_to_tell(bench: Bench) -> None:
    await bench.filled()
    zone = ids.ZoneAddress(next(iter(bench.devices)), ids.ZoneIndex(60))
    role = int(zone_header.ZoneRole.REBUILD)
    owner = media_records.ZoneRecord(role, bench.records()[0].group_id)
    await bench.change(lambda txn: txn.put(media_records.zone_key(zone), media_records.pack(owner)))
    assert await bench.check() == []


async def test_wrong_tables_are_told_although_their_numbers_move(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.filled()
    group_id = bench.records()[0].group_id
    key = index_keys.LIVE_BYTES + b"g" + index_keys.U64.pack(group_id)
    counted = 7

    async def miscount() -> None:
        nonlocal counted
        counted += 1
        value = index_keys.U64.pack(counted)
        await bench.change(lambda txn: txn.put(key, value))

    await miscount()
    original = full_check.FullCheck._of_index

    async def look(self: full_check.FullCheck) -> list[index_audit.Finding]:
        found = await original(self)
        await miscount()
        return found

    monkeypatch.setattr(full_check.FullCheck, "_of_index", look)
    (finding,) = [one for one in await bench.check() if "counted as alive" in one.text]
    assert finding.text.startswith("9 bytes of group")


async def test_only_tables_and_known_damage_are_looked_at_when_asked(bench: Bench) -> None:
    addresses = await bench.filled()
    quick = full_check.Manner(is_running=True, reads_everything=False)
    bench.rot(addresses[1], 2)
    assert await bench.check(quick) == []
    place = bench.location(addresses[1])
    await bench.queue_repair(place.group_id, place.stripe_offset_bytes, 2)
    await bench.queue_repair(place.group_id, place.stripe_offset_bytes, 3)
    (finding,) = await bench.check(quick)
    assert finding.text.startswith("1 shards of member 2")


# -- the log --------------------------------------------------------------------------------------


def batches(bench: Bench) -> list[int]:
    """Where the batches of the only segment begin, oldest first."""
    with bench.index.read() as reader:
        ((_, value),) = reader.scan(*media_records.table_range(media_records.SEGMENTS))
    record = media_records.unpack(media_records.SegmentRecord, value)
    content = bench.content(media_records.zone_addresses(record.members)[0])
    magic = bytes(content[4096:4104])
    return [at for at in range(4096, len(content), 4096) if content[at : at + 8] == magic]


def rot_batch(bench: Bench, offset_bytes: int, *, replicas: tuple[int, ...]) -> None:
    with bench.index.read() as reader:
        ((_, value),) = reader.scan(*media_records.table_range(media_records.SEGMENTS))
    record = media_records.unpack(media_records.SegmentRecord, value)
    for index in replicas:
        zone = media_records.zone_addresses(record.members)[index]
        bench.content(zone)[offset_bytes + 20] ^= 0xFF


async def checkpoint(bench: Bench) -> None:
    """A record of one that holds everything so far."""
    with bench.index.read() as reader:
        sequence = int(media_records.U64.unpack(reader.get(media_records.APPLIED_KEY) or b"")[0])
    complete = int(media_records.CheckpointState.COMPLETE)
    record = media_records.CheckpointRecord(9, complete, 1, ((),), sequence=sequence)
    await bench.change(
        lambda txn: txn.put(media_records.checkpoint_key(9), media_records.pack(record))
    )


async def log_findings(bench: Bench) -> list[str]:
    found = await full_check.FullCheck(bench.tools, manner=RUNNING)._of_log()
    return [finding.text for finding in found]


async def test_mutations_that_a_replica_lost_are_told_until_a_checkpoint_has_them(
    bench: Bench,
) -> None:
    for number in range(5):
        await bench.change(lambda txn, n=number: txn.put(b"xx%d" % n, b"v"))  # type: ignore[misc]
    rot_batch(bench, batches(bench)[2], replicas=(1,))
    (said,) = await log_findings(bench)
    assert said.startswith("1 batches of the log behind the newest checkpoint do not verify on")
    await checkpoint(bench)
    assert await log_findings(bench) == []


async def test_a_batch_that_is_on_no_replica_is_a_gap(bench: Bench) -> None:
    for number in range(5):
        await bench.change(lambda txn, n=number: txn.put(b"xx%d" % n, b"v"))  # type: ignore[misc]
    rot_batch(bench, batches(bench)[2], replicas=(0, 1, 2))
    (said,) = await log_findings(bench)
    assert "is on no device that is there, and no checkpoint holds it" in said


async def test_a_gap_that_a_checkpoint_closes_during_the_look_is_none(bench: Bench) -> None:
    for number in range(3):
        await bench.change(lambda txn, n=number: txn.put(b"xx%d" % n, b"v"))  # type: ignore[misc]
    with bench.index.read() as reader:
        chain = log_chain.LogChain(reader)
        assert len(chain.findings(reader)) == 1
    await checkpoint(bench)
    with bench.index.read() as reader:
        assert chain.findings(reader) == []


async def test_what_a_dead_process_left_unanswered_is_nothing_to_tell(bench: Bench) -> None:
    """A batch on some replicas only, which the next committed one does not name."""
    with bench.index.read() as reader:
        before = log_chain.LogChain(reader)
    assert before.newest_sequence == 0
    for number in range(3):
        await bench.change(lambda txn, n=number: txn.put(b"xx%d" % n, b"v"))  # type: ignore[misc]
    with bench.index.read() as reader:
        chain = log_chain.LogChain(reader)
        ((_, value),) = reader.scan(*media_records.table_range(media_records.SEGMENTS))
    record = media_records.unpack(media_records.SegmentRecord, value)
    newest = chain.newest_sequence

    def visit(sequence: int, previous: int, *, missing_on: tuple[int, ...] = ()) -> None:
        chain.visit(
            record, segment_scrub.FoundBatch(sequence, previous, 4096, 4096, (), missing_on)
        )

    visit(newest - 2, 0)
    visit(newest - 1, newest - 2, missing_on=(1, 2))
    visit(newest, newest - 2)
    with bench.index.read() as reader:
        assert chain.findings(reader) == []
    visit(newest + 1, newest, missing_on=(0,))  # After the look began.
    with bench.index.read() as reader:
        assert chain.findings(reader) == []


async def test_a_batch_that_was_appended_again_elsewhere_counts_once(bench: Bench) -> None:
    await bench.change(lambda txn: txn.put(b"xx", b"v"))
    with bench.index.read() as reader:
        chain = log_chain.LogChain(reader)
        ((_, value),) = reader.scan(*media_records.table_range(media_records.SEGMENTS))
    record = media_records.unpack(media_records.SegmentRecord, value)
    for missing_on in ((2,), (), (1,)):
        found = segment_scrub.FoundBatch(chain.newest_sequence, 0, 4096, 4096, (), missing_on)
        chain.visit(record, found)
    with bench.index.read() as reader:
        assert chain.findings(reader) == []
