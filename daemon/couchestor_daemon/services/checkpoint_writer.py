"""Writing a checkpoint image: one snapshot of the index, in lockstep to one zone per copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import xxhash

from couchestor_daemon.formats import checkpoint, media_records, zone_header
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.ports import media as media_port
from couchestor_daemon.services import log_segment
from couchestor_domain import ids, units

FLUSH_BYTES: Final = 4 * units.MIB
"""Written to each copy between flushes: little enough that the log's own writes on the same
devices do not wait long behind one."""
BEYOND_EVERY_KEY: Final = b"\xff" * (index_port.KEY_BYTES_MAX + 1)

NextPart = Callable[[], tuple[ids.ZoneAddress, ...]]


class StoppedError(Exception):
    """The writer was asked to stop; what it wrote is an image without an end."""


class ImageWriter:
    """The copies of one image while they grow. Blocking; for one thread of its own.

    Args:
        capacity_bytes: Of the smallest zone among the copies.
        buffer: Aligned memory of at least ``checkpoint.BLOCK_BYTES_MAX``.
        next_part: Takes, durably, one more zone on the device of each copy.
        should_stop: Asked before every block.
    """

    def __init__(
        self,
        *,
        checkpoint_id: int,
        sequence: int,
        seed: int,
        media: media_port.Media,
        capacity_bytes: int,
        buffer: memoryview,
        first_part: tuple[ids.ZoneAddress, ...],
        next_part: NextPart,
        should_stop: Callable[[], bool],
    ) -> None:
        self.image_bytes = 0
        self._checkpoint_id = checkpoint_id
        self._sequence = sequence
        self._seed = seed
        self._media = media
        self._capacity_bytes = capacity_bytes
        self._buffer = buffer
        self._zones = first_part
        self._next_part = next_part
        self._should_stop = should_stop
        self._part_number = 0
        self._block_number = 0
        self._offset_bytes = 0
        self._unflushed_bytes = 0

    def write(self, reader: index_port.IndexReader) -> checkpoint.Totals:
        """Write everything the snapshot holds; every copy is durable when this returns.

        Raises:
            DeviceError: a copy failed; its device has been taken out of service.
            StoreFullError: no zone for the next part, the reserve apart.
            StoppedError: ``should_stop`` said so.
        """
        self._format_part()
        digest = xxhash.xxh3_64(seed=self._seed)
        waiting = bytearray()
        entries_count = stream_bytes = 0
        for entry in _entries(reader):
            waiting += entry
            entries_count += 1
            while len(waiting) >= (room := self._room_bytes()):
                digest.update(waiting[:room])
                self._append(waiting[:room])
                stream_bytes += room
                del waiting[:room]
        if waiting:
            digest.update(waiting)
            self._append(waiting)
            stream_bytes += len(waiting)
        totals = checkpoint.Totals(entries_count, stream_bytes, digest.intdigest())
        self._room_bytes()
        self._append(checkpoint.TOTALS.pack(*totals), is_end=True)
        self._flush()
        return totals

    def _room_bytes(self) -> int:
        """Stream bytes that the next block takes; goes on to a new part when the zone is full."""
        if self._capacity_bytes - self._offset_bytes < units.BLOCK_BYTES:
            self._flush()
            self._zones = self._next_part()
            self._part_number += 1
            self._format_part()
        left = self._capacity_bytes - self._offset_bytes
        return (
            min(checkpoint.BLOCK_BYTES_MAX, units.align_down(left, units.BLOCK_BYTES))
            - checkpoint.OVERHEAD_BYTES
        )

    def _append(self, content: bytes | bytearray, *, is_end: bool = False) -> None:
        if self._should_stop():
            raise StoppedError
        header = checkpoint.BlockHeader(
            self._checkpoint_id, self._sequence, self._block_number, self._part_number
        )
        total = checkpoint.pack_into(self._buffer, header, content, seed=self._seed, is_end=is_end)
        for zone in self._zones:
            with log_segment.reporting(self._media, zone):
                self._media.device(zone.device_id).write(
                    zone.zone_index, self._offset_bytes, self._buffer[:total], durable=False
                )
        self._block_number += 1
        self._offset_bytes += total
        self.image_bytes += total
        self._unflushed_bytes += total
        if self._unflushed_bytes >= FLUSH_BYTES:
            self._flush()

    def _flush(self) -> None:
        for zone in self._zones:
            with log_segment.reporting(self._media, zone):
                self._media.device(zone.device_id).flush([zone.zone_index])
        self._unflushed_bytes = 0

    def _format_part(self) -> None:
        block = self._buffer[: zone_header.ZONE_HEADER_BYTES]
        for copy_index, zone in enumerate(self._zones):
            header = zone_header.ZoneHeader(
                zone_header.ZoneRole.CHECKPOINT,
                copy_index,
                0,
                0,
                self._checkpoint_id,
                self._seed,
                self._zones,
            )
            block[:] = zone_header.pack(header)
            with log_segment.reporting(self._media, zone):
                device = self._media.device(zone.device_id)
                device.reset(zone.zone_index)
                device.write(zone.zone_index, 0, block, durable=True)
        self._offset_bytes = zone_header.ZONE_HEADER_BYTES


def _entries(reader: index_port.IndexReader) -> Iterator[bytes]:
    for key, value in reader.scan(b"", BEYOND_EVERY_KEY):
        # Not logged: it names the index it stands in, and every rebuild writes it anew.
        if key != media_records.NODE_KEY:
            yield checkpoint.pack_entry(key, value)
