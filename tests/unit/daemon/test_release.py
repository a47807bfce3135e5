"""What gives zones back, and all that must hold before it does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec
import pytest
import stripe_node

from couchestor_daemon.formats import l2p_record, media_records, zone_header
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import release, zone_grace
from couchestor_daemon.services.catalogue import liveness
from couchestor_domain import errors, events, ids, objects, units

OPEN = int(media_records.ZoneSetState.OPEN)
SEALED = int(media_records.ZoneSetState.SEALED)
GRACE = 60.0


class Rig:
    """A node with one full group without live bytes, and a release."""

    def __init__(self) -> None:
        self.node = stripe_node.StripeNode(zone_bytes=256 * units.KIB)
        self.covering: media_records.CheckpointRecord | None = None
        self.release = self.new_release()

    def new_release(self, *, reads_horizon: Callable[[], float] = lambda: 0.0) -> release.Release:
        """Of a new process."""
        return release.Release(
            index=self.node.index,
            media=self.node.media,
            submit=self.node.commits.submit,
            publisher=self.node,
            run_blocking=run_here,
            clock=self.node,
            trusted=lambda: self.covering,
            grace_seconds=GRACE,
            reads_horizon=reads_horizon,
        )

    async def fill(self) -> media_records.GroupRecord:
        await self.node.make_bucket()
        for number in range(40):
            await self.node.put(f"{number}", bytes(64 * units.KIB))
            await self.node.settled()
            if (first := self.node.group_records()[0]).state == SEALED:
                break
        for number in range(40):
            await self.node.store.delete_object(
                bucket=stripe_node.BUCKET, key=f"{number}", conditions=objects.NO_CONDITIONS
            )
        return first

    async def one_pass(self) -> None:
        """Look at everything once."""
        while await self.release.step() == 0.0:
            pass

    async def after_grace(self) -> None:
        await self.one_pass()
        self.node.now_seconds += GRACE
        await self.one_pass()

    def owned(self, zones: tuple[ids.ZoneAddress, ...]) -> int:
        with self.node.index.read() as reader:
            return sum(reader.get(media_records.zone_key(zone)) is not None for zone in zones)

    def written(self, zones: tuple[ids.ZoneAddress, ...]) -> int:
        return sum(
            report.write_pointer_bytes
            for zone in zones
            for report in self.node.devices[zone.device_id].report()
            if report.zone_index == zone.zone_index
        )

    def change(self, work: Callable[[index_port.IndexWriter], object]) -> None:
        with self.node.index.write() as txn:
            work(txn)
            txn.commit()

    def resets(self) -> list[events.ZoneReset]:
        return [found for found in self.node.published if isinstance(found, events.ZoneReset)]


async def run_here(function: Callable[..., object], *args: object) -> object:
    return function(*args)


@pytest.fixture
def rig() -> Rig:
    return Rig()


async def test_a_dead_group_is_released_after_the_grace(rig: Rig) -> None:
    group = await rig.fill()
    zones = media_records.zone_addresses(group.members)
    written = rig.written(zones)
    await rig.one_pass()
    rig.node.now_seconds += GRACE - 0.1
    await rig.one_pass()
    assert rig.owned(zones) == 6, "not before the grace is over"
    assert rig.written(zones) == written
    rig.node.now_seconds += 0.2
    await rig.one_pass()
    assert rig.owned(zones) == 0
    assert rig.written(zones) == 0
    assert group.group_id not in [record.group_id for record in rig.node.group_records()]
    assert {(found.device_id, found.zone_index) for found in rig.resets()} == set(zones)
    assert sum(found.reclaimed_bytes for found in rig.resets()) == written
    await rig.node.put("again", bytes(200 * units.KIB))


async def test_what_is_open_or_has_live_bytes_stays(rig: Rig) -> None:
    await rig.node.make_bucket()
    for number in range(20):
        await rig.node.put(f"{number}", bytes(64 * units.KIB))
    await rig.node.settled()
    states = [record.state for record in rig.node.group_records()]
    assert SEALED in states
    assert OPEN in states
    await rig.after_grace()
    assert [record.state for record in rig.node.group_records()] == states
    for number in range(20):
        await rig.node.store.delete_object(
            bucket=stripe_node.BUCKET, key=f"{number}", conditions=objects.NO_CONDITIONS
        )
    await rig.after_grace()
    assert [record.state for record in rig.node.group_records()] == [OPEN]


async def test_a_new_process_waits_the_whole_grace_again(rig: Rig) -> None:
    group = await rig.fill()
    await rig.one_pass()
    rig.node.now_seconds += GRACE
    rig.release = release.Release(
        index=rig.node.index, media=rig.node.media, submit=rig.node.commits.submit,
        publisher=rig.node, run_blocking=run_here, clock=rig.node, trusted=lambda: None,
        grace_seconds=GRACE,
    )  # fmt: skip
    await rig.one_pass()
    assert rig.owned(media_records.zone_addresses(group.members)) == 6


def covering(sequence: int, *open_ids: int) -> media_records.CheckpointRecord:
    return media_records.CheckpointRecord(
        1, 2, 3, (), sequence=sequence, open_segments=tuple((each, 0) for each in open_ids)
    )


async def sealed_segment(rig: Rig) -> media_records.SegmentRecord:
    """A log segment that is full and holds nothing alive."""
    await rig.node.make_bucket()
    return await sealed_segment_after(rig)


async def test_a_segment_is_released_once_a_trusted_checkpoint_covers_it(rig: Rig) -> None:
    segment = await sealed_segment(rig)
    zones = media_records.zone_addresses(segment.members)
    for record in (
        None,
        covering(segment.segment_id - 1),
        covering(segment.segment_id + 1000, segment.segment_id),
    ):
        rig.covering = record
        await rig.after_grace()
        assert rig.owned(zones) == 3, record
    rig.covering = covering(segment.segment_id)
    await rig.after_grace()
    assert rig.owned(zones) == 0
    assert rig.written(zones) == 0
    left = rig.node.segment_records()
    assert segment.segment_id not in [record.segment_id for record in left]
    assert left[-1].state == OPEN


async def test_an_open_segment_stays_whatever_the_checkpoint_says(rig: Rig) -> None:
    segment = await sealed_segment(rig)
    rig.covering = covering(segment.segment_id + 10_000)
    await rig.after_grace()
    states = [record.state for record in rig.node.segment_records()]
    assert states.count(OPEN) == 1
    await rig.node.put("goes on", bytes(3000))


async def test_the_grace_of_a_segment_begins_with_the_trust(rig: Rig) -> None:
    segment = await sealed_segment(rig)
    zones = media_records.zone_addresses(segment.members)
    rig.covering = covering(segment.segment_id)
    await rig.one_pass()
    rig.covering = None
    rig.node.now_seconds += GRACE
    await rig.one_pass()
    rig.covering = covering(segment.segment_id)
    await rig.one_pass()
    assert rig.owned(zones) == 3
    rig.node.now_seconds += GRACE
    await rig.one_pass()
    assert rig.owned(zones) == 0


async def test_a_segment_with_live_payload_stays(rig: Rig) -> None:
    await rig.node.make_bucket()
    await rig.node.put("kept", bytes(3000))
    segment = await sealed_segment_after(rig)
    rig.covering = covering(segment.segment_id + 1000)
    await rig.after_grace()
    assert rig.owned(media_records.zone_addresses(segment.members)) == 3


async def sealed_segment_after(rig: Rig) -> media_records.SegmentRecord:
    for _ in range(200):
        await rig.node.put("small", bytes(3000))
        if len(rig.node.segment_records()) > 2:
            return rig.node.segment_records()[0]
    raise AssertionError


async def test_a_zone_left_by_a_group_is_released_alone(rig: Rig) -> None:
    await rig.node.make_bucket()
    await rig.node.put("k", bytes(64 * units.KIB))
    (group,) = rig.node.group_records()
    zone = ids.ZoneAddress(ids.DeviceId(f"{3:032x}"), ids.ZoneIndex(20))
    rig.node.devices[zone.device_id].write(
        zone.zone_index, 0, memoryview(bytes(8192)), durable=True
    )
    left = media_records.ZoneRecord(int(zone_header.ZoneRole.LEFT), group.group_id)
    rig.change(lambda txn: txn.put(media_records.zone_key(zone), media_records.pack(left)))
    await rig.one_pass()
    assert rig.owned((zone,)) == 1
    await rig.after_grace()
    assert rig.owned((zone,)) == 0
    assert rig.written((zone,)) == 0
    assert [found.reclaimed_bytes for found in rig.resets()] == [8192]
    assert rig.node.group_records() == [group]


async def test_zones_of_a_device_that_is_away_are_free_all_the_same(rig: Rig) -> None:
    group = await rig.fill()
    zones = media_records.zone_addresses(group.members)
    rig.node.media.report_failure(zones[1].device_id, errors.DeviceGoneError("pulled out"))
    await rig.after_grace()
    assert rig.owned(zones) == 0
    assert rig.written(zones[1:2]) > 0, "whoever is given it next empties it"


async def test_nothing_is_reset_that_has_changed_since_it_was_looked_at(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = await rig.fill()
    zones = media_records.zone_addresses(group.members)
    await rig.one_pass()
    rig.node.now_seconds += GRACE
    honest = rig.release._written_bytes

    async def interrupted(
        due: Sequence[release.Unreferenced],
    ) -> dict[ids.ZoneAddress, int]:
        rig.change(lambda txn: liveness.add(txn, [location_in(group)]))
        return await honest(due)

    monkeypatch.setattr(rig.release, "_written_bytes", interrupted)
    await rig.one_pass()
    assert rig.owned(zones) == 6
    assert rig.written(zones) > 0


def location_in(group: media_records.GroupRecord) -> l2p_record.StripeLocation:
    return l2p_record.StripeLocation(group.group_id, 4096, 16384, 65536, 0, 65536)


async def test_live_bytes_that_appear_after_the_reset_are_said_and_nothing_is_freed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = await rig.fill()
    on_reset(rig, monkeypatch, lambda txn: liveness.add(txn, [location_in(group)]))
    with pytest.raises(errors.IndexCorruptError, match="referred to again"):
        await rig.after_grace()
    assert rig.owned(media_records.zone_addresses(group.members)) == 6


async def test_a_zone_that_belongs_to_another_is_said_and_nothing_is_freed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = await rig.fill()
    zones = media_records.zone_addresses(group.members)
    stolen = media_records.pack(media_records.ZoneRecord(1, 12345))
    on_reset(rig, monkeypatch, lambda txn: txn.put(media_records.zone_key(zones[5]), stolen))
    with pytest.raises(errors.IndexCorruptError, match="does not belong"):
        await rig.after_grace()
    assert rig.owned(zones) == 6


async def test_a_group_whose_members_change_meanwhile_is_released_later(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rebuild that ends between the reset and the commit."""
    group = await rig.fill()
    zones = media_records.zone_addresses(group.members)
    spare = ids.ZoneAddress(zones[0].device_id, ids.ZoneIndex(20))
    moved = msgspec.structs.replace(
        group, members=((spare.device_id, int(spare.zone_index)), *group.members[1:])
    )

    def rebuild(txn: index_port.IndexWriter) -> None:
        txn.put(media_records.group_key(group.group_id), media_records.pack(moved))
        owned = media_records.ZoneRecord(int(zone_header.ZoneRole.GROUP), group.group_id)
        txn.put(media_records.zone_key(spare), media_records.pack(owned))
        left = media_records.ZoneRecord(int(zone_header.ZoneRole.LEFT), group.group_id)
        txn.put(media_records.zone_key(zones[0]), media_records.pack(left))

    on_reset(rig, monkeypatch, rebuild)
    await rig.after_grace()
    assert rig.owned((*zones, spare)) == 7
    monkeypatch.undo()
    await rig.after_grace()
    assert rig.owned((*zones, spare)) == 0


def on_reset(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, work: Callable[[index_port.IndexWriter], object]
) -> None:
    """Change the index once, while the first zone is reset."""
    honest = rig.node.media.reset
    waiting = [work]

    async def reset(zone: ids.ZoneAddress) -> None:
        while waiting:
            rig.change(waiting.pop())
        await honest(zone)

    monkeypatch.setattr(rig.node.media, "reset", reset)


async def test_a_commit_that_fails_is_made_up_for(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = await rig.fill()
    zones = media_records.zone_addresses(group.members)

    async def refuse(operation: object) -> object:
        raise errors.StoreFullError("no room")

    monkeypatch.setattr(rig.release, "_submit", refuse)
    with pytest.raises(errors.StoreFullError):
        await rig.after_grace()
    assert rig.owned(zones) == 6
    monkeypatch.undo()
    await rig.one_pass()
    await rig.one_pass()
    assert rig.owned(zones) == 0


async def test_a_cancelled_release_leaves_nothing_wrong(rig: Rig) -> None:
    group = await rig.fill()
    zones = media_records.zone_addresses(group.members)
    await rig.one_pass()
    rig.node.now_seconds += GRACE
    rig.node.hold_commits = asyncio.Event()
    running = asyncio.ensure_future(rig.one_pass())
    await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    rig.node.hold_commits.set()
    await rig.node.settled()
    await rig.one_pass()
    assert rig.owned(zones) == 0


async def test_a_step_is_bounded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    group = await rig.fill()
    monkeypatch.setattr(release, "ROWS_PER_STEP_MAX", 2)
    steps = 1
    while await rig.release.step() == 0.0:
        steps += 1
    assert steps > 4
    rig.node.now_seconds += GRACE
    await rig.one_pass()
    assert rig.owned(media_records.zone_addresses(group.members)) == 0


async def test_a_store_that_takes_long_to_look_at_is_looked_at_less_often(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.fill()
    monkeypatch.setattr(release, "ROWS_PER_STEP_MAX", 2)
    honest = release._unreferenced

    def slow(
        reader: index_port.IndexReader,
        key: bytes,
        value: bytes,
        covering: media_records.CheckpointRecord | None,
    ) -> release.Unreferenced | None:
        rig.node.now_seconds += 1
        return honest(reader, key, value, covering)

    monkeypatch.setattr(release, "_unreferenced", slow)
    begun = rig.node.now_seconds
    while (wait := await rig.release.step()) == 0.0:
        pass
    took = rig.node.now_seconds - begun
    assert took > 5
    assert wait == pytest.approx(19 * took)


async def test_repairs_of_a_released_group_are_forgotten(rig: Rig) -> None:
    group = await rig.fill()

    def queue(txn: index_port.IndexWriter) -> None:
        for group_id in (group.group_id, group.group_id + 1):
            record = media_records.RepairRecord(group_id, 4096, 5, "gone", 1)
            txn.put(media_records.repair_key(group_id, 4096, 5), media_records.pack(record))

    rig.change(queue)
    await rig.after_grace()
    with rig.node.index.read() as reader:
        left = [key for key, _ in reader.scan(*media_records.table_range(media_records.REPAIRS))]
    assert left == [media_records.repair_key(group.group_id + 1, 4096, 5)]


async def test_no_grace_is_waited_for_once_no_read_goes_by_older_lookups(rig: Rig) -> None:
    horizon = 0.0
    rig.release = rig.new_release(reads_horizon=lambda: horizon)
    group = await rig.fill()
    seen_at = rig.node.now_seconds
    await rig.one_pass()
    rig.node.now_seconds += 5.0
    horizon = seen_at + zone_grace.READS_ENDED_SECONDS - 0.01
    await rig.one_pass()
    assert group in rig.node.group_records(), "a read from before is going on"
    horizon = seen_at + zone_grace.READS_ENDED_SECONDS
    await rig.one_pass()
    assert group not in rig.node.group_records()
