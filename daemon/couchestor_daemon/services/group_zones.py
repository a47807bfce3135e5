"""Headers of a stripe group's zones: written before the first stripe, looked at before going on."""

from __future__ import annotations

from collections.abc import Sequence

from couchestor_daemon import buffers
from couchestor_daemon.formats import media_records, zone_header
from couchestor_daemon.ports import media as media_port
from couchestor_domain import ids


async def format_zones(
    media: media_port.Media,
    pool: buffers.BufferPool,
    record: media_records.GroupRecord,
    zones: tuple[ids.ZoneAddress, ...],
) -> None:
    """Empty the member zones and write their headers, durably. Raises DeviceError."""
    for position in range(len(zones)):
        await format_zone(media, pool, record, zones, position=position)


async def format_zone(
    media: media_port.Media,
    pool: buffers.BufferPool,
    record: media_records.GroupRecord,
    zones: tuple[ids.ZoneAddress, ...],
    *,
    position: int,
) -> None:
    """Empty the zone at ``position`` and write its header, durably. Raises DeviceError."""
    with pool.acquire(zone_header.ZONE_HEADER_BYTES) as buffer:
        block = buffer.view[: zone_header.ZONE_HEADER_BYTES]
        await media.reset(zones[position])
        block[:] = zone_header.pack(
            zone_header.ZoneHeader(
                zone_header.ZoneRole.GROUP,
                position,
                record.data_shards,
                record.parity_shards,
                record.group_id,
                0,
                zones,
            )
        )
        await media.write(zones[position], 0, block, durable=True)


async def are_formatted(
    media: media_port.Media,
    record: media_records.GroupRecord,
    zones: Sequence[ids.ZoneAddress],
) -> bool:
    """Whether every zone carries the group's header. Raises DeviceError.

    Without them all, the group was cut off before its first stripe, and its zones may hold what an
    earlier owner left; or bytes were lost.
    """
    for position, zone in enumerate(zones):
        if not await is_formatted(media, record, zone, position=position):
            return False
    return True


async def is_formatted(
    media: media_port.Media,
    record: media_records.GroupRecord,
    zone: ids.ZoneAddress,
    *,
    position: int,
) -> bool:
    """Whether one zone carries the header of member ``position``. Raises DeviceError."""
    block = memoryview(bytearray(zone_header.ZONE_HEADER_BYTES))
    await media.read(zone, 0, block, past_cache=True)
    header = zone_header.unpack(block)
    return header is not None and (header.role, header.owner_id, header.member_index) == (
        zone_header.ZoneRole.GROUP,
        record.group_id,
        position,
    )
