"""Live bytes of stripe groups and log segments: what reclaim and destage choose by.

Counted as stored: of an extent that is compressed, what its block takes.
"""

from __future__ import annotations

from collections.abc import Iterable

from couchestor_daemon.formats import index_keys, l2p_record
from couchestor_daemon.ports import index as index_port
from couchestor_domain import errors


def group_bytes(reader: index_port.IndexReader, group_id: int) -> int:
    """Bytes of a stripe group that the L2P points at."""
    return _get(reader, index_keys.group_live(group_id))


def segment_bytes(reader: index_port.IndexReader, segment_id: int) -> int:
    """Bytes of a log segment that the L2P points at."""
    return _get(reader, index_keys.segment_live(segment_id))


def add(txn: index_port.IndexWriter, locations: Iterable[l2p_record.Location]) -> None:
    """Count locations that entered the L2P."""
    for key, stored_bytes in _totals(locations).items():
        _set(txn, key, _get(txn, key) + stored_bytes)


def subtract(txn: index_port.IndexWriter, locations: Iterable[l2p_record.Location]) -> None:
    """Count locations that left the L2P.

    Raises:
        IndexCorruptError: more would leave than is there. A counter that is too low would let
            reclaim reset zones that hold live data, so it is never clamped.
    """
    totals = _totals(locations)
    left = {key: _get(txn, key) - stored_bytes for key, stored_bytes in totals.items()}
    for key, remaining in left.items():
        if remaining < 0:
            raise errors.IndexCorruptError(
                f"the live bytes under {key!r} would fall to {remaining}; run `couchestor recover`"
            )
    for key, remaining in left.items():
        _set(txn, key, remaining)


def _totals(locations: Iterable[l2p_record.Location]) -> dict[bytes, int]:
    segments: dict[int, int] = {}
    groups: dict[int, int] = {}
    for location in locations:
        if isinstance(location, l2p_record.JournalLocation):
            owner_id, totals = location.segment_id, segments
        else:
            owner_id, totals = location.group_id, groups
        totals[owner_id] = totals.get(owner_id, 0) + location.stored_bytes
    return {index_keys.segment_live(owner_id): total for owner_id, total in segments.items()} | {
        index_keys.group_live(owner_id): total for owner_id, total in groups.items()
    }


def _get(reader: index_port.IndexReader, key: bytes) -> int:
    value = reader.get(key)
    return 0 if value is None else int(index_keys.U64.unpack(value)[0])


def _set(txn: index_port.IndexWriter, key: bytes, live_bytes: int) -> None:
    if live_bytes:
        txn.put(key, index_keys.U64.pack(live_bytes))
    else:
        txn.delete(key)


def counted(locations: Iterable[l2p_record.Location]) -> dict[bytes, int]:
    """What the counters say when just these locations are mapped."""
    return _totals(locations)
