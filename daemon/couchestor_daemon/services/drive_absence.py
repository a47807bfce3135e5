"""What a node would be without a device: whether one that fails its tests may be done without."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from couchestor_daemon.formats import media_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.ports import media as media_port
from couchestor_daemon.services import departures, repair_queue
from couchestor_domain import geometry, ids

LEFT_MIN: Final = 1
"""Devices that may still go after it, for every stripe and batch."""


def why_not_hold(media: media_port.Media, device_id: ids.DeviceId, *, devices_min: int) -> str:
    """Why a device must go on being given zones; empty: it need not.

    Args:
        devices_min: How many others must be there for that.
    """
    others_count = sum(each.device_id != device_id for each in media.healthy_devices())
    if others_count >= devices_min:
        return ""
    return (
        f"it stays in use all the same: there are {others_count} other devices to write to, and "
        f"{devices_min} are needed"
    )


def why_not_leave(
    index: index_port.IndexStore,
    media: media_port.Media,
    device_id: ids.DeviceId,
    *,
    shape: geometry.StripeGeometry,
) -> str:
    """Why a device must not be taken out of service; empty: it may. Blocking.

    Every device that something still refers to and that is not in service counts as lost, and so
    does one more while shards on other devices wait for repair.

    Raises:
        IndexCorruptError: a record cannot be read.
    """
    with index.read() as reader:
        lost = {
            member
            for record in _member_sets(reader)
            for member, _ in record
            if member != device_id and departures.is_lost(media, ids.DeviceId(member))
        }
        waits = _others_wait(reader, device_id)
    still = shape.parity_shards - len(lost) - waits - 1
    if still < LEFT_MIN:
        what = f"{len(lost)} devices are missing" + (", shards wait for repair" if waits else "")
        return (
            f"it stays in service: without it no further device could be lost ({what}, "
            f"{shape} coding)"
        )
    return why_not_hold(media, device_id, devices_min=shape.parity_shards + 1)


def _member_sets(reader: index_port.IndexReader) -> Iterator[departures.Members]:
    for _, value in reader.scan(*media_records.table_range(media_records.GROUPS)):
        yield media_records.unpack(media_records.GroupRecord, value).members
    for _, value in reader.scan(*media_records.table_range(media_records.SEGMENTS)):
        yield media_records.unpack(media_records.SegmentRecord, value).members


def _others_wait(reader: index_port.IndexReader, device_id: ids.DeviceId) -> bool:
    for group_id in repair_queue.groups(reader):
        value = reader.get(media_records.group_key(group_id))
        if value is None:
            continue
        members = media_records.unpack(media_records.GroupRecord, value).members
        if any(
            members[record.shard_index][0] != device_id
            for record in repair_queue.of_group(reader, group_id)
        ):
            return True
    return False
