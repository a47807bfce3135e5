"""Choosing free zones for a segment or group, inside a write transaction."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from couchestor_daemon.formats import media_records, zone_header
from couchestor_daemon.ports import device as device_port
from couchestor_daemon.ports import index as index_port
from couchestor_domain import errors, ids, placement

RESERVE_DIVISOR: Final = 4
"""However many zones are asked to be kept free, no more than this part of a device is."""


def free_zones(
    txn: index_port.IndexReader, identity: device_port.DeviceIdentity
) -> list[ids.ZoneIndex]:
    """Zones of a device that the index says nothing owns, lowest first."""
    start, stop = media_records.device_zones_range(identity.device_id)
    used = {media_records.zone_index_of(key) for key, _ in txn.scan(start, stop)}
    return [ids.ZoneIndex(index) for index in range(identity.zone_count) if index not in used]


MOVING_ROOM_DIVISOR: Final = 32
MOVING_ROOM_ZONES_MAX: Final = 8
"""Zones of a device that are left to what moves live bytes together, that part of it or so many.
With fewer it moves a group, then waits until the zones that this emptied are released."""


def kept_free_count(
    identity: device_port.DeviceIdentity, keep_free_count: int, *, leaves_moving_room: bool = False
) -> int:
    """How many zones of a device are not for the asker: the reserve as asked for and the room to
    move in, or the largest part of the device."""
    if leaves_moving_room:
        keep_free_count += min(identity.zone_count // MOVING_ROOM_DIVISOR, MOVING_ROOM_ZONES_MAX)
    return min(keep_free_count, identity.zone_count // RESERVE_DIVISOR)


def allocate(
    txn: index_port.IndexWriter,
    devices: Sequence[device_port.DeviceIdentity],
    *,
    count: int,
    role: zone_header.ZoneRole,
    owner_id: int,
    keep_free_count: int = 0,
    reserve_share_count: int = 0,
    leaves_moving_room: bool = False,
    avoid: Collection[ids.ZoneAddress] = (),
) -> tuple[ids.ZoneAddress, ...]:
    """Take one zone on each of ``count`` distinct devices and record the ownership.

    Args:
        keep_free_count: Zones of each device that must stay free: a reserve for what may not fail
            on a full store, such as deletes.
        reserve_share_count: How many of those may be taken all the same: by what gives more zones
            back than it takes.
        leaves_moving_room: Whether the zones that moving needs must stay free too: for whatever
            makes the store fuller.

    Raises:
        StoreReadOnlyError: fewer than ``count`` devices are healthy.
        StoreFullError: enough devices, but not enough with a free zone beyond the reserve.
    """
    free: dict[ids.DeviceId, list[ids.ZoneIndex]] = {}
    for identity in devices:
        free[identity.device_id] = [
            zone
            for zone in free_zones(txn, identity)
            if ids.ZoneAddress(identity.device_id, zone) not in avoid
        ]
    chosen = placement.choose_devices(
        [
            placement.Candidate(
                device_id=identity.device_id,
                failure_domain=identity.failure_domain,
                free_zones_count=max(
                    0,
                    len(free[identity.device_id])
                    - max(
                        0,
                        kept_free_count(
                            identity, keep_free_count, leaves_moving_room=leaves_moving_room
                        )
                        - reserve_share_count,
                    ),
                ),
                open_zones_count=0,
            )
            for identity in devices
        ],
        count,
    )
    zones = tuple(ids.ZoneAddress(device_id, free[device_id][0]) for device_id in chosen)
    if len(set(zones)) != count:
        raise errors.StoreReadOnlyError(f"placement gave {len(set(zones))} of {count} zones")
    record = media_records.pack(media_records.ZoneRecord(int(role), owner_id))
    for zone in zones:
        txn.put(media_records.zone_key(zone), record)
    return zones


def allocate_replacement(
    txn: index_port.IndexWriter,
    devices: Sequence[device_port.DeviceIdentity],
    *,
    replaced: ids.ZoneAddress,
    taken_domains: Sequence[str],
    owner_id: int,
    keep_free_count: int,
) -> ids.ZoneAddress:
    """Take a zone for what a rebuild writes in place of a member of group ``owner_id``.

    Args:
        devices: Healthy ones that hold no other member and whose zones are large enough.
        taken_domains: Failure domain of each other member.

    Raises:
        StoreReadOnlyError, StoreFullError: as ``placement.choose_spare``.
    """
    free = {identity.device_id: free_zones(txn, identity) for identity in devices}
    device_id = placement.choose_spare(
        [
            _candidate(identity, len(free[identity.device_id]), keep_free_count)
            for identity in devices
        ],
        preferred=replaced.device_id,
        taken_domains=taken_domains,
    )
    zone = ids.ZoneAddress(device_id, free[device_id][0])
    txn.put(
        media_records.zone_key(zone),
        media_records.pack(media_records.ZoneRecord(int(zone_header.ZoneRole.REBUILD), owner_id)),
    )
    return zone


def _candidate(
    identity: device_port.DeviceIdentity, free_count: int, keep_free_count: int
) -> placement.Candidate:
    kept = kept_free_count(identity, keep_free_count)
    return placement.Candidate(
        device_id=identity.device_id,
        failure_domain=identity.failure_domain,
        free_zones_count=max(0, free_count - kept),
    )
