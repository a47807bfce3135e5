"""Rebuilding the live index from a checkpoint and the replicated log after it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from couchestor_daemon.formats import batch, l2p_record, media_records, zone_header
from couchestor_daemon.ports import device as device_port
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import checkpoint_image, commit_log, log_scan
from couchestor_daemon.services.catalogue import l2p
from couchestor_domain import errors, ids

logger = logging.getLogger(__name__)

BATCHES_PER_COMMIT: Final = 256
SEQUENCE_JUMP: Final = 1 << 20
"""Added after a rebuild: a device that was away may hold an unanswered batch under the next
sequence, and what is committed from now on must outrank it."""
EPOCH_SHIFT_BITS: Final = 40
"""Sequences of a start whose index was rebuilt begin at its epoch, shifted: so they also outrank
what an earlier rebuild, itself cut short, left on a device that is away now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayReport:
    """What a rebuild did."""

    batches_count: int
    """Batches replayed after the start."""
    last_sequence: int
    secured: bool
    """Whether the last batch had to be written again because replicas of it were missing."""
    checkpoint_sequence: int = 0
    """Sequence of the checkpoint it started from; 0: from the beginning of the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Start:
    """Where a replay begins and what follows there."""

    image: checkpoint_image.Image | None
    found: list[log_scan.FoundBatch]
    chain: list[log_scan.FoundBatch]

    @property
    def sequence(self) -> int:
        return self.image.sequence if self.image else 0

    @property
    def reached(self) -> int:
        return self.chain[-1].sequence if self.chain else self.sequence


def log_present(devices: Mapping[ids.DeviceId, device_port.ZonedDevice]) -> bool:
    """Whether any device holds a log segment or a checkpoint."""
    return bool(log_scan.find_segments(devices)) or bool(checkpoint_image.find_images(devices))


def check_log(
    devices: Mapping[ids.DeviceId, device_port.ZonedDevice],
) -> Sequence[log_scan.FoundBatch]:
    """Follow the log from where a rebuild would start to its end, without an index.

    Returns:
        The batches that it would replay: what was left unanswered is not among them, but perhaps
        the last one.

    Raises:
        LogDamagedError: acknowledged mutations are on no readable device.
    """
    segments = log_scan.find_segments(devices)
    return _choose_start(segments, checkpoint_image.find_images(devices), devices).chain


def rebuild(
    index: index_port.IndexStore,
    devices: Mapping[ids.DeviceId, device_port.ZonedDevice],
    log: commit_log.CommitLog,
) -> ReplayReport:
    """Fill an empty index: from the newest checkpoint that is whole, then the log after it.

    The last batch may have been in flight: on some replicas, perhaps answered. When it is not on
    all of them it is not replayed but committed again as a new batch with the same predecessor,
    payloads copied, so that afterwards it is as durable as every other one. With too few devices to
    commit to it is replayed where it is.

    Raises:
        LogDamagedError: acknowledged mutations are on no readable device.
    """
    segments = log_scan.find_segments(devices)
    images = checkpoint_image.find_images(devices)
    start = _choose_start(segments, images, devices)
    if start.image is not None:
        checkpoint_image.load(start.image, devices, index)
    chain = list(start.chain)
    unsecured = chain.pop() if chain and not chain[-1].fully_replicated else None
    for first in range(0, len(chain), BATCHES_PER_COMMIT):
        _replay(index, chain[first : first + BATCHES_PER_COMMIT], devices)
    # Ids of segments and checkpoints are drawn from the same counter.
    highest = max(
        [
            *(item.sequence for item in start.found),
            *segments,
            *(max(image.sequence, image.checkpoint_id) for image in images),
        ],
        default=0,
    )
    epoch = max((device.identity.joined_epoch for device in devices.values()), default=0)
    with index.write():
        index.next_sequence(max(highest + SEQUENCE_JUMP, epoch << EPOCH_SHIFT_BITS))
    secured = False
    if unsecured is not None:
        try:
            _secure(log, unsecured, devices)
            secured = True
        except errors.StoreReadOnlyError as exc:
            # More devices are away than parity allows: reads are served from what there is.
            logger.warning(
                "the last batch of the log stays on fewer devices than it should: %s", exc
            )
            _replay(index, [unsecured], devices)
    return ReplayReport(
        batches_count=len(start.chain),
        last_sequence=start.reached,
        secured=secured,
        checkpoint_sequence=start.sequence,
    )


def _choose_start(
    segments: Mapping[int, zone_header.ZoneHeader],
    images: Sequence[checkpoint_image.Image],
    devices: Mapping[ids.DeviceId, device_port.ZonedDevice],
) -> _Start:
    """The newest start from which the log can be followed to its end.

    Raises:
        LogDamagedError: there is none, not even the beginning.
    """
    # Whole or not: an image was only begun at a sequence that had been committed.
    proven = max((image.sequence for image in images), default=0)
    for image in images:
        try:
            verified = checkpoint_image.verify(image, devices)
            # The others hold nothing that was committed after the image (docs/adr/0003).
            start = _start(
                image,
                [
                    header
                    for segment_id, header in segments.items()
                    if segment_id > image.sequence or segment_id in verified.open_segments
                ],
                devices,
                proven=proven,
            )
        except errors.CatalogueError as exc:
            logger.warning("%s; trying what is older", exc)
            continue
        logger.info(
            "starting from checkpoint %d of sequence %d with %d entries; %d batches follow",
            image.checkpoint_id,
            image.sequence,
            verified.entries_count,
            len(start.chain),
        )
        return start
    if images:
        logger.warning("no checkpoint can be used; replaying the log from its beginning")
    return _start(None, list(segments.values()), devices, proven=proven)


def _start(
    image: checkpoint_image.Image | None,
    headers: Sequence[zone_header.ZoneHeader],
    devices: Mapping[ids.DeviceId, device_port.ZonedDevice],
    *,
    proven: int,
) -> _Start:
    for header in headers:
        for zone in header.members:
            # What is read now may be in a volatile cache only; it must not be served before
            # it is durable.
            if zone.device_id in devices:
                devices[zone.device_id].flush([zone.zone_index])
    found = [item for header in headers for item in log_scan.scan_segment(header, devices)]
    base = image.sequence if image else 0
    start = _Start(image=image, found=found, chain=list(log_scan.committed_chain(base, found)))
    if start.reached < proven:
        raise errors.LogDamagedError(
            f"the log can be followed to sequence {start.reached}, and a checkpoint was begun at "
            f"{proven}: what was committed between is on no readable device. More devices are "
            "missing than the log's replicas allow; bring them back and start again",
            sequence=start.reached,
            missing=proven,
        )
    return start


def _replay(
    index: index_port.IndexStore,
    chain: list[log_scan.FoundBatch],
    devices: Mapping[ids.DeviceId, device_port.ZonedDevice],
) -> None:
    with index.write() as txn:
        for item in chain:
            header, data = log_scan.read_batch(item, devices)
            for key, value in batch.unpack_mutations(batch.mutations_of(header, data)):
                if value is None:
                    txn.delete(key)
                else:
                    txn.put(key, value)
        txn.put(media_records.APPLIED_KEY, media_records.U64.pack(chain[-1].sequence))
        txn.commit()


def _secure(
    log: commit_log.CommitLog,
    item: log_scan.FoundBatch,
    devices: Mapping[ids.DeviceId, device_port.ZonedDevice],
) -> None:
    header, data = log_scan.read_batch(item, devices)
    mutations = list(batch.unpack_mutations(batch.mutations_of(header, data)))
    payload = data[batch.HEADER_BYTES : batch.HEADER_BYTES + header.payload_bytes]
    old_start = item.offset_bytes + batch.HEADER_BYTES

    def apply(txn: index_port.IndexWriter, place: commit_log.Placement) -> None:
        for key, value in mutations:
            if value is None:
                txn.delete(key)
            else:
                txn.put(key, value)
        # Only now, so that live-byte counters in the batch are not written over the moved ones.
        for key, value in mutations:
            if value is not None and l2p_record.is_location_key(key):
                _point_at_copy(txn, key, value, header.segment_id, old_start, place)

    operation = commit_log.Operation(apply=apply, payload=payload, uses_reserve=True)
    # What is copied from, and what the batch itself takes: neither may become the copy's segment.
    taken = {
        media_records.zone_of_key(key)
        for key, value in mutations
        if value is not None and key.startswith(media_records.ZONES)
    }
    log.commit([operation], avoid=taken | set(item.segment.members))
    if operation.error is not None:
        raise operation.error


def _point_at_copy(
    txn: index_port.IndexWriter,
    key: bytes,
    value: bytes,
    segment_id: int,
    old_start: int,
    place: commit_log.Placement,
) -> None:
    """Move an L2P entry that points into the old batch's payloads to the copy."""
    location = l2p_record.unpack(value)
    if not isinstance(location, l2p_record.JournalLocation) or location.segment_id != segment_id:
        return
    inside = location.offset_bytes - old_start
    if not 0 <= inside <= place.length_bytes:
        raise errors.LogDamagedError(
            f"batch at {old_start} of segment {segment_id} names a payload outside itself"
        )
    l2p.replace(
        txn,
        l2p_record.address_of(key),
        expected=location,
        location=location._replace(
            segment_id=place.segment_id, offset_bytes=place.offset_bytes + inside
        ),
    )
