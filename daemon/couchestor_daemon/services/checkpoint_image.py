"""Reading checkpoint images back: found on media, verified to the end, loaded into an index."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import xxhash

from couchestor_daemon.formats import checkpoint, media_records, zone_header
from couchestor_daemon.ports import device as device_port
from couchestor_daemon.ports import index as index_port
from couchestor_domain import errors, ids, units

logger = logging.getLogger(__name__)

LOAD_BYTES_PER_COMMIT: Final = 4 * units.MIB

Devices = Mapping[ids.DeviceId, device_port.ZonedDevice]


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What the devices hold of a checkpoint; nothing says yet that it is whole."""

    checkpoint_id: int
    sequence: int
    seed: int
    parts: Mapping[int, tuple[ids.ZoneAddress, ...]]
    """Part number -> the zones of all copies that hold it."""

    @classmethod
    def of_record(cls, record: media_records.CheckpointRecord) -> Image:
        """What a record says there should be."""
        return cls(
            checkpoint_id=record.checkpoint_id,
            sequence=record.sequence,
            seed=record.seed,
            parts={
                number: media_records.zone_addresses(part)
                for number, part in enumerate(record.parts)
            },
        )

    def of_copy(self, device_id: ids.DeviceId) -> Image:
        """The same image seen through one device alone."""
        return Image(
            checkpoint_id=self.checkpoint_id,
            sequence=self.sequence,
            seed=self.seed,
            parts={
                number: tuple(zone for zone in zones if zone.device_id == device_id)
                for number, zones in self.parts.items()
            },
        )

    @property
    def device_ids(self) -> list[ids.DeviceId]:
        """Devices that are meant to hold a copy, present or not."""
        return sorted({zone.device_id for zones in self.parts.values() for zone in zones})


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedImage:
    """An image of which every block verifies on some device."""

    entries_count: int
    image_bytes: int
    open_segments: frozenset[int]
    """Log segments that the index in the image lists as open: only they, and later ones, hold
    batches committed after it (docs/adr/0003)."""


def find_images(devices: Devices) -> list[Image]:
    """Every checkpoint of which a device holds a block, the newest first."""
    parts: dict[tuple[int, int], dict[int, tuple[ids.ZoneAddress, ...]]] = {}
    sequences: dict[tuple[int, int], int] = {}
    for device in devices.values():
        for report in device.report():
            zone = ids.ZoneAddress(device.identity.device_id, report.zone_index)
            block = memoryview(bytearray(zone_header.ZONE_HEADER_BYTES))
            try:
                device.read(zone.zone_index, 0, block)
            except errors.DeviceError:
                continue
            header = zone_header.unpack(block)
            if header is None or header.role is not zone_header.ZoneRole.CHECKPOINT:
                continue
            first = _read_block(devices, zone, zone_header.ZONE_HEADER_BYTES, seed=header.seed)
            if first is None or first.header.checkpoint_id != header.owner_id:
                continue
            key = (header.owner_id, header.seed)
            sequences[key] = first.header.sequence
            parts.setdefault(key, {})[first.header.part_number] = header.members
    images = [
        Image(checkpoint_id=key[0], sequence=sequences[key], seed=key[1], parts=found)
        for key, found in parts.items()
    ]
    return sorted(images, key=lambda image: (image.sequence, image.checkpoint_id), reverse=True)


def verify(
    image: Image, devices: Devices, *, before_block: Callable[[], None] = lambda: None
) -> VerifiedImage:
    """Read the image to its end without keeping it.

    Args:
        before_block: Called before each block is looked at; what it raises ends the reading.

    Raises:
        CheckpointMissingError: a block verifies on no device, or the image has no end.
        IndexCorruptError: it holds records that this version cannot read.
    """
    parser = checkpoint.EntryParser()
    entries_count = image_bytes = 0
    applied = b""
    open_segments = set()
    for block in _blocks(image, devices):
        before_block()
        image_bytes += block.total_bytes
        if block.is_end:
            break
        for key, value in parser.feed(block.content):
            entries_count += 1
            if key == media_records.APPLIED_KEY:
                applied = value
            elif key.startswith(media_records.SEGMENTS):
                record = media_records.unpack(media_records.SegmentRecord, value)
                if record.state == media_records.ZoneSetState.OPEN:
                    open_segments.add(record.segment_id)
    if parser.rest_bytes or applied != media_records.U64.pack(image.sequence):
        raise _unusable(image, "it is not the index at the sequence it names")
    return VerifiedImage(
        entries_count=entries_count,
        image_bytes=image_bytes,
        open_segments=frozenset(open_segments),
    )


def load(image: Image, devices: Devices, index: index_port.IndexStore) -> None:
    """Put a verified image into an empty index, a few MiB to a transaction.

    The applied sequence comes last: an index without it is not mistaken for a whole one.

    Raises:
        CheckpointMissingError: a block verified before and does not any more.
    """
    parser = checkpoint.EntryParser()
    waiting: list[tuple[bytes, bytes]] = []
    waiting_bytes = 0
    for block in _blocks(image, devices):
        if block.is_end:
            break
        waiting.extend(parser.feed(block.content))
        waiting_bytes += len(block.content)
        if waiting_bytes >= LOAD_BYTES_PER_COMMIT:
            _put(index, waiting)
            waiting, waiting_bytes = [], 0
    _put(index, waiting)
    _put(index, [(media_records.APPLIED_KEY, media_records.U64.pack(image.sequence))], last=True)


def _put(
    index: index_port.IndexStore, entries: list[tuple[bytes, bytes]], *, last: bool = False
) -> None:
    with index.write() as txn:
        for key, value in entries:
            if last or key != media_records.APPLIED_KEY:
                txn.put(key, value)
        txn.commit()


def _blocks(image: Image, devices: Devices) -> Iterator[checkpoint.Block]:
    """Blocks in order, each from the first copy that verifies, up to and with the end.

    A block's content is valid until the next one is asked for.
    """
    digest = xxhash.xxh3_64(seed=image.seed)
    number = part_number = stream_bytes = 0
    offset = zone_header.ZONE_HEADER_BYTES
    while True:
        block = _find_block(image, devices, number, part_number, offset)
        if block is None and offset > zone_header.ZONE_HEADER_BYTES:
            part_number, offset = part_number + 1, zone_header.ZONE_HEADER_BYTES
            block = _find_block(image, devices, number, part_number, offset)
        if block is None:
            raise _unusable(image, f"block {number} verifies on no device, or was never written")
        if block.is_end:
            totals = checkpoint.unpack_totals(block.content)
            if (
                totals is None
                or totals.stream_bytes != stream_bytes
                or totals.checksum != digest.intdigest()
            ):
                raise _unusable(image, "its end does not fit what stands before it")
            yield block
            return
        digest.update(block.content)
        stream_bytes += len(block.content)
        yield block
        offset += block.total_bytes
        number += 1


def _find_block(
    image: Image, devices: Devices, number: int, part_number: int, offset_bytes: int
) -> checkpoint.Block | None:
    wanted = checkpoint.BlockHeader(image.checkpoint_id, image.sequence, number, part_number)
    for zone in image.parts.get(part_number, ()):
        block = _read_block(devices, zone, offset_bytes, seed=image.seed)
        if block is not None and block.header == wanted:
            return block
    return None


def _read_block(
    devices: Devices, zone: ids.ZoneAddress, offset_bytes: int, *, seed: int
) -> checkpoint.Block | None:
    device = devices.get(zone.device_id)
    if device is None:
        return None
    room = device.identity.zone_capacity_bytes - offset_bytes
    buffer = memoryview(bytearray(max(0, min(checkpoint.BLOCK_BYTES_MAX, room))))
    try:
        device.read(zone.zone_index, offset_bytes, buffer, past_cache=True)
    except errors.DeviceError as exc:
        logger.warning("zone %d of device %s: %s", zone.zone_index, zone.device_id, exc)
        return None
    return checkpoint.unpack(buffer, seed=seed)


def _unusable(image: Image, why: str) -> errors.CheckpointMissingError:
    return errors.CheckpointMissingError(
        f"checkpoint {image.checkpoint_id} of sequence {image.sequence} is not usable: {why}",
        checkpoint=image.checkpoint_id,
    )
