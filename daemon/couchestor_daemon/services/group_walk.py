"""The stripes of a group as its shards tell them, without the index.

A group's zones hold stripes one after the other, but for what a crash left: a stripe that was being
written is torn, and the writer went on behind the highest write pointer of any member, which may be
inside the place the torn stripe would have filled. So a header alone does not say where the next
stripe begins. It does when the last block of its chunk verifies on some member: then that member's
write pointer had passed the end of the stripe, and nothing was written before it.

What a walk finds is what was written, not what is alive: the L2P says that. Bytes inside a torn
chunk can look like a shard, even be made to by a client; no L2P entry leads to such a place.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple, Protocol

from couchestor_daemon.formats import frame, media_records, shard, zone_header
from couchestor_daemon.ports import device as device_port
from couchestor_daemon.ports import media as media_port
from couchestor_daemon.services import stripe_reader
from couchestor_domain import errors, ids, units


class FoundStripe(NamedTuple):
    """A stripe that was written to its end on some member."""

    location: stripe_reader.StripeLocation
    extent_address: int
    """Logical address of its first data byte, or ``packed_stripe.ADDRESS``."""


def end_bytes(media: media_port.Media, zones: Sequence[ids.ZoneAddress]) -> int:
    """Where the walk of a group ends: the highest write pointer of the members in service.

    Blocking; 0 when no member is in service.
    """
    pointers = [0]
    for zone in zones:
        try:
            reports: Sequence[device_port.ZoneReport] = media.device(zone.device_id).report()
        except errors.DeviceError:
            continue
        pointers += [
            report.write_pointer_bytes for report in reports if report.zone_index == zone.zone_index
        ]
    return max(pointers)


class ZoneReader(Protocol):
    """The part of ``ports.media.Media`` that a walk needs."""

    def try_read(self, zone: ids.ZoneAddress, offset_bytes: int, buffer: memoryview) -> bool: ...

    async def read(self, zone: ids.ZoneAddress, offset_bytes: int, buffer: memoryview) -> None: ...


async def stripes(
    media: ZoneReader, record: media_records.GroupRecord, *, end_bytes: int
) -> AsyncIterator[FoundStripe]:
    """Stripes by offset, whole or damaged since, each from the first member that shows it.

    Members that cannot be read are passed over; a stripe is missed only when no member shows it.

    Args:
        end_bytes: See the function of this name; stripes that begin behind it are not looked for.
    """
    zones = media_records.zone_addresses(record.members)
    offset = zone_header.ZONE_HEADER_BYTES
    while offset < end_bytes:
        header = await _written_at(media, record, zones, offset)
        if header is None:
            offset += units.BLOCK_BYTES
            continue
        yield found_stripe(header)
        offset += shard.shard_bytes(header.chunk_bytes)


async def stripe_at(
    media: ZoneReader, record: media_records.GroupRecord, *, offset_bytes: int
) -> FoundStripe | None:
    """The stripe that some member shows at an offset."""
    zones = media_records.zone_addresses(record.members)
    header = await _written_at(media, record, zones, offset_bytes)
    return None if header is None else found_stripe(header)


def found_stripe(header: shard.ShardHeader) -> FoundStripe:
    """The stripe that a shard says it is part of."""
    return FoundStripe(
        stripe_reader.StripeLocation(
            header.group_id, header.stripe_offset_bytes, header.chunk_bytes, header.data_bytes
        ),
        header.extent_address,
    )


async def _written_at(
    media: ZoneReader,
    record: media_records.GroupRecord,
    zones: Sequence[ids.ZoneAddress],
    offset_bytes: int,
) -> shard.ShardHeader | None:
    for index, zone in enumerate(zones):
        try:
            header = await _header_at(media, zone, offset_bytes)
            if (
                header is not None
                and (header.group_id, header.stripe_offset_bytes, header.shard_index)
                == (record.group_id, offset_bytes, index)
                and (header.data_shards, header.parity_shards)
                == (record.data_shards, record.parity_shards)
                and await _has_its_end(media, zone, header)
            ):
                return header
        except errors.DeviceError:
            continue
    return None


async def _header_at(
    media: ZoneReader, zone: ids.ZoneAddress, offset_bytes: int
) -> shard.ShardHeader | None:
    window = memoryview(bytearray(units.BLOCK_BYTES))
    await _fill(media, zone, offset_bytes, window)
    announced = frame.announced_bytes(shard.MAGIC, window)
    if announced > shard.HEADER_BYTES_MAX:
        return None
    if announced > len(window):
        window = memoryview(bytearray(units.align_up(announced, units.BLOCK_BYTES)))
        await _fill(media, zone, offset_bytes, window)
    return shard.unpack(window)


async def _has_its_end(media: ZoneReader, zone: ids.ZoneAddress, header: shard.ShardHeader) -> bool:
    last_block = (header.chunk_bytes - 1) // header.checksum_block_bytes
    start = last_block * header.checksum_block_bytes
    window = memoryview(bytearray(header.chunk_bytes - start))
    place = header.stripe_offset_bytes + shard.header_bytes(header.chunk_bytes) + start
    await _fill(media, zone, place, window)
    return shard.verify_blocks(header, last_block, window)


async def _fill(
    media: ZoneReader, zone: ids.ZoneAddress, offset_bytes: int, view: memoryview
) -> None:
    if not media.try_read(zone, offset_bytes, view):
        await media.read(zone, offset_bytes, view)
