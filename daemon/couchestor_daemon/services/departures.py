"""Which segments and groups have members on devices that leave or have left, or too few members."""

from __future__ import annotations

from collections.abc import Iterable

from couchestor_daemon.formats import media_records
from couchestor_daemon.ports import device as device_port
from couchestor_daemon.ports import media as media_port
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
    media: media_port.Media,
    record: media_records.GroupRecord,
    roomy: Iterable[device_port.DeviceIdentity],
) -> bool:
    """Whether a device can take the place of a lost member of a group, as a rebuild goes by it.

    Args:
        roomy: Healthy devices with a zone free beyond the reserve.
    """
    members = {ids.DeviceId(device_id) for device_id, _ in record.members}
    # Each member that is there holds all that its zone would have to.
    capacity_bytes = min(
        (
            media.device(device_id).identity.zone_capacity_bytes
            for device_id in members
            if not is_lost(media, device_id)
        ),
        default=0,
    )
    return any(
        identity.device_id not in members and identity.zone_capacity_bytes >= capacity_bytes
        for identity in roomy
    )
