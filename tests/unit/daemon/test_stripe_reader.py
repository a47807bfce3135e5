"""Verified and degraded reads over media in memory."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Any

import pytest
from tests.simulation import virtual_loop

from couchestor_daemon import buffers
from couchestor_daemon.adapters import codec_choice, isal_codec
from couchestor_daemon.formats import shard
from couchestor_daemon.ports import device as device_port
from couchestor_daemon.ports import media as media_port
from couchestor_daemon.services import hedging, shard_rows, stripe_assembly, stripe_reader
from couchestor_domain import errors, events, geometry, ids, units

GROUP = 42
OFFSET = 8192
BLOCK = shard.CHECKSUM_BLOCK_BYTES

# Loading reads files; a node does it in its self-test, before anything is served.
isal_codec.load_library()


class FakeMedia:
    """Zones as byte arrays; counts what is read; some devices are dead."""

    def __init__(self) -> None:
        self.zones: dict[ids.ZoneAddress, bytearray] = {}
        self.dead: set[ids.ZoneAddress] = set()
        self.starved: set[ids.ZoneAddress] = set()
        self.in_memory = False
        self.stalled: dict[ids.ZoneAddress, asyncio.Event] = {}
        self.reads: list[tuple[ids.ZoneAddress, int, int]] = []

    def _copy(self, zone: ids.ZoneAddress, offset_bytes: int, buffer: memoryview) -> None:
        assert offset_bytes % units.BLOCK_BYTES == 0
        assert len(buffer) % units.BLOCK_BYTES == 0
        self.reads.append((zone, offset_bytes, len(buffer)))
        if zone in self.dead:
            raise errors.DeviceGoneError(f"device {zone.device_id} is gone")
        if zone in self.starved:
            raise errors.DeviceStarvedError("Too many open files")
        found = bytes(self.zones[zone][offset_bytes : offset_bytes + len(buffer)])
        buffer[:] = found.ljust(len(buffer), b"\0")

    def try_read(self, zone: ids.ZoneAddress, offset_bytes: int, buffer: memoryview) -> bool:
        if not self.in_memory:
            buffer[:] = b"\x55" * len(buffer)  # The port leaves it undefined.
            return False
        self._copy(zone, offset_bytes, buffer)
        return True

    async def read(
        self,
        zone: ids.ZoneAddress,
        offset_bytes: int,
        buffer: memoryview,
        *,
        past_cache: bool = False,
        in_place: bool = False,
    ) -> None:
        if (event := self.stalled.get(zone)) is not None:
            # As a thread: it goes on to the end when nobody waits for it any more.
            self.reads.append((zone, offset_bytes, 0))
            cancelled = False
            while not event.is_set():
                try:
                    await event.wait()
                except asyncio.CancelledError:
                    cancelled = True
            self._copy(zone, offset_bytes, buffer)
            if cancelled:
                raise asyncio.CancelledError
            return
        self._copy(zone, offset_bytes, buffer)

    async def write(
        self, zone: ids.ZoneAddress, offset_bytes: int, data: memoryview, *, durable: bool
    ) -> None:
        content = self.zones.setdefault(zone, bytearray())
        content.extend(bytes(max(0, offset_bytes + len(data) - len(content))))
        content[offset_bytes : offset_bytes + len(data)] = data

    async def write_all(
        self, writes: Sequence[media_port.ZoneWrite], *, durable: bool
    ) -> list[errors.DeviceError]:
        for zone, offset_bytes, data in writes:
            await self.write(zone, offset_bytes, data, durable=durable)
        return []

    def write_all_blocking(
        self, writes: Sequence[media_port.ZoneWrite]
    ) -> list[errors.DeviceError]:
        raise AssertionError("a reader does not write")

    async def flush(self, zones: Collection[ids.ZoneAddress]) -> None: ...

    async def reset(self, zone: ids.ZoneAddress) -> None: ...

    def healthy_devices(self) -> Sequence[device_port.DeviceIdentity]:
        return ()

    def device(self, device_id: ids.DeviceId) -> device_port.ZonedDevice:
        raise errors.DeviceGoneError(device_id)

    def report_failure(self, device_id: ids.DeviceId, error: BaseException) -> None: ...


class Rig:
    """One written stripe and a reader."""

    def __init__(
        self,
        shape: geometry.StripeGeometry,
        data_bytes: int,
        policy: str,
        slow_reads: hedging.Hedging | None = None,
    ) -> None:
        self.media = FakeMedia()
        self.events: list[events.DomainEvent] = []
        self.damage: list[tuple[int, int, int, str]] = []
        self.off_loop_count = 0
        self.data = random.Random(data_bytes).randbytes(data_bytes)
        codec = codec_choice.choose(policy, shape)
        self.members = stripe_reader.GroupMembers(
            shape,
            codec.codec_id,
            tuple(
                ids.ZoneAddress(ids.DeviceId(f"{i:032x}"), ids.ZoneIndex(i))
                for i in range(shape.shards_count)
            ),
        )
        self.stripe = stripe_assembly.StripeBuffer(
            buffers.BufferPool(64 * units.MIB), shape, data_bytes
        )
        position = 0
        for view in self.stripe.fill_views():
            view[:] = self.data[position : position + len(view)]
            position += len(view)
        self.location = stripe_reader.StripeLocation(
            GROUP, OFFSET, self.stripe.chunk_bytes, data_bytes
        )
        self.reader = stripe_reader.StripeReader(
            self.media,
            codecs=codec_choice.by_id,
            publisher=self,
            on_damage=lambda *report: self.damage.append(report),
            run_codec=self.run_codec,
            slow_reads=slow_reads,
        )
        self.seal(GROUP, OFFSET)

    def publish(self, event: events.DomainEvent) -> None:
        self.events.append(event)

    async def run_codec(self, work: Callable[[], None]) -> None:
        self.off_loop_count += 1
        work()

    def seal(self, group_id: int, offset_bytes: int) -> None:
        self.stripe.seal(
            codec_choice.by_id(self.members.geometry, self.members.codec_id),
            group_id=group_id,
            stripe_offset_bytes=offset_bytes,
            writer_epoch=1,
            extent_address=0,
        )
        for index, zone in enumerate(self.members.zones):
            self.media.zones[zone] = bytearray(OFFSET) + bytearray(self.stripe.shard(index))

    async def read(self, start: int, length: int) -> bytes:
        out = bytearray(b"\xaa" * length)
        await self.reader.read(self.location, self.members, start, length, memoryview(out))
        return bytes(out)

    def content(self, index: int) -> bytearray:
        return self.media.zones[self.members.zones[index]]

    @property
    def header_bytes(self) -> int:
        return shard.header_bytes(self.location.chunk_bytes)

    def failed(self) -> set[int]:
        return {e.shard_index for e in self.events if isinstance(e, events.ShardFailed)}


def rig_of(k: int = 4, m: int = 2, data_bytes: int = 250_000, policy: str = "rs") -> Rig:
    return Rig(geometry.StripeGeometry(k, m), data_bytes, policy)


def some_ranges(rig: Rig, count: int) -> list[tuple[int, int]]:
    size, chunk = rig.location.data_bytes, rig.location.chunk_bytes
    rng = random.Random(size)
    ranges = [(0, size), (0, 1), (size - 1, 1), (0, 0), (min(chunk, size) - 1, 1)]
    if chunk < size:
        ranges.append((chunk - 1, 2))
    for _ in range(count):
        start = rng.randrange(size)
        ranges.append((start, rng.randint(1, size - start)))
    return ranges


@pytest.mark.parametrize("data_bytes", [10_000, 250_000, 1_300_000])
@pytest.mark.parametrize("in_memory", [False, True])
async def test_any_range_reads_back_without_events(data_bytes: int, in_memory: bool) -> None:
    rig = rig_of(data_bytes=data_bytes)
    rig.media.in_memory = in_memory
    for start, length in some_ranges(rig, 20):
        assert await rig.read(start, length) == rig.data[start : start + length], (start, length)
    assert rig.events == []
    assert rig.damage == []


async def test_a_small_read_is_one_device_read_and_rows_only_once_the_header_is_known() -> None:
    rig = rig_of(data_bytes=1_300_000)
    await rig.read(100, 4096)
    assert [(o, n) for _, o, n in rig.media.reads] == [(OFFSET, rig.header_bytes + BLOCK)]
    rig.media.reads.clear()
    await rig.read(5 * BLOCK + 1, 10)
    assert [(o, n) for _, o, n in rig.media.reads] == [
        (OFFSET + rig.header_bytes + 5 * BLOCK, BLOCK)
    ]


@pytest.mark.parametrize(("k", "m"), [(4, 2), (1, 2), (2, 2)])
async def test_every_loss_up_to_m_is_served(k: int, m: int) -> None:
    rig = rig_of(k, m, data_bytes=90_000)
    ranges = some_ranges(rig, 2)
    for count in range(1, m + 1):
        for lost in itertools.combinations(range(k + m), count):
            rig.media.dead = {rig.members.zones[i] for i in lost}
            for start, length in ranges:
                found = await rig.read(start, length)
                assert found == rig.data[start : start + length], (lost, start, length)
    assert any(isinstance(event, events.DegradedRead) for event in rig.events)


async def test_a_device_that_leaves_after_its_header_was_read_is_decoded_around() -> None:
    rig = rig_of(data_bytes=256 * units.KIB)
    rig.media.in_memory = True
    assert await rig.read(0, len(rig.data)) == rig.data
    rig.media.dead = {rig.members.zones[1]}
    assert await rig.read(0, len(rig.data)) == rig.data
    assert rig.failed() == {1}


@pytest.mark.parametrize("in_memory", [False, True])
async def test_what_was_read_for_the_client_is_not_read_again_to_decode(in_memory: bool) -> None:
    rig = rig_of(data_bytes=units.MIB)
    await rig.read(0, rig.location.data_bytes)
    rig.media.dead = {rig.members.zones[1]}
    rig.media.in_memory = in_memory
    rig.media.reads.clear()
    assert await rig.read(0, rig.location.data_bytes) == rig.data
    bodies = [zone.zone_index for zone, _, n in rig.media.reads if n > units.BLOCK_BYTES]
    assert sorted(index for index in bodies if index != 1) == [0, 2, 3, 4]


@pytest.mark.parametrize("lost", list(itertools.combinations(range(6), 3)))
async def test_every_loss_above_m_names_what_failed(lost: tuple[int, ...]) -> None:
    rig = rig_of(data_bytes=90_000)
    rig.media.dead = {rig.members.zones[i] for i in lost}
    with pytest.raises(errors.InsufficientShardsError) as caught:
        await rig.read(0, rig.location.data_bytes)
    assert caught.value.context["group"] == GROUP
    assert caught.value.context["offset"] == OFFSET
    assert caught.value.context["failed_shards"] == lost
    assert all(f"shard {index} on device" in str(caught.value) for index in lost)


async def test_a_degraded_range_reads_only_its_rows_of_k_shards() -> None:
    rig = rig_of(data_bytes=1_300_000)
    await rig.read(0, rig.location.data_bytes)
    rig.media.dead = {rig.members.zones[1]}
    rig.media.reads.clear()
    start = rig.location.chunk_bytes + 3 * BLOCK + 5
    assert await rig.read(start, 100) == rig.data[start : start + 100]
    tried = [zone.zone_index for zone, _, _ in rig.media.reads]
    assert tried == [1, 0, 2, 3, 4]
    rows = OFFSET + rig.header_bytes + 3 * BLOCK
    assert all((o, n) == (rows, BLOCK) for z, o, n in rig.media.reads if z.zone_index != 4)
    degraded = [event for event in rig.events if isinstance(event, events.DegradedRead)]
    assert [event.missing_shards for event in degraded] == [(1,)]
    assert rig.failed() == {1}
    assert [report[:3] for report in rig.damage] == [(GROUP, OFFSET, 1)]


async def test_what_a_process_lacks_descriptors_for_is_read_around_and_not_repaired() -> None:
    rig = rig_of(data_bytes=1_300_000)
    rig.media.starved = {rig.members.zones[1]}
    assert await rig.read(0, rig.location.data_bytes) == rig.data
    assert rig.damage == []
    assert rig.failed() == set()
    rig.media.starved = set(rig.members.zones)
    with pytest.raises(errors.InsufficientShardsError, match="cannot be read now: Too many open"):
        await rig.read(0, rig.location.data_bytes)
    assert rig.damage == []


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("data_bytes", [90_000, 1_300_000])
async def test_a_flipped_bit_anywhere_in_a_shard_is_never_served(
    cached: bool, data_bytes: int
) -> None:
    rig = rig_of(data_bytes=data_bytes)
    if cached:
        await rig.read(0, data_bytes)
    rng = random.Random(5)
    header_places = () if cached else (3, 30, 60, 80)
    chunk_places = [rig.header_bytes + rng.randrange(rig.location.chunk_bytes) for _ in range(8)]
    for place in (*header_places, *chunk_places):
        rig.events.clear()
        rig.content(0)[OFFSET + place] ^= 4
        assert await rig.read(0, data_bytes) == rig.data, place
        assert rig.failed() == {0}, place
        rig.content(0)[OFFSET + place] ^= 4
    rig.events.clear()
    assert await rig.read(0, data_bytes) == rig.data
    assert rig.events == []


async def test_damage_found_while_decoding_is_replaced_by_further_shards() -> None:
    rig = rig_of(data_bytes=90_000)
    rig.media.dead = {rig.members.zones[0]}
    rig.content(2)[OFFSET + rig.header_bytes] ^= 1
    assert await rig.read(0, 10) == rig.data[:10]
    assert rig.failed() == {0, 2}
    assert len(rig.damage) == 2


@pytest.mark.parametrize("case", ["index", "group", "offset", "zeros"])
async def test_another_shard_in_place_is_not_believed(case: str) -> None:
    rig = rig_of(data_bytes=90_000)
    right = bytes(rig.content(1))
    zones = {zone: bytes(content) for zone, content in rig.media.zones.items()}
    if case == "index":
        wrong = bytes(rig.content(3))
    elif case == "zeros":
        wrong = bytes(len(right))
    else:
        rig.seal(GROUP + (case == "group"), OFFSET + 4096 * (case == "offset"))
        wrong = bytes(rig.content(1))
        assert wrong != right
    rig.media.zones = {zone: bytearray(content) for zone, content in zones.items()}
    rig.content(1)[:] = wrong
    assert await rig.read(0, 90_000) == rig.data
    assert rig.failed() == {1}


async def test_large_decoding_leaves_the_event_loop() -> None:
    rig = rig_of(data_bytes=1_300_000)
    rig.media.dead = {rig.members.zones[0], rig.members.zones[2]}
    assert await rig.read(0, 1_300_000) == rig.data
    assert rig.off_loop_count == 1
    await rig.read(0, 100)
    assert rig.off_loop_count == 1


async def test_lrc_reads_more_shards_when_the_first_k_do_not_suffice() -> None:
    rig = rig_of(8, 4, data_bytes=200_000, policy="lrc")
    for lost in itertools.combinations(range(12), 3):
        rig.media.dead = {rig.members.zones[i] for i in lost}
        assert await rig.read(0, 30_000) == rig.data[:30_000], lost


async def test_the_header_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_rows, "HEADERS_KEPT_MAX", 2)
    rig = rig_of(data_bytes=90_000)
    await rig.read(0, 90_000)
    assert len(rig.reader._rows._headers) == 2


@pytest.mark.parametrize(("start", "length"), [(90_000, 1), (-1, 2), (0, 90_001)])
async def test_a_range_outside_the_stripe_is_refused(start: int, length: int) -> None:
    rig = rig_of(data_bytes=90_000)
    with pytest.raises(errors.StripeNotFoundError):
        await rig.read(start, length)


async def test_whole_shards_are_read_and_verified_raw() -> None:
    rig = rig_of(data_bytes=90_000)
    out = memoryview(bytearray(rig.stripe.shard_bytes))
    header = await rig.reader.read_shard_raw(rig.location, rig.members, 5, out)
    assert header.shard_index == 5
    assert out == rig.stripe.shard(5)
    rig.content(5)[-1] ^= 1
    with pytest.raises(errors.StripeNotFoundError, match="checksums"):
        await rig.reader.read_shard_raw(rig.location, rig.members, 5, out)
    rig.content(5)[OFFSET] ^= 1
    with pytest.raises(errors.StripeNotFoundError, match="not there"):
        await rig.reader.read_shard_raw(rig.location, rig.members, 5, out)
    rig.media.dead = {rig.members.zones[5]}
    with pytest.raises(errors.DeviceGoneError):
        await rig.reader.read_shard_raw(rig.location, rig.members, 5, out)
    assert rig.damage == []


class Hedged:
    """A rig whose reader knows that reads take a few milliseconds."""

    def __init__(self) -> None:
        self.policy = hedging.Hedging(lambda: asyncio.get_running_loop().time())
        self.rig = Rig(geometry.StripeGeometry(4, 2), units.MIB, "rs", self.policy)
        self.teach()

    def teach(self) -> None:
        for _ in range(hedging.SAMPLES_PER_DEVICE):
            for zone in self.rig.members.zones:
                self.policy.measured(zone.device_id, 5e-3)

    def stall(self, *members: int) -> None:
        for member in members:
            self.rig.media.stalled[self.rig.members.zones[member]] = asyncio.Event()

    def resume(self) -> None:
        for event in self.rig.media.stalled.values():
            event.set()


def in_virtual_time(scenario: Callable[[Hedged], Coroutine[Any, Any, None]]) -> None:
    """Run with time that a busy machine cannot stretch: what is slow here is what was stalled."""

    async def whole() -> None:
        hedged = Hedged()
        try:
            await scenario(hedged)
        finally:
            hedged.resume()
            await hedged.rig.reader.drain()

    loop = virtual_loop.VirtualLoop("hedged")  # type: ignore[abstract]
    loop.run(whole(), interrupted=lambda: False)


@pytest.mark.parametrize("stalled", [(1,), (0, 3), (4,), (2, 5)])
@pytest.mark.parametrize("whole", [True, False])
def test_a_stalled_device_does_not_hold_a_read_up(stalled: tuple[int, ...], whole: bool) -> None:
    async def scenario(hedged: Hedged) -> None:
        rig = hedged.rig
        hedged.stall(*stalled)
        start, length = (
            (0, len(rig.data)) if whole else (rig.location.chunk_bytes * stalled[0] // 2, 99)
        )
        out = bytearray(length)
        async with asyncio.timeout(5):
            await rig.reader.read(rig.location, rig.members, start, length, memoryview(out))
        assert out == rig.data[start : start + length]
        # The memory is the caller's again: what still waits must not write there.
        out[:] = b"\x77" * length
        hedged.resume()
        await rig.reader.drain()
        assert out == b"\x77" * length
        assert rig.damage == []
        assert rig.events == [], "slow is not damaged"

    in_virtual_time(scenario)


def test_a_device_that_stalls_on_is_not_asked_for_a_while() -> None:
    async def scenario(hedged: Hedged) -> None:
        rig = hedged.rig
        hedged.stall(1)
        for _ in range(hedging.STRIKES_MAX):
            assert await rig.read(0, len(rig.data)) == rig.data
        rig.media.reads.clear()
        hedges = hedged.policy.hedges_count
        for _ in range(20):
            assert await rig.read(0, len(rig.data)) == rig.data
        assert 1 not in {zone.zone_index for zone, _, _ in rig.media.reads}
        assert hedged.policy.hedges_count == hedges, "going without it is no hedge"
        hedged.resume()
        await rig.reader.drain()

    in_virtual_time(scenario)


def test_more_slow_devices_than_parity_are_waited_for() -> None:
    async def scenario(hedged: Hedged) -> None:
        rig = hedged.rig
        hedged.stall(0, 1, 2)
        reading = asyncio.create_task(rig.read(0, len(rig.data)))
        await asyncio.sleep(0.05)
        assert not reading.done()
        hedged.resume()
        assert await reading == rig.data
        assert hedged.policy.hedges_count == 0

    in_virtual_time(scenario)


def test_when_hedges_are_used_up_reads_wait() -> None:
    async def scenario(hedged: Hedged) -> None:
        rig = hedged.rig
        while hedged.policy.take():
            pass
        hedged.stall(2)
        reading = asyncio.create_task(rig.read(0, len(rig.data)))
        await asyncio.sleep(0.05)
        assert not reading.done()
        hedged.resume()
        assert await reading == rig.data

    in_virtual_time(scenario)


def test_a_slow_device_and_a_dead_one_are_decoded_around_together() -> None:
    async def scenario(hedged: Hedged) -> None:
        rig = hedged.rig
        hedged.stall(3)
        rig.media.dead = {rig.members.zones[0]}
        async with asyncio.timeout(5):
            assert await rig.read(0, len(rig.data)) == rig.data
        assert rig.failed() == {0}
        degraded = [event for event in rig.events if isinstance(event, events.DegradedRead)]
        assert [event.missing_shards for event in degraded] == [(0,)]
        hedged.resume()
        await rig.reader.drain()

    in_virtual_time(scenario)


def test_a_slow_device_is_waited_for_when_the_others_do_not_suffice() -> None:
    async def scenario(hedged: Hedged) -> None:
        rig = hedged.rig
        hedged.stall(3)
        rig.media.dead = {rig.members.zones[4], rig.members.zones[5]}
        reading = asyncio.create_task(rig.read(0, len(rig.data)))
        await asyncio.sleep(0.05)
        assert not reading.done()
        hedged.resume()
        assert await reading == rig.data

    in_virtual_time(scenario)
