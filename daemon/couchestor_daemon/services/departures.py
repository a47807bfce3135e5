"""Which segments and groups have members on devices that leave or have left, or too few members."""

from __future__ import annotations

from couchestor_daemon.formats import media_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.ports import media as media_port
from couchestor_daemon.services import zone_allocation
from couchestor_domain import errors, geometry, ids

Members = tuple[tuple[str, int], ...]


def is_lost(media: media_port.Media, device_id: ids.DeviceId) -> bool:
    """Whether a device is not in service."""
    try:
        media.device(device_id)
    except errors.DeviceGoneError:
        return True
    return False


def is_retiring(media: media_port.Media, device_id: ids.DeviceId) -> bool:
    """Whether a device in service is given nothing new."""
    try:
        return media.device(device_id).identity.retiring
    except errors.DeviceGoneError:
        return False


def has_lost_member(media: media_port.Media, members: Members) -> bool:
    """Whether a member is on a device that is not in service: its copy or shard is missing."""
    return any(is_lost(media, ids.DeviceId(device_id)) for device_id, _ in members)


def has_retiring_member(media: media_port.Media, members: Members) -> bool:
    """Whether a member is on a retiring device, which is to be emptied."""
    return any(is_retiring(media, ids.DeviceId(device_id)) for device_id, _ in members)


def is_narrow(
    media: media_port.Media, record: media_records.GroupRecord, wanted: geometry.StripeGeometry
) -> bool:
    """Whether a group has fewer data shards than the healthy devices would give one now."""
    now = geometry.shrink_to_healthy(wanted, len(media.healthy_devices()))
    return now is not None and record.data_shards < now.data_shards


def has_spare(
    reader: index_port.IndexReader, media: media_port.Media, record: media_records.GroupRecord
) -> bool:
    """Whether a healthy device that is no member of a group has a free zone for a lost shard."""
    members = {device_id for device_id, _ in record.members}
    return any(
        identity.device_id not in members and zone_allocation.free_zones(reader, identity)
        for identity in media.healthy_devices()
    )
