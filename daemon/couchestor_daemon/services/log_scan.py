"""Reading the log back: every batch on media, and the chain that was committed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from couchestor_daemon.formats import batch, zone_header
from couchestor_daemon.ports import device as device_port
from couchestor_domain import errors, ids, units


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundBatch:
    """A batch that verified on at least one replica."""

    sequence: int
    previous: int
    segment: zone_header.ZoneHeader
    offset_bytes: int
    total_bytes: int
    valid_on: tuple[ids.ZoneAddress, ...]

    @property
    def fully_replicated(self) -> bool:
        """Whether every member the segment was opened with still holds it."""
        return len(self.valid_on) == len(self.segment.members)


def find_segments(
    devices: Mapping[ids.DeviceId, device_port.ZonedDevice],
) -> dict[int, zone_header.ZoneHeader]:
    """Segment id -> header, from the zone headers of every readable device."""
    found: dict[int, zone_header.ZoneHeader] = {}
    block = memoryview(bytearray(zone_header.ZONE_HEADER_BYTES))
    for device in devices.values():
        for report in device.report():
            try:
                device.read(report.zone_index, 0, block)
            except errors.DeviceError:
                continue
            header = zone_header.unpack(block)
            if header is not None and header.role is zone_header.ZoneRole.SEGMENT:
                found[header.owner_id] = header
    return found


def scan_segment(
    header: zone_header.ZoneHeader, devices: Mapping[ids.DeviceId, device_port.ZonedDevice]
) -> Iterator[FoundBatch]:
    """Every batch of a segment, by offset.

    Replicas are in lockstep, so a batch stands at the same offset on each. Bytes that are not a
    verified batch (torn tails, padding after a crash, rot) are stepped over block by block.
    """
    images = {zone: _read_zone(devices, zone) for zone in header.members}
    end = max((len(image) for image in images.values()), default=0)
    offset = units.BLOCK_BYTES
    while offset < end:
        valid_on = []
        chosen: batch.BatchHeader | None = None
        for zone, image in images.items():
            view = image[offset:]
            found = batch.unpack_header(view, seed=header.seed, offset_bytes=offset)
            if (
                found is not None
                and found.segment_id == header.owner_id
                and batch.body_verifies(found, view, seed=header.seed)
            ):
                valid_on.append(zone)
                chosen = found
        if chosen is None:
            offset += units.BLOCK_BYTES
            continue
        yield FoundBatch(
            sequence=chosen.sequence,
            previous=chosen.previous,
            segment=header,
            offset_bytes=offset,
            total_bytes=chosen.total_bytes,
            valid_on=tuple(valid_on),
        )
        offset += chosen.total_bytes


def _read_zone(
    devices: Mapping[ids.DeviceId, device_port.ZonedDevice], zone: ids.ZoneAddress
) -> memoryview:
    """Everything written to a zone, or nothing when the device or zone is unreadable."""
    device = devices.get(zone.device_id)
    if device is None:
        return memoryview(b"")
    try:
        for report in device.report():
            if report.zone_index == zone.zone_index:
                image = memoryview(
                    bytearray(units.align_down(report.write_pointer_bytes, units.BLOCK_BYTES))
                )
                device.read(zone.zone_index, 0, image)
                return image
    except errors.DeviceError:
        return memoryview(b"")
    return memoryview(b"")


def read_batch(
    found: FoundBatch, devices: Mapping[ids.DeviceId, device_port.ZonedDevice]
) -> tuple[batch.BatchHeader, memoryview]:
    """Header and bytes of a batch from any replica that verifies again now.

    Raises:
        LogDamagedError: no replica verifies any more.
    """
    data = memoryview(bytearray(found.total_bytes))
    for zone in found.valid_on:
        try:
            devices[zone.device_id].read(zone.zone_index, found.offset_bytes, data)
        except errors.DeviceError:
            continue
        header = batch.unpack_header(data, seed=found.segment.seed, offset_bytes=found.offset_bytes)
        if header is not None and batch.body_verifies(header, data, seed=found.segment.seed):
            return header, data
    raise errors.LogDamagedError(
        f"batch {found.sequence} verified during the scan but cannot be read any more; "
        "check the devices, then run `couchestor recover` again",
        sequence=found.sequence,
    )


def committed_chain(base: int, found: Iterable[FoundBatch]) -> Sequence[FoundBatch]:
    """The batches committed after ``base``, in order.

    Of several batches naming the same predecessor only the highest sequence was committed: the
    others were left by processes that died before their index commit, and were never answered.

    Raises:
        LogDamagedError: a batch's predecessor is nowhere on the devices, so acknowledged
            mutations are missing; or ``base`` is on a branch that the log has left
            (docs/adr/0003).
    """
    newest: dict[int, FoundBatch] = {}
    for item in found:
        if item.previous < base < item.sequence:
            raise errors.LogDamagedError(
                f"batch {item.sequence} of the log was committed after batch {item.previous}, "
                f"so sequence {base} is not part of its history",
                sequence=base,
            )
        held = newest.get(item.previous)
        if item.sequence > base and (held is None or item.sequence > held.sequence):
            newest[item.previous] = item
    chain: list[FoundBatch] = []
    position = base
    while (following := newest.pop(position, None)) is not None:
        chain.append(following)
        position = following.sequence
    # A predecessor below the end of the chain and not in it is void, and so is what names it: left
    # behind by a rebuild that committed the last batch again while these devices were away.
    gaps = sorted(item.previous for item in newest.values() if item.previous > position)
    if gaps:
        raise errors.LogDamagedError(
            f"the mutation log has a gap after sequence {position}: batch {gaps[0]} is on no "
            "readable device. More devices are missing than the log's replicas allow; bring them "
            "back and start again",
            sequence=position,
            missing=gaps[0],
        )
    for item in newest.values():
        # On all of its replicas it was perhaps answered, and a rebuild that misses it misses all
        # of them.
        if item.fully_replicated:
            raise errors.LogDamagedError(
                f"batch {item.sequence} was committed after batch {item.previous}, which a rebuild "
                "has replaced while more devices were away than the log's replicas allow: the "
                "store has gone on without it. Take away the devices that were away then, or "
                "restore it from a backup",
                sequence=item.sequence,
            )
    return chain
