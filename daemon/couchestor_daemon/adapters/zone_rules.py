"""What every zoned device demands of a command, in one place so that all adapters agree."""

from __future__ import annotations

from couchestor_daemon.ports import device as device_port
from couchestor_domain import errors, ids, units


def check_zone(identity: device_port.DeviceIdentity, zone: ids.ZoneIndex) -> None:
    """Raises ZoneStateError when the device has no such zone."""
    if not 0 <= zone < identity.zone_count:
        raise errors.ZoneStateError(
            f"device {identity.label} has {identity.zone_count} zones, none is number {zone}",
            device=identity.device_id,
        )


def check_range(
    identity: device_port.DeviceIdentity,
    zone: ids.ZoneIndex,
    *,
    offset_bytes: int,
    length_bytes: int,
) -> None:
    """Raises ZoneStateError for a range that is unaligned or outside the zone."""
    check_zone(identity, zone)
    if (
        (offset_bytes | length_bytes) % units.BLOCK_BYTES
        or offset_bytes < 0
        or offset_bytes + length_bytes > identity.zone_capacity_bytes
    ):
        raise errors.ZoneStateError(
            f"bytes {offset_bytes}+{length_bytes} are not whole blocks inside zone {zone} of "
            f"device {identity.label} ({identity.zone_capacity_bytes} bytes)",
            device=identity.device_id,
        )


def check_pointer(
    identity: device_port.DeviceIdentity,
    zone: ids.ZoneIndex,
    *,
    offset_bytes: int,
    pointer_bytes: int,
) -> None:
    """Raises ZoneStateError for a write that is not at the write pointer."""
    if offset_bytes != pointer_bytes:
        raise errors.ZoneStateError(
            f"write at {offset_bytes} in zone {zone} of device {identity.label}, whose write "
            f"pointer is {pointer_bytes}",
            device=identity.device_id,
        )


def zone_report(
    identity: device_port.DeviceIdentity, zone: ids.ZoneIndex, pointer_bytes: int
) -> device_port.ZoneReport:
    """Report of a zone whose write pointer is ``pointer_bytes``."""
    if pointer_bytes == 0:
        state = device_port.ZoneState.EMPTY
    elif pointer_bytes < identity.zone_capacity_bytes:
        state = device_port.ZoneState.OPEN
    else:
        state = device_port.ZoneState.FULL
    return device_port.ZoneReport(zone, state, min(pointer_bytes, identity.zone_capacity_bytes))
