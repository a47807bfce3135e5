"""What the index says is on a device: nothing of it may be left when the device is taken out."""

from __future__ import annotations

from typing import NamedTuple

from couchestor_daemon.formats import media_records
from couchestor_daemon.ports import index as index_port
from couchestor_domain import ids


class DeviceUse(NamedTuple):
    """Zones that are not free, and how many sets have a member on the device."""

    zones_count: int
    groups_count: int
    segments_count: int
    checkpoints_count: int

    @property
    def is_none(self) -> bool:
        """Whether nothing refers to the device."""
        return not any(self)

    def __str__(self) -> str:
        return (
            f"{self.zones_count} zones, of {self.groups_count} stripe groups, "
            f"{self.segments_count} log segments and {self.checkpoints_count} checkpoints"
        )


def count(index: index_port.IndexStore, device_id: ids.DeviceId) -> DeviceUse:
    """Look through the tables of one snapshot. Blocking.

    Raises:
        IndexCorruptError: a record cannot be read.
    """
    with index.read() as reader:
        zones = sum(1 for _ in reader.scan(*media_records.device_zones_range(device_id)))
        groups = [
            media_records.unpack(media_records.GroupRecord, value).members
            for _, value in reader.scan(*media_records.table_range(media_records.GROUPS))
        ]
        segments = [
            media_records.unpack(media_records.SegmentRecord, value).members
            for _, value in reader.scan(*media_records.table_range(media_records.SEGMENTS))
        ]
        checkpoints = [
            tuple(zone for part in record.parts for zone in part)
            for record in (
                media_records.unpack(media_records.CheckpointRecord, value)
                for _, value in reader.scan(*media_records.table_range(media_records.CHECKPOINTS))
            )
        ]
    return DeviceUse(
        zones,
        *(
            sum(any(member == device_id for member, _ in members) for members in sets)
            for sets in (groups, segments, checkpoints)
        ),
    )
