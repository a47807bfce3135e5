"""All devices of the node as one asynchronous medium: the service boundary of device I/O.

A shard's address is (device, zone, offset); a later adapter adds the node.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

from couchestor_daemon.ports import device as device_port
from couchestor_domain import errors, ids


class ZoneWrite(NamedTuple):
    """One append of a set: block-aligned ``data`` at the write pointer of a zone."""

    zone: ids.ZoneAddress
    offset_bytes: int
    data: memoryview


class Media(Protocol):
    """Reads and writes by zone address; raises what ``ZonedDevice`` raises.

    A device that raises DeviceGoneError or fails a write or flush is taken out: it is no longer
    in ``healthy_devices`` and later commands to it raise DeviceGoneError at once. So is one that
    leaves a command without an end for too long: that command raises DeviceStalledError and may
    take effect at any later time, until the node is started again. The memory of a read is safe
    from it unless it was read ``in_place``, that of a write is not to be changed by whoever owns
    it, unless a pool lent it.
    """

    def healthy_devices(self) -> Sequence[device_port.DeviceIdentity]:
        """Devices that may be given new zones: in service, not retiring; ordered by label."""
        ...

    def try_read(self, zone: ids.ZoneAddress, offset_bytes: int, buffer: memoryview) -> bool:
        """Read without blocking when the bytes are in memory; False when it would wait."""
        ...

    async def read(
        self,
        zone: ids.ZoneAddress,
        offset_bytes: int,
        buffer: memoryview,
        *,
        past_cache: bool = False,
        in_place: bool = False,
    ) -> None:
        """Fill ``buffer``.

        Args:
            past_cache: As of ``ZonedDevice.read``.
            in_place: Without a copy: the device fills the buffer itself. After DeviceStalledError
                the caller must not use it any more, for it may be written to at any later time; a
                pool does not lend it again.
        """
        ...

    async def write(
        self, zone: ids.ZoneAddress, offset_bytes: int, data: memoryview, *, durable: bool
    ) -> None: ...

    async def write_all(
        self, writes: Sequence[ZoneWrite], *, durable: bool
    ) -> list[errors.DeviceError]:
        """Carry out writes to distinct zones in parallel; the failures after all have ended.

        Cancellation: waits for what has started, so the data is never read afterwards.
        """
        ...

    def write_all_blocking(self, writes: Sequence[ZoneWrite]) -> list[errors.DeviceError]:
        """As a durable ``write_all``, for a thread that may wait: the commit thread.

        A device leaves for any failure here but a full medium.
        """
        ...

    async def flush(self, zones: Collection[ids.ZoneAddress]) -> None:
        """Flush each device concerned, in parallel; raises the first failure after all ended."""
        ...

    async def reset(self, zone: ids.ZoneAddress) -> None: ...

    def device(self, device_id: ids.DeviceId) -> device_port.ZonedDevice:
        """The blocking device, for the commit thread and for recovery. Raises DeviceGoneError."""
        ...

    def report_failure(self, device_id: ids.DeviceId, error: BaseException) -> None:
        """Take a device out of service in this process."""
        ...
