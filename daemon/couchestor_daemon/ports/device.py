"""A medium presented as append-only zones, whatever it is physically.

Blocking and thread-safe: services reach it through ``ports.media``, which gives each kind of
command a named, bounded thread pool.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from couchestor_domain import ids


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceIdentity:
    """Who a device is; written on the medium when it is formatted, checked at every start."""

    node_id: ids.NodeId
    device_id: ids.DeviceId
    label: str
    """Short name people see in messages, e.g. ``d3``."""
    failure_domain: str
    """Devices with the same value may fail together; the label by default."""
    zone_count: int
    zone_capacity_bytes: int
    joined_epoch: int
    """Number of the node start that last saw this device; an old copy has an older one."""
    members_count: int = 0
    """Devices the node had then, this one among them; 0: not recorded (superblock version 1)."""
    retiring: bool = False
    """Read from, but given no new zones."""


class ZoneState(enum.Enum):
    """State of a zone as the device knows it."""

    EMPTY = "empty"
    OPEN = "open"
    FULL = "full"


class ZoneReport(NamedTuple):
    """One zone."""

    zone_index: ids.ZoneIndex
    state: ZoneState
    write_pointer_bytes: int
    """Upper bound after a crash: bytes past the last flushed write may be torn or zero."""


class DeviceSpace(NamedTuple):
    """Capacity as the medium reports it now."""

    capacity_bytes: int
    """Zone count times zone capacity."""
    available_bytes: int
    """What can still be written, e.g. limited by the file system below a directory device."""


class ZonedDevice(Protocol):
    """Zones of one device. All offsets and lengths are multiples of ``units.BLOCK_BYTES``.

    Raises (every method): DeviceGoneError, DeviceIoError, ZoneStateError for a programming fault.
    """

    @property
    def identity(self) -> DeviceIdentity: ...

    def report(self) -> Sequence[ZoneReport]:
        """Every zone that is not empty, by index."""
        ...

    def read(
        self,
        zone: ids.ZoneIndex,
        offset_bytes: int,
        buffer: memoryview,
        *,
        past_cache: bool = False,
    ) -> None:
        """Fill ``buffer`` exactly. Reading past the write pointer gives zeros.

        Args:
            past_cache: From the medium itself, and without pushing anything out of the caches
                before it, where the file system can do that and ``buffer`` is block-aligned memory.
        """
        ...

    def write(
        self, zone: ids.ZoneIndex, offset_bytes: int, data: memoryview, *, durable: bool
    ) -> None:
        """Append ``data`` (block-aligned memory) at the write pointer, ``offset_bytes``.

        Durability: with ``durable`` on media when this returns; otherwise after ``flush``.

        Raises:
            DeviceFullError: the medium has no room; the write pointer has not moved.
            ZoneStateError: not at the write pointer, or beyond the capacity of the zone.
        """
        ...

    def flush(self, zones: Collection[ids.ZoneIndex]) -> None:
        """Make finished writes to ``zones`` durable. A failed flush is final for the device."""
        ...

    def reset(self, zone: ids.ZoneIndex) -> None:
        """Empty the zone, durably. Resetting an empty zone does nothing."""
        ...

    def space(self) -> DeviceSpace: ...

    def close(self) -> None:
        """Release handles; idempotent."""
        ...
