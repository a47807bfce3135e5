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
    with pool.acquire(zone_header.ZONE_HEADER_BYTES) as buffer:
        block = buffer.view[: zone_header.ZONE_HEADER_BYTES]
        for position, zone in enumerate(zones):
            await media.reset(zone)
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
            await media.write(zone, 0, block, durable=True)


async def are_formatted(
    media: media_port.Media,
    record: media_records.GroupRecord,
    zones: Sequence[ids.ZoneAddress],
) -> bool:
    """Whether every zone carries the group's header. Raises DeviceError.

    Without them all, the group was cut off before its first stripe, and its zones may hold what an
    earlier owner left; or bytes were lost.
    """
    block = memoryview(bytearray(zone_header.ZONE_HEADER_BYTES))
    for position, zone in enumerate(zones):
        await media.read(zone, 0, block)
        header = zone_header.unpack(block)
        if header is None or (header.role, header.owner_id, header.member_index) != (
            zone_header.ZoneRole.GROUP,
            record.group_id,
            position,
        ):
            return False
    return True
