"""Stripe groups when devices fail under them, over devices in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from couchestor_daemon import buffers
from couchestor_daemon.adapters import (
    codec_choice,
    inline_media,
    isal_codec,
    memory_device,
    memory_index,
)
from couchestor_daemon.formats import l2p_record, media_records, shard, zone_header
from couchestor_daemon.ports import device as device_port
from couchestor_daemon.services import (
    body_writer,
    commit_log,
    group_commit,
    open_group,
    stripe_assembly,
    stripe_groups,
)
from couchestor_daemon.services.catalogue import liveness
from couchestor_domain import errors, events, geometry, ids, objects, units

WANTED = geometry.StripeGeometry(4, 2)
ZONE_BYTES = units.MIB
ADDRESS = ids.ExtentAddress(1 << 20)

isal_codec.load_library()


class FailingDevice(memory_device.MemoryDevice):
    """Fails the writes and resets it is told to fail."""

    failure: errors.DeviceError | None = None
    writes_before_failure = 0

    def _maybe_fail(self) -> None:
        if self.failure is None:
            return
        if self.writes_before_failure:
            self.writes_before_failure -= 1
            return
        raise self.failure

    def write(
        self, zone: ids.ZoneIndex, offset_bytes: int, data: memoryview, *, durable: bool
    ) -> None:
        self._maybe_fail()
        super().write(zone, offset_bytes, data, durable=durable)

    def reset(self, zone: ids.ZoneIndex) -> None:
        if isinstance(self.failure, errors.DeviceGoneError):
            raise self.failure
        super().reset(zone)


class Bench:
    """Six devices, or more, and a writer over them."""

    def __init__(self, devices_count: int = 6) -> None:
        self.devices = {
            (identity := make_identity(number)).device_id: FailingDevice(identity)
            for number in range(devices_count)
        }
        self.failed: list[ids.DeviceId] = []
        self.media = inline_media.InlineMedia(
            self.devices, lambda device_id, _: self.failed.append(device_id)
        )
        self.index = memory_index.MemoryIndex()
        self.pool = buffers.BufferPool(32 * units.MIB)
        self.published: list[object] = []
        self.hold: asyncio.Event | None = None
        self.start()

    def start(self) -> None:
        """A new life of the writer, over what an earlier one left."""
        log = commit_log.CommitLog(
            writer="w",
            index=self.index,
            media=self.media,
            pool=self.pool,
            replicas_count=3,
            publisher=self,
        )

        async def run_commit(gather: commit_log.Gather) -> None:
            log.commit_gathered(gather)

        self.groups = stripe_groups.StripeGroups(
            writer="w",
            wanted=WANTED,
            open_groups_max=2,
            media=self.media,
            index=self.index,
            pool=self.pool,
            choose_codec=lambda shape: codec_choice.choose("rs", shape),
            submit=group_commit.GroupCommit(run_commit).submit,
            run_codec=self._run,
            run_blocking=self._run,
            publisher=self,
        )

    def publish(self, event: object) -> None:
        self.published.append(event)

    async def _run(self, function: Callable[..., Any], *args: Any) -> Any:
        if self.hold is not None:
            await self.hold.wait()
        return function(*args)

    def stripe(self, shape: geometry.StripeGeometry = WANTED) -> stripe_assembly.StripeBuffer:
        return stripe_assembly.StripeBuffer(self.pool, shape, 64 * units.KIB)

    def write(self, stripe: stripe_assembly.StripeBuffer) -> Awaitable[stripe_groups.StripePlace]:
        return self.groups.write_stripe(stripe, extent_address=ADDRESS)

    def first_group(self) -> media_records.GroupRecord:
        start, stop = media_records.table_range(media_records.GROUPS)
        with self.index.read() as reader:
            (_, value), *_ = reader.scan(start, stop)
        return media_records.unpack(media_records.GroupRecord, value)

    def group_states(self) -> list[int]:
        start, stop = media_records.table_range(media_records.GROUPS)
        with self.index.read() as reader:
            return [
                media_records.unpack(media_records.GroupRecord, value).state
                for _, value in reader.scan(start, stop)
            ]

    def group_zones(self) -> int:
        """Zones that groups own; the log takes other ones when a member is full."""
        with self.index.read() as reader:
            return sum(
                media_records.unpack(media_records.ZoneRecord, value).role
                == zone_header.ZoneRole.GROUP
                for device_id in self.devices
                for _, value in reader.scan(*media_records.device_zones_range(device_id))
            )


def make_identity(number: int) -> device_port.DeviceIdentity:
    return device_port.DeviceIdentity(
        node_id=ids.NodeId("a" * 32),
        device_id=ids.DeviceId(f"{number:032x}"),
        label=f"d{number}",
        failure_domain=f"d{number}",
        zone_count=8,
        zone_capacity_bytes=ZONE_BYTES,
        joined_epoch=1,
    )


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_every_life_goes_on_in_the_groups_the_one_before_left(bench: Bench) -> None:
    for _ in range(3):
        bench.hold = asyncio.Event()
        writes = [asyncio.create_task(_ended(bench.write(bench.stripe()))) for _ in range(3)]
        for _ in range(20):
            await asyncio.sleep(0)
        bench.hold.set()
        await asyncio.gather(*writes)
        bench.start()
    assert bench.group_states() == [int(media_records.ZoneSetState.OPEN)] * 2


async def _ended(write: Awaitable[stripe_groups.StripePlace]) -> None:
    await write


@pytest.mark.parametrize("writes_before_failure", [0, 1], ids=["while opening", "at the stripe"])
async def test_a_device_that_goes_away_changes_the_geometry(
    bench: Bench, writes_before_failure: int
) -> None:
    victim = bench.devices[ids.DeviceId(f"{5:032x}")]
    victim.failure = errors.DeviceGoneError("pulled out")
    victim.writes_before_failure = writes_before_failure
    with pytest.raises(stripe_groups.GeometryChangedError):
        await bench.write(bench.stripe())
    assert bench.failed == [victim.identity.device_id]
    shrunk = bench.groups.current_geometry()
    assert shrunk == geometry.StripeGeometry(3, 2)
    assert await bench.write(bench.stripe(shrunk))
    encoded = [found for found in bench.published if isinstance(found, events.StripeEncoded)]
    assert [found.geometry for found in encoded] == ["3+2"]


@pytest.mark.parametrize("writes_before_failure", [0, 1], ids=["while opening", "at the stripe"])
async def test_a_full_device_answers_so_and_uses_up_no_zones(
    bench: Bench, writes_before_failure: int
) -> None:
    await bench.write(bench.stripe())
    group = bench.groups._open[0]
    group.offset_bytes = group.capacity_bytes  # Filled, so that the next stripe opens another.
    full = next(
        device
        for device in bench.devices.values()
        if device.identity.device_id == group.zones[-1].device_id
    )
    for _ in range(20):
        full.failure = errors.DeviceFullError("no space left")
        full.writes_before_failure = writes_before_failure
        with pytest.raises(errors.StoreFullError):
            await bench.write(bench.stripe())
    assert bench.failed == []
    assert bench.group_zones() == WANTED.shards_count
    full.failure = None
    assert await bench.write(bench.stripe())


async def test_a_group_whose_stripes_are_in_use_is_sealed_when_it_falls_out_of_step(
    bench: Bench,
) -> None:
    first = await bench.write(bench.stripe())
    victim = bench.devices[bench.groups._open[0].zones[2].device_id]
    victim.failure = errors.DeviceGoneError("pulled out")
    bench.groups.settle(first)
    with pytest.raises(stripe_groups.GeometryChangedError):
        await bench.write(bench.stripe())
    await bench.groups.drain()
    assert bench.group_states() == [int(media_records.ZoneSetState.SEALED)]
    with bench.index.read() as reader:
        assert reader.get(media_records.group_key(first.group_id)) is not None


def _open_group_on_media(bench: Bench, *, formatted_count: int) -> media_records.GroupRecord:
    """What a start finds of a group whose opening was cut off."""
    record = media_records.GroupRecord(
        7, int(media_records.ZoneSetState.OPEN), "w", 4, 2, isal_codec.CODEC_ID,
        tuple((device_id, 0) for device_id in bench.devices),
    )  # fmt: skip
    with bench.index.write() as txn:
        txn.put(media_records.group_key(7), media_records.pack(record))
        owned = media_records.pack(media_records.ZoneRecord(int(zone_header.ZoneRole.GROUP), 7))
        for zone in media_records.zone_addresses(record.members):
            txn.put(media_records.zone_key(zone), owned)
        txn.commit()
    zones = media_records.zone_addresses(record.members)
    for position, device in enumerate(bench.devices.values()):
        block = memoryview(bytearray(zone_header.ZONE_HEADER_BYTES))
        if position < formatted_count:
            block[:] = zone_header.pack(
                zone_header.ZoneHeader(zone_header.ZoneRole.GROUP, position, 4, 2, 7, 0, zones)
            )
        # The others hold what an earlier owner left.
        device.write(ids.ZoneIndex(0), 0, block, durable=True)
    return record


@pytest.mark.parametrize("formatted_count", [0, 3])
async def test_a_group_cut_off_while_opening_is_formatted_before_it_is_used(
    bench: Bench, formatted_count: int
) -> None:
    record = _open_group_on_media(bench, formatted_count=formatted_count)
    assert await bench.write(bench.stripe()) == (7, zone_header.ZONE_HEADER_BYTES)
    for position, zone in enumerate(media_records.zone_addresses(record.members)):
        block = memoryview(bytearray(zone_header.ZONE_HEADER_BYTES))
        bench.devices[zone.device_id].read(zone.zone_index, 0, block)
        header = zone_header.unpack(block)
        assert header is not None
        assert (header.owner_id, header.member_index) == (7, position)


async def test_a_group_that_lost_a_zone_header_but_holds_data_is_left_alone(bench: Bench) -> None:
    record = _open_group_on_media(bench, formatted_count=5)
    with bench.index.write() as txn:
        liveness.add(txn, [l2p_record.StripeLocation(7, 4096, 16384, 65536, 0, 65536)])
        txn.commit()
    group_id, _ = await bench.write(bench.stripe())
    assert group_id != 7
    await bench.groups.drain()
    assert sorted(bench.group_states()) == [
        int(media_records.ZoneSetState.OPEN),
        int(media_records.ZoneSetState.SEALED),
    ]
    last = media_records.zone_addresses(record.members)[-1]
    reports = bench.devices[last.device_id].report()
    assert zone_header.ZONE_HEADER_BYTES in [
        report.write_pointer_bytes for report in reports if report.zone_index == last.zone_index
    ]


async def test_memory_that_a_stalled_device_may_yet_write_is_not_sealed_again() -> None:
    """Though enough devices are left to write the stripe elsewhere as it is."""
    bench = Bench(devices_count=8)
    await bench.write(bench.stripe())
    group = bench.first_group()
    bench.devices[ids.DeviceId(group.members[0][0])].failure = errors.DeviceStalledError("hangs")
    stripe = bench.stripe()
    with pytest.raises(stripe_groups.GeometryChangedError):
        await bench.write(stripe)
    header = shard.unpack(stripe.shard(0))
    assert header is not None
    assert header.group_id == group.group_id
    assert bench.groups.current_geometry() == WANTED


async def test_a_device_that_leaves_before_a_group_is_opened_changes_the_geometry(
    bench: Bench,
) -> None:
    writing = asyncio.ensure_future(bench.groups._take_now(WANTED, 4 * units.KIB))
    bench.media.remove(ids.DeviceId(f"{5:032x}"))
    with pytest.raises(stripe_groups.GeometryChangedError):
        await writing


async def test_a_cancelled_write_keeps_its_memory_until_its_threads_are_done(bench: Bench) -> None:
    class Body:
        size_bytes = 64 * units.KIB
        may_end_early = False

        async def readinto(self, *views: memoryview) -> int:
            return sum(map(len, views))

        async def finish(self) -> objects.BodyDigests:
            return objects.BodyDigests(etag="")

    async def lease_address(_: int) -> ids.ExtentAddress:
        return ADDRESS

    writer = body_writer.BodyWriter(
        groups=bench.groups,
        pool=bench.pool,
        stripe_bytes=64 * units.KIB,
        journal_threshold_bytes=4 * units.KIB,
        in_flight_bytes_max=1,
        lease_address=lease_address,
    )
    bench.hold = asyncio.Event()
    writing = asyncio.create_task(writer.write(Body()))
    for _ in range(100):
        await asyncio.sleep(0)
    assert bench.published, "the group is open; the codec is held"
    lent = bench.pool.lent_bytes
    writing.cancel()
    for _ in range(10):
        await asyncio.sleep(0)
    assert not writing.done()
    assert bench.pool.lent_bytes == lent
    bench.hold.set()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert bench.pool.lent_bytes == 0


async def test_a_stripe_waits_for_a_group_in_use_when_no_other_can_be_opened(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = bench.stripe()
    await bench.write(first)
    first.release()
    refused = 0

    async def full(wanted: geometry.StripeGeometry) -> open_group.OpenGroup:
        nonlocal refused
        refused += 1
        raise errors.StoreFullError("no zone is free")

    monkeypatch.setattr(bench.groups._opening, "open", full)
    stripes = [bench.stripe() for _ in range(3)]
    bench.hold = asyncio.Event()
    writes = asyncio.gather(*(bench.write(stripe) for stripe in stripes))
    for _ in range(10):
        await asyncio.sleep(0)
    bench.hold.set()
    places = await writes
    assert len({place.group_id for place in places}) == 1
    assert len({place.offset_bytes for place in places}) == 3
    assert refused >= 1
    for stripe in stripes:
        stripe.release()


def _states(bench: Bench) -> dict[int, int]:
    with bench.index.read() as reader:
        records = [
            media_records.unpack(media_records.GroupRecord, value)
            for _, value in reader.scan(*media_records.table_range(media_records.GROUPS))
        ]
    return {record.group_id: record.state for record in records}


async def _write(bench: Bench, shape: geometry.StripeGeometry = WANTED) -> int:
    place = await bench.write(bench.stripe(shape))
    bench.groups.settle(place)
    return place.group_id


@pytest.mark.parametrize("restarted", [False, True], ids=["its own", "of a former process"])
async def test_an_idle_writer_seals_what_keeps_a_device_from_being_emptied(
    bench: Bench, restarted: bool
) -> None:
    group_id = await _write(bench)
    if restarted:
        bench.start()
    leaving = next(iter(bench.devices))
    bench.media.hold(leaving)
    await bench.groups.leave_unfit()
    await bench.groups.drain()
    assert _states(bench) == {group_id: media_records.ZoneSetState.SEALED}
    # What is narrower than it has to be any more is sealed as well.
    narrow = await _write(bench, geometry.StripeGeometry(3, 2))
    assert _states(bench)[narrow] == media_records.ZoneSetState.OPEN
    bench.media.employ(leaving)
    await bench.groups.leave_unfit()
    await bench.groups.drain()
    assert _states(bench)[narrow] == media_records.ZoneSetState.SEALED
    wide = await _write(bench)
    await bench.groups.leave_unfit()
    assert _states(bench)[wide] == media_records.ZoneSetState.OPEN, "it is gone on with"
