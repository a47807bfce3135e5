"""A device in RAM: for tests, and for scratch stores that may vanish with the process."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence

from couchestor_daemon.adapters import zone_rules
from couchestor_daemon.ports import device as device_port
from couchestor_domain import ids


class MemoryDevice:
    """Zones as byte arrays. Durable only as long as the object lives."""

    def __init__(self, identity: device_port.DeviceIdentity) -> None:
        self._identity = identity
        self._zones: dict[ids.ZoneIndex, bytearray] = {}
        self._lock = threading.Lock()

    @property
    def identity(self) -> device_port.DeviceIdentity:
        return self._identity

    def write_identity(self, identity: device_port.DeviceIdentity) -> None:
        """Replace the identity, e.g. with a newer ``joined_epoch``."""
        self._identity = identity

    def report(self) -> Sequence[device_port.ZoneReport]:
        with self._lock:
            return [
                zone_rules.zone_report(self._identity, zone, len(content))
                for zone, content in sorted(self._zones.items())
                if content
            ]

    def read(
        self,
        zone: ids.ZoneIndex,
        offset_bytes: int,
        buffer: memoryview,
        *,
        past_cache: bool = False,
    ) -> None:
        zone_rules.check_range(
            self._identity, zone, offset_bytes=offset_bytes, length_bytes=buffer.nbytes
        )
        with self._lock:
            content = self._zones.get(zone, b"")
            found = content[offset_bytes : offset_bytes + buffer.nbytes]
        buffer[: len(found)] = found
        buffer[len(found) :] = bytes(buffer.nbytes - len(found))

    def try_read(self, zone: ids.ZoneIndex, offset_bytes: int, buffer: memoryview) -> bool:
        """Always in memory, so always True."""
        self.read(zone, offset_bytes, buffer)
        return True

    def write(
        self, zone: ids.ZoneIndex, offset_bytes: int, data: memoryview, *, durable: bool
    ) -> None:
        zone_rules.check_range(
            self._identity, zone, offset_bytes=offset_bytes, length_bytes=data.nbytes
        )
        with self._lock:
            content = self._zones.get(zone)
            zone_rules.check_pointer(
                self._identity,
                zone,
                offset_bytes=offset_bytes,
                pointer_bytes=len(content) if content is not None else 0,
            )
            if content is None:
                content = self._zones[zone] = bytearray()
            content += data

    def flush(self, zones: Collection[ids.ZoneIndex]) -> None:
        for zone in zones:
            zone_rules.check_zone(self._identity, zone)

    def reset(self, zone: ids.ZoneIndex) -> None:
        zone_rules.check_zone(self._identity, zone)
        with self._lock:
            self._zones.pop(zone, None)

    def space(self) -> device_port.DeviceSpace:
        capacity = self._identity.zone_count * self._identity.zone_capacity_bytes
        with self._lock:
            used = sum(map(len, self._zones.values()))
        return device_port.DeviceSpace(capacity, capacity - used)

    def close(self) -> None:
        """Nothing to release; the content stays, so that a test can open it again."""
