"""Walking the stripes of a group over what crashes and damage leave."""

from __future__ import annotations

import asyncio

import pytest

from couchestor_daemon import buffers
from couchestor_daemon.adapters import codec_choice, inline_media, isal_codec, memory_device
from couchestor_daemon.formats import media_records, zone_header
from couchestor_daemon.ports import device as device_port
from couchestor_daemon.services import group_walk, group_zones, log_segment, stripe_assembly
from couchestor_domain import errors, geometry, ids, units

SHAPE = geometry.StripeGeometry(2, 1)
ZONE = ids.ZoneIndex(3)
GROUP = 7

isal_codec.load_library()


class Group:
    """One group over three devices in memory, written by hand."""

    def __init__(self) -> None:
        self.devices = {}
        for number in range(SHAPE.shards_count):
            identity = device_port.DeviceIdentity(
                node_id=ids.NodeId("a" * 32),
                device_id=ids.DeviceId(f"{number:032x}"),
                label=f"d{number}",
                failure_domain=f"d{number}",
                zone_count=8,
                zone_capacity_bytes=units.MIB,
                joined_epoch=1,
            )
            self.devices[identity.device_id] = memory_device.MemoryDevice(identity)
        self.media = inline_media.InlineMedia(self.devices, lambda device_id, error: None)
        self.pool = buffers.BufferPool(8 * units.MIB)
        self.record = media_records.GroupRecord(
            GROUP, 1, "w", 2, 1, 0, tuple((device_id, int(ZONE)) for device_id in self.devices)
        )
        self.zones = media_records.zone_addresses(self.record.members)
        self.offset_bytes = zone_header.ZONE_HEADER_BYTES

    async def format(self) -> None:
        await group_zones.format_zones(self.media, self.pool, self.record, self.zones)

    def sealed(self, data_bytes: int) -> stripe_assembly.StripeBuffer:
        stripe = stripe_assembly.StripeBuffer(self.pool, SHAPE, data_bytes)
        for view in stripe.fill_views():
            view[:] = b"\x5a" * len(view)
        stripe.seal(
            codec_choice.choose("rs", SHAPE),
            group_id=GROUP,
            stripe_offset_bytes=self.offset_bytes,
            writer_epoch=0,
            extent_address=data_bytes,
        )
        return stripe

    async def append(self, data_bytes: int, *, torn_bytes: int = 0) -> int:
        """Write a stripe; or only its first ``torn_bytes``, and go on as after a crash."""
        stripe = self.sealed(data_bytes)
        offset = self.offset_bytes
        taken = torn_bytes or stripe.shard_bytes
        for index, zone in enumerate(self.zones):
            await self.media.write(zone, offset, stripe.shard(index)[:taken], durable=True)
        stripe.release()
        self.offset_bytes = log_segment.level_zones(
            self.media, self.zones, memoryview(bytearray(units.BLOCK_BYTES))
        )
        return offset

    async def found(self) -> list[tuple[int, int]]:
        """Offset and data bytes of each stripe the walk gives."""
        end = group_walk.end_bytes(self.media, self.zones)
        return [
            (found.location.stripe_offset_bytes, found.location.data_bytes)
            async for found in group_walk.stripes(self.media, self.record, end_bytes=end)
        ]

    def rot(self, member: int, offset_bytes: int) -> None:
        zone = self.devices[self.zones[member].device_id]._zones[ZONE]
        zone[offset_bytes] ^= 0xFF


@pytest.fixture
def group() -> Group:
    made = Group()
    asyncio.run(made.format())
    return made


async def test_stripes_of_any_length_come_in_order(group: Group) -> None:
    lengths = [1, 4096, 100_000, 8192, 40_000]
    offsets = [await group.append(length) for length in lengths]
    assert await group.found() == list(zip(offsets, lengths, strict=True))


async def test_an_empty_group_has_none(group: Group) -> None:
    assert await group.found() == []


@pytest.mark.parametrize("torn_bytes", [4096, 8192, 40_960])
async def test_a_torn_stripe_hides_nothing_behind_it(group: Group, torn_bytes: int) -> None:
    first = await group.append(20_000)
    await group.append(150_000, torn_bytes=torn_bytes)
    behind = [await group.append(9_000), await group.append(5_000)]
    assert await group.found() == [(first, 20_000), (behind[0], 9_000), (behind[1], 5_000)]


async def test_damage_and_missing_members_hide_nothing_another_member_shows(group: Group) -> None:
    offsets = [await group.append(length) for length in (30_000, 40_000, 50_000)]
    group.rot(0, offsets[0] + 30)
    group.rot(0, offsets[1] + 4096 + 20_000 - 1)
    group.media.report_failure(group.zones[1].device_id, errors.DeviceGoneError("pulled out"))
    assert [offset for offset, _ in await group.found()] == offsets


async def test_a_stripe_that_no_member_shows_is_passed_over(group: Group) -> None:
    first, second = await group.append(30_000), await group.append(40_000)
    for member in range(SHAPE.shards_count):
        group.rot(member, first + 30)
    assert await group.found() == [(second, 40_000)]


async def test_what_an_earlier_owner_left_is_not_taken_for_the_group(group: Group) -> None:
    await group.append(30_000)
    group.record = media_records.GroupRecord(GROUP + 1, 1, "w", 2, 1, 0, group.record.members)
    assert await group.found() == []
