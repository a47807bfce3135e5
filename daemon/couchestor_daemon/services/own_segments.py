"""The log segments of one writer: found again after a restart, left when full, opened anew.

Runs on the commit thread below the node's write lock, inside the transaction of a commit. Nothing
is kept of a new segment before that commit: what fails takes the allocation of its zones back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import msgspec

from couchestor_daemon import buffers
from couchestor_daemon.formats import media_records, zone_header
from couchestor_daemon.ports import device as device_port
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.ports import media as media_port
from couchestor_daemon.services import log_segment, zone_allocation
from couchestor_domain import errors, event_publisher, events, ids, units


class OnlyReserveLeft(Exception):
    """No zone is free for operations that may not use the reserve."""

    def __init__(self, cause: errors.StoreFullError) -> None:
        self.cause = cause


def too_large(total_bytes: int, segment: log_segment.LogSegment) -> errors.StoreFullError:
    """The refusal of a commit that not even an empty segment has room for."""
    return errors.StoreFullError(
        f"a commit of {total_bytes} bytes does not fit in one zone, which has "
        f"{segment.free_bytes} bytes for it; use larger zones"
    )


class OwnSegments:
    """Which segment a writer appends to.

    Args:
        writer: Slot name; the open segment is found again under it after a restart.
        replicas_count: Zones of a segment, on as many devices.
        reserve_zones_count: Zones of each device kept free for operations that use the reserve.
    """

    def __init__(
        self,
        *,
        writer: str,
        media: media_port.Media,
        pool: buffers.BufferPool,
        replicas_count: int,
        reserve_zones_count: int,
        publisher: event_publisher.EventPublisher,
        draw_seed: Callable[[], int],
    ) -> None:
        self._writer = writer
        self._media = media
        self._pool = pool
        self._replicas_count = replicas_count
        self._reserve_zones_count = reserve_zones_count
        self._publisher = publisher
        self._draw_seed = draw_seed
        self._segment: log_segment.LogSegment | None = None
        self._left_segment: log_segment.LogSegment | None = None
        """The one before, until its end has been told."""
        self._looked_for_segment = False
        self._devices_seen: Sequence[device_port.DeviceIdentity] = ()
        """What could be given zones at the last commit: looked at again only when it changes."""

    def with_room(
        self,
        recorder: index_port.IndexWriter,
        sequence: int,
        wanted_bytes: int,
        *,
        avoid: Collection[ids.ZoneAddress],
        grows: bool,
    ) -> tuple[log_segment.LogSegment, bool]:
        """A segment with ``wanted_bytes`` free, and whether it is new: then its zones are to be
        formatted, and ``went_on_to`` called once the transaction is committed.

        Args:
            recorder: Takes the allocation of a new segment.
            sequence: Of the commit; a new segment is named by it.
            avoid: Zones not to take.
            grows: Whether the commit holds operations that may not use the reserve.

        Raises:
            OnlyReserveLeft: no zone is free for such operations.
            StoreFullError, StoreReadOnlyError: none at all, or too few devices.
            DeviceError: a segment of an earlier life could not be gone on with.
        """
        if self._segment is None and not self._looked_for_segment:
            self._looked_for_segment = True
            self._segment = self._adopt(recorder, avoid)
        devices = self._media.healthy_devices()
        if devices is not self._devices_seen:
            self._devices_seen = devices
            self._leave_unfit(devices)
        if (
            self._segment is not None
            and self._segment.free_bytes >= wanted_bytes
            and not (grows and self._segment.record.from_reserve)
        ):
            return self._segment, False
        zones, from_reserve = self._allocate(recorder, sequence, devices, avoid, grows=grows)
        self._seal_segments(recorder)
        record = media_records.SegmentRecord(
            segment_id=sequence,
            state=int(media_records.ZoneSetState.OPEN),
            writer=self._writer,
            seed=self._draw_seed(),
            members=tuple((zone.device_id, int(zone.zone_index)) for zone in zones),
            from_reserve=from_reserve,
        )
        recorder.put(media_records.segment_key(sequence), media_records.pack(record))
        capacity = min(
            identity.zone_capacity_bytes
            for identity in devices
            if identity.device_id in {zone.device_id for zone in zones}
        )
        fresh = log_segment.LogSegment(
            record,
            self._media,
            capacity_bytes=capacity,
            offset_bytes=log_segment.FIRST_BATCH_OFFSET_BYTES,
        )
        if fresh.free_bytes < wanted_bytes:
            raise too_large(wanted_bytes, fresh)
        return fresh, True

    def _leave_unfit(self, devices: Sequence[device_port.DeviceIdentity]) -> None:
        """Go on in no segment with a replica on a device that retires, left, or left and is back:
        a retiring one would never be empty."""
        healthy = {identity.device_id for identity in devices}
        if self._segment and any(zone.device_id not in healthy for zone in self._segment.zones):
            self.leave()

    def leave(self) -> None:
        """Append no more to the present segment: it is full, or a replica of it failed."""
        self._left_segment = self._segment or self._left_segment
        self._segment = None

    def went_on_to(self, opened: log_segment.LogSegment) -> None:
        """The commit that allocated ``opened`` is done: it is the present segment from now on."""
        self.leave()
        self._segment = opened
        if (left := self._left_segment) is not None:
            self._left_segment = None
            for zone in left.zones:
                self._publisher.publish(
                    events.ZoneClosed(
                        device_id=zone.device_id,
                        zone_index=zone.zone_index,
                        role="segment",
                        owner_id=left.record.segment_id,
                        written_bytes=left.offset_bytes,
                    )
                )
        for zone in opened.zones:
            self._publisher.publish(
                events.ZoneOpened(
                    device_id=zone.device_id,
                    zone_index=zone.zone_index,
                    role="segment",
                    owner_id=opened.record.segment_id,
                )
            )

    def _allocate(
        self,
        recorder: index_port.IndexWriter,
        sequence: int,
        devices: Sequence[device_port.DeviceIdentity],
        avoid: Collection[ids.ZoneAddress],
        *,
        grows: bool,
    ) -> tuple[tuple[ids.ZoneAddress, ...], bool]:
        """Zones of a new segment, and whether they were taken out of the reserve."""
        for from_reserve in (False, True):
            try:
                zones = zone_allocation.allocate(
                    recorder,
                    devices,
                    count=self._replicas_count,
                    role=zone_header.ZoneRole.SEGMENT,
                    owner_id=sequence,
                    keep_free_count=0 if from_reserve else self._reserve_zones_count,
                    leaves_moving_room=grows,
                    avoid=avoid,
                )
            except errors.StoreFullError as exc:
                if grows:
                    raise OnlyReserveLeft(exc) from exc
                if from_reserve:
                    raise
            else:
                return zones, from_reserve
        raise AssertionError("the second attempt returns or raises")

    def _own_open_segments(
        self, reader: index_port.IndexReader
    ) -> list[media_records.SegmentRecord]:
        start, stop = media_records.table_range(media_records.SEGMENTS)
        records = [
            media_records.unpack(media_records.SegmentRecord, value)
            for _, value in reader.scan(start, stop)
        ]
        return [
            record
            for record in records
            if record.writer == self._writer and record.state == media_records.ZoneSetState.OPEN
        ]

    def _seal_segments(self, recorder: index_port.IndexWriter) -> None:
        for record in self._own_open_segments(recorder):
            sealed = msgspec.structs.replace(record, state=int(media_records.ZoneSetState.SEALED))
            recorder.put(media_records.segment_key(record.segment_id), media_records.pack(sealed))

    def _adopt(
        self, reader: index_port.IndexReader, avoid: Collection[ids.ZoneAddress]
    ) -> log_segment.LogSegment | None:
        """Go on in the segment an earlier incarnation of this writer left open."""
        healthy = {identity.device_id: identity for identity in self._media.healthy_devices()}
        for record in self._own_open_segments(reader):
            zones = media_records.zone_addresses(record.members)
            if any(zone.device_id not in healthy or zone in avoid for zone in zones):
                continue
            segment = log_segment.LogSegment(
                record,
                self._media,
                capacity_bytes=min(healthy[z.device_id].zone_capacity_bytes for z in zones),
                offset_bytes=0,
            )
            with self._pool.acquire(units.BLOCK_BYTES) as buffer:
                filler = buffer.view[: units.BLOCK_BYTES]
                if not segment.is_formatted(filler):
                    continue
                filler[:] = bytes(units.BLOCK_BYTES)
                segment.level(filler)
            if segment.offset_bytes >= log_segment.FIRST_BATCH_OFFSET_BYTES:
                return segment
        return None
