"""The logical-to-physical map: where the bytes of an extent lie.

Addresses are never reused. An entry covers [address, address + location.length_bytes); entries
never overlap, and those of one extent cover it without a hole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from couchestor_daemon.formats import l2p_record
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services.catalogue import liveness
from couchestor_domain import errors, ids


class Entry(NamedTuple):
    """What the L2P says, or said at one moment, of the range that begins at ``address``."""

    address: ids.ExtentAddress
    location: l2p_record.Location


class Move(NamedTuple):
    """An entry to be led to a copy of its bytes."""

    address: ids.ExtentAddress
    expected: l2p_record.Location
    location: l2p_record.Location


Resolved = tuple[ids.ExtentAddress, l2p_record.Location, int, int]
"""Address of the entry, its location, the first byte wanted inside it, how many."""


def insert(
    txn: index_port.IndexWriter, address: ids.ExtentAddress, location: l2p_record.Location
) -> None:
    """Map a fresh range."""
    insert_all(txn, [(address, location)])


def insert_all(
    txn: index_port.IndexWriter,
    entries: Sequence[tuple[ids.ExtentAddress, l2p_record.Location]],
) -> None:
    """Map fresh ranges."""
    for address, location in entries:
        txn.put(l2p_record.key(address), l2p_record.pack(location))
    liveness.add(txn, (location for _, location in entries))


def replace(
    txn: index_port.IndexWriter,
    address: ids.ExtentAddress,
    *,
    expected: l2p_record.Location,
    location: l2p_record.Location,
) -> bool:
    """Move one entry; whether it was still where ``expected`` says. See ``replace_all``."""
    return bool(replace_all(txn, [Move(address, expected, location)]))


def replace_all(txn: index_port.IndexWriter, moves: Iterable[Move]) -> list[Move]:
    """Lead entries to copies of their bytes, each if it is still where ``expected`` says.

    Returns:
        The moves made. The others were punched or moved meanwhile and are left alone.

    Raises:
        IndexCorruptError: the live bytes do not add up; nothing has been written then.
    """
    made: dict[bytes, Move] = {}
    for move in moves:
        assert move.expected.length_bytes == move.location.length_bytes, move
        key = l2p_record.key(move.address)
        # The first of several moves of one entry is made: after it the entry is elsewhere.
        if key not in made and txn.get(key) == l2p_record.pack(move.expected):
            made[key] = move
    liveness.subtract(txn, (move.expected for move in made.values()))
    for key, move in made.items():
        txn.put(key, l2p_record.pack(move.location))
    liveness.add(txn, (move.location for move in made.values()))
    return list(made.values())


def resolve(
    reader: index_port.IndexReader, extent: ids.Extent, *, start_bytes: int, length_bytes: int
) -> list[Resolved]:
    """Locations of ``length_bytes`` from ``start_bytes`` inside an extent, in order.

    Raises:
        IndexCorruptError: a byte of the range is not mapped.
    """
    end_bytes = start_bytes + length_bytes
    assert 0 <= start_bytes <= end_bytes <= extent.length_bytes, (extent, start_bytes, length_bytes)
    if length_bytes == 0:
        return []
    first = _first(reader, extent, extent.address + start_bytes)
    position = extent.address + start_bytes
    end = extent.address + end_bytes
    resolved: list[Resolved] = []
    if first is not None:
        address, location = first
        covered = address + location.length_bytes
        if covered > position:
            taken = min(covered, end) - position
            resolved.append((address, location, position - address, taken))
            position += taken
    if position < end and resolved:
        low = l2p_record.key(ids.ExtentAddress(position))
        for key, value in reader.scan(low, l2p_record.key(ids.ExtentAddress(end))):
            address, location = _entry(key, value)
            if address != position:
                break
            taken = min(location.length_bytes, end - position)
            resolved.append((address, location, 0, taken))
            position += taken
    if position != end:
        raise errors.IndexCorruptError(
            f"bytes {position} to {end} of extent {extent.address} are not mapped; "
            "run `couchestor recover`",
            extent=extent.address,
        )
    return resolved


def narrowed(
    resolved: Iterable[Resolved], extent: ids.Extent, *, start_bytes: int, length_bytes: int
) -> list[Resolved]:
    """The part of a resolved range that holds bytes [start, start + length) of its extent."""
    low = extent.address + start_bytes
    high = low + length_bytes
    found: list[Resolved] = []
    for address, location, inside, count in resolved:
        first = max(address + inside, low)
        end = min(address + inside + count, high)
        if first < end:
            found.append((address, location, first - address, end - first))
    return found


def punch(txn: index_port.IndexWriter, extent: ids.Extent) -> None:
    """Unmap a whole extent."""
    punch_all(txn, [extent])


def punch_all(txn: index_port.IndexWriter, extents: Iterable[ids.Extent]) -> None:
    """Unmap whole extents and take their bytes off the groups' and segments' live bytes.

    Raises:
        IndexCorruptError: the live bytes do not add up; nothing has been written then.
    """
    entries: list[tuple[bytes, l2p_record.Location]] = []
    for extent in extents:
        low = l2p_record.key(extent.address)
        whole = txn.get(low)
        if whole is not None:
            # The usual case, a small object, without a cursor.
            location = l2p_record.unpack(whole)
            if location.length_bytes == extent.length_bytes:
                entries.append((low, location))
                continue
        high = l2p_record.key(ids.ExtentAddress(extent.address + extent.length_bytes))
        entries.extend((key, l2p_record.unpack(value)) for key, value in txn.scan(low, high))
    liveness.subtract(txn, (location for _, location in entries))
    for key, _ in entries:
        txn.delete(key)


def _first(
    reader: index_port.IndexReader, extent: ids.Extent, position: int
) -> tuple[ids.ExtentAddress, l2p_record.Location] | None:
    """The last entry of the extent at or before ``position``."""
    low = l2p_record.key(extent.address)
    value = reader.get(low)
    if value is not None:
        # The usual case, a small object or a read from the start, without a cursor.
        location = l2p_record.unpack(value)
        if position < extent.address + location.length_bytes:
            return extent.address, location
    high = l2p_record.key(ids.ExtentAddress(position + 1))
    for key, found in reader.scan(low, high, reverse=True):
        return _entry(key, found)
    return None


def _entry(key: bytes, value: bytes) -> tuple[ids.ExtentAddress, l2p_record.Location]:
    (address,) = l2p_record.ADDRESS.unpack(key[len(l2p_record.TABLE) :])
    return ids.ExtentAddress(address), l2p_record.unpack(value)
