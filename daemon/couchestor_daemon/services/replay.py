"""Rebuilding the live index from the replicated log."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from couchestor_daemon.formats import batch, l2p_record, media_records
from couchestor_daemon.ports import device as device_port
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import commit_log, log_scan
from couchestor_daemon.services.catalogue import l2p
from couchestor_domain import errors, ids

logger = logging.getLogger(__name__)

BATCHES_PER_COMMIT: Final = 256
SEQUENCE_JUMP: Final = 1 << 20
"""Added after a rebuild: a device that was away may hold an unanswered batch under the next
sequence, and what is committed from now on must outrank it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayReport:
    """What a rebuild did."""

    batches_count: int
    last_sequence: int
    secured: bool
    """Whether the last batch had to be written again because replicas of it were missing."""


def log_present(devices: Mapping[ids.DeviceId, device_port.ZonedDevice]) -> bool:
    """Whether any device holds a log segment."""
    return bool(log_scan.find_segments(devices))


def rebuild(
    index: index_port.IndexStore,
    devices: Mapping[ids.DeviceId, device_port.ZonedDevice],
    log: commit_log.CommitLog,
) -> ReplayReport:
    """Replay the whole log into an empty index.

    The last batch may have been in flight: on some replicas, perhaps answered. When it is not on
    all of them it is not replayed but committed again as a new batch with the same predecessor,
    payloads copied, so that afterwards it is as durable as every other one. With too few devices to
    commit to it is replayed where it is.

    Raises:
        LogDamagedError: acknowledged mutations are on no readable device.
    """
    segments = log_scan.find_segments(devices)
    for header in segments.values():
        for zone in header.members:
            # What is read now may be in a volatile cache only; it must not be served before
            # it is durable.
            if zone.device_id in devices:
                devices[zone.device_id].flush([zone.zone_index])
    found = [
        item for header in segments.values() for item in log_scan.scan_segment(header, devices)
    ]
    with index.read() as reader:
        base = commit_log.applied_sequence(reader)
    chain = list(log_scan.committed_chain(base, found))
    unsecured = chain.pop() if chain and not chain[-1].fully_replicated else None
    for start in range(0, len(chain), BATCHES_PER_COMMIT):
        _replay(index, chain[start : start + BATCHES_PER_COMMIT], devices)
    highest = max((item.sequence for item in found), default=0)
    with index.write():
        index.next_sequence(highest + SEQUENCE_JUMP)
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
        batches_count=len(chain) + (unsecured is not None),
        last_sequence=unsecured.sequence if unsecured else (chain[-1].sequence if chain else base),
        secured=secured,
    )


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
    log.commit([operation], avoid=frozenset(item.segment.members))
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
