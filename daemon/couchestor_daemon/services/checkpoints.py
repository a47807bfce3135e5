"""The life of checkpoints: taken, recorded, and released when a newer one is complete.

    line                                   after a crash there
    record OPEN with the first part        released at the next start or attempt
    write the image, more parts logged     the same; an image without an end is ignored
    flush every copy                       the same; the image is whole and may be started from
    record COMPLETE                        the older ones are released
    read every copy back                   the same
    reset and release the older ones       gone on with

See docs/adr/0003. A checkpoint is trusted once this process has read each of its copies back: only
then may the log before it be given up (docs/adr/0006).
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Callable
from typing import Final

import msgspec

from couchestor_daemon import buffers
from couchestor_daemon.formats import checkpoint, media_records, zone_header
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.ports import media as media_port
from couchestor_daemon.services import (
    checkpoint_image,
    checkpoint_trust,
    checkpoint_writer,
    commit_log,
    departures,
    log_growth,
    log_segment,
    zone_allocation,
)
from couchestor_domain import errors, event_publisher, events, ids

logger = logging.getLogger(__name__)

Submit = Callable[[commit_log.Operation], object]
_OPEN: Final = int(media_records.CheckpointState.OPEN)
_COMPLETE: Final = int(media_records.CheckpointState.COMPLETE)


class Checkpoints:
    """The one taker of checkpoints on a node. Blocking; for one thread of its own.

    Args:
        submit: Commits an operation and returns its result, or raises its error.
        copies_count: Devices that each hold a complete image: m + 1.
        reserve_zones_count: Zones of each device left alone: deletes need them.
        short_reserve_zones_count: The same of a checkpoint that gives back more than it takes.
        now_ns: Wall clock.
        should_stop: Ends a checkpoint under way, which is then released.
    """

    def __init__(
        self,
        *,
        index: index_port.IndexStore,
        media: media_port.Media,
        pool: buffers.BufferPool,
        submit: Submit,
        copies_count: int,
        reserve_zones_count: int,
        short_reserve_zones_count: int | None = None,
        publisher: event_publisher.EventPublisher,
        now_ns: Callable[[], int],
        should_stop: Callable[[], bool] = lambda: False,
        draw_seed: Callable[[], int] = lambda: secrets.randbits(64),
    ) -> None:
        self._index = index
        self._media = media
        self._pool = pool
        self._submit = submit
        self._copies_count = copies_count
        self._reserve_zones_count = reserve_zones_count
        self._short_reserve_zones_count = (
            reserve_zones_count if short_reserve_zones_count is None else short_reserve_zones_count
        )
        self._keep_free_count = reserve_zones_count
        self._uses_reserve = False
        self._publisher = publisher
        self._now_ns = now_ns
        self._should_stop = should_stop
        self._draw_seed = draw_seed
        self._read_back = checkpoint_trust.ReadBack(
            media, copies_count=copies_count, should_stop=should_stop
        )

    def newest(self) -> media_records.CheckpointRecord | None:
        """The newest complete one."""
        complete = [record for record in self._records() if record.state == _COMPLETE]
        return max(complete, key=lambda record: record.sequence, default=None)

    def trusted(self) -> media_records.CheckpointRecord | None:
        """The newest complete one of which all copies were read back whole by this process and
        are on devices in service. Reads the index alone, so any thread may ask."""
        found = [
            record
            for record in self._records()
            if record.state == _COMPLETE and self._read_back.is_trusted(record)
        ]
        return max(found, key=lambda record: record.sequence, default=None)

    def verify_newest(self) -> bool:
        """Read back the copies of the newest one that were not yet. Whether it is trusted now.

        Raises:
            StoppedError: ``should_stop`` ended it.
        """
        newest = self.newest()
        if newest is None:
            return False
        self._read_back.verify(newest)
        return self._read_back.is_trusted(newest)

    def is_newest_trusted(self) -> bool:
        """Whether ``trusted`` gives the newest complete one; True also when there is none."""
        newest = self.newest()
        return newest is None or self._read_back.is_trusted(newest)

    def can_take(self) -> bool:
        """Whether enough devices take zones for every copy."""
        return len(self._media.healthy_devices()) >= self._copies_count

    def applied_sequence(self) -> ids.Sequence:
        """Sequence of the last batch in the index."""
        with self._index.read() as reader:
            return commit_log.applied_sequence(reader)

    def log_bytes_since_newest(self) -> int:
        """What a replay would read now, beside the segments that were open then."""
        newest = self.newest()
        with self._index.read() as reader:
            return log_growth.bytes_since(reader, self._media, newest)

    def keeps_devices_from_leaving(self) -> bool:
        """Whether a device that retires, or is lost, is referred to for ever without another one: a
        copy of the newest is on it, or a sealed segment of the log that the newest does not
        cover."""
        newest = self.newest()
        if newest is not None and any(
            departures.is_retiring(self._media, device_id)
            for device_id in checkpoint_image.Image.of_record(newest).device_ids
        ):
            return True
        with self._index.read() as reader:
            return log_growth.keeps_from_leaving(reader, self._media, newest)

    def forget_device(self, device_id: ids.DeviceId) -> None:
        """What was read back from a device counts no more: it has been away."""
        self._read_back.forget_device(device_id)

    def weakened_segments(self) -> tuple[int, ...]:
        """Segments with a lost replica that may hold batches the newest one does not."""
        newest = self.newest()
        with self._index.read() as reader:
            return log_growth.weakened(reader, self._media, newest)

    def weakened_log_bytes(self) -> int:
        """What is in them since the newest one: on fewer devices than it should be. Asks devices
        for their zones."""
        newest = self.newest()
        with self._index.read() as reader:
            return log_growth.weakened_bytes(reader, self._media, newest)

    def release_leftovers(self) -> None:
        """Release what is unfinished and what a newer complete one replaces. Idempotent.

        The log before a trusted one may have been given up, so it is kept until a newer one is
        trusted too. When none is, the older ones are kept until a copy of the newest was read back.

        Raises:
            CouchestorError: the release could not be committed; the next call goes on.
            StoppedError: ``should_stop`` ended it.
        """
        records = self._records()
        complete = [record for record in records if record.state == _COMPLETE]
        kept = {max(complete, key=lambda r: r.sequence).checkpoint_id} if complete else set()
        if len(complete) > 1:
            self.verify_newest()
            trusted = self.trusted()
            if trusted is not None:
                kept.add(trusted.checkpoint_id)
            elif not any(self._read_back.has_copy(each) for each in kept):
                kept.update(record.checkpoint_id for record in complete)
        for record in records:
            if record.checkpoint_id not in kept:
                self._release(record)
        self._read_back.forget_others(sorted(kept))

    def take(self, *, space_is_short: bool = False) -> media_records.CheckpointRecord | None:
        """Write a checkpoint of the index as it is now, and release the older ones.

        Args:
            space_is_short: It is taken so that zones come back, and may use a part of the reserve.

        Returns:
            Its record, durable like every commit; None when ``should_stop`` ended it.

        Raises:
            StoreFullError: it would need zones that deletes need.
            StoreReadOnlyError: too few devices are healthy.
            CouchestorError: a device or the log failed. What was written has been released, or
                will be by the next call.
        """
        self._uses_reserve = space_is_short
        self._keep_free_count = (
            self._short_reserve_zones_count if space_is_short else self._reserve_zones_count
        )
        try:
            self.release_leftovers()
        except checkpoint_writer.StoppedError:
            return None
        opened = self._open()
        try:
            record = self._write(opened)
        except checkpoint_writer.StoppedError:
            self._release_by_id(opened.checkpoint_id)
            return None
        except errors.CouchestorError:
            with contextlib.suppress(errors.CouchestorError):
                self._release_by_id(opened.checkpoint_id)
            raise
        try:
            self._read_back.verify(record)
            self.release_leftovers()
        except checkpoint_writer.StoppedError:
            logger.info("the older checkpoint is released at the next start")
        except errors.CouchestorError as exc:
            logger.warning("the older checkpoint is released with the next one: %s", exc)
        return record

    def _records(self) -> list[media_records.CheckpointRecord]:
        start, stop = media_records.table_range(media_records.CHECKPOINTS)
        with self._index.read() as reader:
            return [
                media_records.unpack(media_records.CheckpointRecord, value)
                for _, value in reader.scan(start, stop)
            ]

    def _open(self) -> media_records.CheckpointRecord:
        devices = self._media.healthy_devices()

        def apply(
            txn: index_port.IndexWriter, _: commit_log.Placement
        ) -> media_records.CheckpointRecord:
            checkpoint_id = self._index.next_sequence(commit_log.applied_sequence(txn))
            zones = zone_allocation.allocate(
                txn,
                devices,
                count=self._copies_count,
                role=zone_header.ZoneRole.CHECKPOINT,
                owner_id=checkpoint_id,
                keep_free_count=self._keep_free_count,
            )
            record = media_records.CheckpointRecord(
                checkpoint_id, _OPEN, self._draw_seed(), (_members(zones),)
            )
            txn.put(media_records.checkpoint_key(checkpoint_id), media_records.pack(record))
            return record

        record = self._submit(commit_log.Operation(apply=apply, uses_reserve=self._uses_reserve))
        assert isinstance(record, media_records.CheckpointRecord), record
        self._announce(record)
        return record

    def _write(self, opened: media_records.CheckpointRecord) -> media_records.CheckpointRecord:
        device_ids = {device_id for device_id, _ in opened.parts[0]}
        capacity = min(
            identity.zone_capacity_bytes
            for identity in self._media.healthy_devices()
            if identity.device_id in device_ids
        )
        with (
            self._pool.acquire(checkpoint.BLOCK_BYTES_MAX) as buffer,
            self._index.read() as snapshot,
        ):
            sequence = commit_log.applied_sequence(snapshot)
            open_segments = log_growth.open_segments(snapshot, self._media)
            writer = checkpoint_writer.ImageWriter(
                checkpoint_id=opened.checkpoint_id,
                sequence=sequence,
                seed=opened.seed,
                media=self._media,
                capacity_bytes=capacity,
                buffer=buffer.view,
                first_part=media_records.zone_addresses(opened.parts[0]),
                next_part=lambda: self._take_part(opened.checkpoint_id),
                should_stop=self._should_stop,
            )
            totals = writer.write(snapshot)
        taken_ns = self._now_ns()

        def complete(
            txn: index_port.IndexWriter, _: commit_log.Placement
        ) -> media_records.CheckpointRecord:
            record = msgspec.structs.replace(
                _listed(txn, opened.checkpoint_id),
                state=_COMPLETE,
                sequence=sequence,
                image_bytes=writer.image_bytes,
                entries_count=totals.entries_count,
                taken_ns=taken_ns,
                open_segments=open_segments,
            )
            txn.put(media_records.checkpoint_key(record.checkpoint_id), media_records.pack(record))
            return record

        record = self._submit(commit_log.Operation(apply=complete, uses_reserve=True))
        assert isinstance(record, media_records.CheckpointRecord), record
        return record

    def _take_part(self, checkpoint_id: int) -> tuple[ids.ZoneAddress, ...]:
        healthy = {identity.device_id: identity for identity in self._media.healthy_devices()}

        def apply(
            txn: index_port.IndexWriter, _: commit_log.Placement
        ) -> media_records.CheckpointRecord:
            record = _listed(txn, checkpoint_id)
            devices = [
                healthy[ids.DeviceId(device_id)]
                for device_id, _ in record.parts[0]
                if device_id in healthy
            ]
            taken = {
                zone.device_id: zone
                for zone in zone_allocation.allocate(
                    txn,
                    devices,
                    count=self._copies_count,
                    role=zone_header.ZoneRole.CHECKPOINT,
                    owner_id=checkpoint_id,
                    keep_free_count=self._keep_free_count,
                )
            }
            # Each copy stays on its device, in its place among the copies.
            zones = tuple(taken[ids.DeviceId(device_id)] for device_id, _ in record.parts[0])
            record = msgspec.structs.replace(record, parts=(*record.parts, _members(zones)))
            txn.put(media_records.checkpoint_key(checkpoint_id), media_records.pack(record))
            return record

        record = self._submit(commit_log.Operation(apply=apply, uses_reserve=self._uses_reserve))
        assert isinstance(record, media_records.CheckpointRecord), record
        self._announce(record)
        return media_records.zone_addresses(record.parts[-1])

    def _release_by_id(self, checkpoint_id: int) -> None:
        for record in self._records():
            if record.checkpoint_id == checkpoint_id:
                self._release(record)

    def _release(self, record: media_records.CheckpointRecord) -> None:
        """Zones are emptied before the commit that frees them: after it they may be another's."""
        zones = [zone for part in record.parts for zone in media_records.zone_addresses(part)]
        written = {
            device_id: log_growth.write_pointers(self._media, device_id)
            for device_id in {zone.device_id for zone in zones}
        }
        for zone in zones:
            # One that is away keeps its copy: an old truth, which recovery prefers to nothing.
            with (
                contextlib.suppress(errors.DeviceError),
                log_segment.reporting(self._media, zone),
            ):
                self._media.device(zone.device_id).reset(zone.zone_index)

        def apply(txn: index_port.IndexWriter, _: commit_log.Placement) -> None:
            txn.delete(media_records.checkpoint_key(record.checkpoint_id))
            for zone in zones:
                txn.delete(media_records.zone_key(zone))

        self._submit(commit_log.Operation(apply=apply, uses_reserve=True))
        for zone in zones:
            self._publisher.publish(
                events.ZoneReset(
                    device_id=zone.device_id,
                    zone_index=zone.zone_index,
                    reclaimed_bytes=written[zone.device_id].get(zone.zone_index, 0),
                )
            )

    def _announce(self, record: media_records.CheckpointRecord) -> None:
        for zone in media_records.zone_addresses(record.parts[-1]):
            self._publisher.publish(
                events.ZoneOpened(
                    device_id=zone.device_id,
                    zone_index=zone.zone_index,
                    role="checkpoint",
                    owner_id=record.checkpoint_id,
                )
            )


def _members(zones: tuple[ids.ZoneAddress, ...]) -> tuple[tuple[str, int], ...]:
    return tuple((zone.device_id, int(zone.zone_index)) for zone in zones)


def _listed(reader: index_port.IndexReader, checkpoint_id: int) -> media_records.CheckpointRecord:
    value = reader.get(media_records.checkpoint_key(checkpoint_id))
    if value is None:
        raise errors.CheckpointMissingError(
            f"checkpoint {checkpoint_id} is not in the index any more", checkpoint=checkpoint_id
        )
    return media_records.unpack(media_records.CheckpointRecord, value)
