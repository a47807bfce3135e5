"""One replicated log segment: lockstep appends on journal_replicas devices.

Runs on the commit thread, below the node's write lock; so at most one batch of the whole node is
ever in flight, and after a crash at most that one may be on fewer replicas than it should.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Final

from couchestor_daemon.formats import media_records, zone_header
from couchestor_daemon.ports import media as media_port
from couchestor_domain import errors, ids, units

FIRST_BATCH_OFFSET_BYTES: Final = zone_header.ZONE_HEADER_BYTES


class LogSegment:
    """The open segment of one writer."""

    def __init__(
        self,
        record: media_records.SegmentRecord,
        media: media_port.Media,
        *,
        capacity_bytes: int,
        offset_bytes: int,
    ) -> None:
        self.record = record
        self.zones = media_records.zone_addresses(record.members)
        self.offset_bytes = offset_bytes
        self._media = media
        self._capacity_bytes = capacity_bytes

    @property
    def free_bytes(self) -> int:
        """Room left for batches."""
        return self._capacity_bytes - self.offset_bytes

    def format_zones(self, block: memoryview) -> None:
        """Empty the member zones and write their headers, durably; ``block`` is aligned scratch."""
        for index, zone in enumerate(self.zones):
            with reporting(self._media, zone):
                self._media.device(zone.device_id).reset(zone.zone_index)
            block[:] = zone_header.pack(
                zone_header.ZoneHeader(
                    zone_header.ZoneRole.SEGMENT,
                    index, 0, 0,
                    self.record.segment_id,
                    self.record.seed,
                    self.zones,
                )
            )  # fmt: skip
            self._write_one(zone, 0, block)
        self.offset_bytes = FIRST_BATCH_OFFSET_BYTES

    def append(self, data: memoryview) -> None:
        """Append to every replica, durable on all of them when this returns.

        Raises:
            DeviceError: a replica failed; the segment must be sealed and the batch written to
                another one. The failed device has been taken out of service.
        """
        failures = self._media.write_all_blocking(
            [media_port.ZoneWrite(zone, self.offset_bytes, data) for zone in self.zones]
        )
        if failures:
            raise failures[0]
        self.offset_bytes += len(data)

    def _write_one(self, zone: ids.ZoneAddress, offset_bytes: int, data: memoryview) -> None:
        with reporting(self._media, zone):
            self._media.device(zone.device_id).write(
                zone.zone_index, offset_bytes, data, durable=True
            )

    def is_formatted(self, block: memoryview) -> bool:
        """Whether every replica carries the segment's header: a scan does not find one without.

        A writer that reused zones of an unanswered batch, and died, leaves replicas of it emptied.

        Raises:
            DeviceError: a header cannot be read.
        """
        for index, zone in enumerate(self.zones):
            self._media.device(zone.device_id).read(zone.zone_index, 0, block)
            header = zone_header.unpack(block)
            if header is None or (header.role, header.owner_id, header.member_index) != (
                zone_header.ZoneRole.SEGMENT,
                self.record.segment_id,
                index,
            ):
                return False
        return True

    def level(self, filler: memoryview) -> None:
        """Bring every replica's write pointer to one offset after a crash, so appends can go on.

        Torn bytes of an unfinished batch stay where they are: no chain of sequences leads to them.
        """
        self.offset_bytes = level_zones(self._media, self.zones, filler)


@contextlib.contextmanager
def reporting(media: media_port.Media, zone: ids.ZoneAddress) -> Iterator[None]:
    """Take a device out of service when a command to it fails: nothing below does it here."""
    try:
        yield
    except (errors.DeviceFullError, errors.DeviceStarvedError):
        raise
    except errors.DeviceError as exc:
        media.report_failure(zone.device_id, exc)
        raise


def level_zones(
    media: media_port.Media, zones: Sequence[ids.ZoneAddress], filler: memoryview
) -> int:
    """Pad zones with zeros up to the highest write pointer among them and return it.

    Args:
        filler: Aligned zeros, at least one block.

    Raises:
        DeviceError: a member cannot be read or padded; it has been taken out of service.
    """
    pointers: dict[ids.ZoneAddress, int] = {}
    for zone in zones:
        with reporting(media, zone):
            reports = {found.zone_index: found for found in media.device(zone.device_id).report()}
        found = reports.get(zone.zone_index)
        pointers[zone] = 0 if found is None else found.write_pointer_bytes
    goal = units.align_up(max(pointers.values()), units.BLOCK_BYTES)
    for zone, pointer in pointers.items():
        with reporting(media, zone):
            device = media.device(zone.device_id)
            while pointer < goal:
                step = min(len(filler), goal - pointer)
                device.write(zone.zone_index, pointer, filler[:step], durable=False)
                pointer += step
            device.flush([zone.zone_index])
    return goal
