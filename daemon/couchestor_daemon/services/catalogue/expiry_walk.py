"""Finding what is due in a bucket, a bounded number of rows at a time.

Nothing is written. A walk goes over the keys that rules act on in bytewise order, each key's
versions from the newest to the oldest, then over uploads. Where it stopped is all that is kept of
it: keys that come behind that place are met, keys that come before it are met by the next walk.
"""

from __future__ import annotations

import heapq
import itertools
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from couchestor_daemon.formats import index_keys, index_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services.catalogue import expiry, history, key_space
from couchestor_domain import lifecycle


class AmongVersions(NamedTuple):
    """Between the versions of one key."""

    below_order: int
    since_ns: int
    """When the version there was written."""
    newer_count: int
    """How many versions before this place are not current."""


class Position(NamedTuple):
    """Where a walk goes on."""

    key: bytes = b""
    among_versions: AmongVersions | None = None
    is_in_uploads: bool = False
    below_entry: bytes = b""
    """Behind this entry of the key's uploads."""


BEGIN: Final = Position()


@dataclass(slots=True)
class Found:
    """What some rows held."""

    candidates: list[expiry.Candidate] = field(default_factory=list)
    rows_count: int = 0
    following: Position | None = None
    """Where to go on; None: the walk has ended."""


def look(
    reader: index_port.IndexReader,
    bucket_id: int,
    judge: expiry.Judge,
    position: Position,
    *,
    rows_max: int,
) -> Found:
    """Look at the next rows of a bucket."""
    found = Found()
    prefixes = lifecycle.prefixes(judge.rules)
    if not position.is_in_uploads:
        _look_at_versions(reader, bucket_id, judge, prefixes, position, found, rows_max)
        if found.following is not None:
            return found
        position = Position(is_in_uploads=True)
        if found.rows_count >= rows_max:
            found.following = position
            return found
    _look_at_uploads(reader, bucket_id, judge, prefixes, position, found, rows_max)
    return found


def _look_at_versions(
    reader: index_port.IndexReader,
    bucket_id: int,
    judge: expiry.Judge,
    prefixes: Sequence[bytes],
    position: Position,
    found: Found,
    rows_max: int,
) -> None:
    for prefix in prefixes:
        for key, current, list_id in _keys(reader, bucket_id, prefix, position.key):
            if found.rows_count >= rows_max:
                found.following = Position(key)
                return
            among = position.among_versions if key == position.key else None
            found.rows_count += 1
            if current is not None and among is None:
                name = key.decode()
                if judge.current(name, current) is not None:
                    found.candidates.append(
                        expiry.Candidate.of_version(expiry.Kind.CURRENT, name, current)
                    )
            if list_id is not None:
                stopped = _look_at_history(
                    reader, key, current, list_id, judge, among, found, rows_max
                )
                if stopped is not None:
                    found.following = Position(key, stopped)
                    return


def _look_at_history(
    reader: index_port.IndexReader,
    key: bytes,
    current: index_records.Object | None,
    list_id: int,
    judge: expiry.Judge,
    among: AmongVersions | None,
    found: Found,
    rows_max: int,
) -> AmongVersions | None:
    """Look at versions of a key that are not current; where it stopped before their end."""
    name = key.decode()
    entries = history.entries(reader, list_id, below_order=among.below_order if among else None)
    if among is None and current is None:
        # The newest is a delete marker, and stands for the current version.
        newest = next(entries, None)
        if newest is None:
            return None
        second = next(entries, None)
        if second is None:
            found.rows_count += 1
            if newest.is_delete_marker and judge.marker(name, newest) is not None:
                found.candidates.append(
                    expiry.Candidate.of_version(expiry.Kind.MARKER, name, newest)
                )
            return None
        entries = itertools.chain((second,), entries)
        current = newest
    if not any(rule.noncurrent_days is not None for rule in judge.rules):
        return None
    if among is not None:
        since_ns, newer_count = among.since_ns, among.newer_count
    else:
        assert current is not None, key
        since_ns, newer_count = current.modified_ns, 0
    for stored in entries:
        due = judge.noncurrent(name, stored, since_ns=since_ns, newer_count=newer_count)
        if due is not None:
            found.candidates.append(
                expiry.Candidate.of_version(expiry.Kind.NONCURRENT, name, stored)
            )
        since_ns = stored.modified_ns
        newer_count += 1
        found.rows_count += 1
        if found.rows_count >= rows_max:
            return AmongVersions(history.order_of(stored), since_ns, newer_count)
    return None


def _look_at_uploads(
    reader: index_port.IndexReader,
    bucket_id: int,
    judge: expiry.Judge,
    prefixes: Sequence[bytes],
    position: Position,
    found: Found,
    rows_max: int,
) -> None:
    for prefix in prefixes:
        for key, value in _scan(reader, index_keys.UPLOAD_KEYS, bucket_id, prefix, position.key):
            found.rows_count += 1
            (list_id,) = index_keys.U64.unpack(value)
            start = index_keys.namespace(index_keys.UPLOAD_LISTS, list_id)
            if key == position.key and position.below_entry:
                start = key_space.after(position.below_entry)
            stop = index_keys.namespace_stop(index_keys.UPLOAD_LISTS, list_id)
            name = key.decode()
            for entry, _ in reader.scan(start, stop):
                if judge.upload(name, index_keys.initiated_of_entry(entry)) is None:
                    break  # The others were begun later.
                upload_id = index_keys.upload_of_entry(entry)
                found.candidates.append(expiry.Candidate(expiry.Kind.UPLOAD, name, upload_id))
                found.rows_count += 1
                if found.rows_count >= rows_max:
                    found.following = Position(key, is_in_uploads=True, below_entry=entry)
                    return
            if found.rows_count >= rows_max:
                found.following = Position(key_space.after(key), is_in_uploads=True)
                return


def _keys(
    reader: index_port.IndexReader, bucket_id: int, prefix: bytes, position: bytes
) -> Iterator[tuple[bytes, index_records.Object | None, int | None]]:
    """Keys with their current version and the list of their others, from ``position``."""
    tagged = [
        _tagged(reader, table, bucket_id, prefix, position)
        for table in (index_keys.OBJECTS, index_keys.HISTORY_KEYS)
    ]
    merged = heapq.merge(*tagged, key=operator.itemgetter(0))
    for key, group in itertools.groupby(merged, key=operator.itemgetter(0)):
        values = {table: value for _, table, value in group}
        current = values.get(index_keys.OBJECTS)
        listed = values.get(index_keys.HISTORY_KEYS)
        yield (
            key,
            None if current is None else index_records.unpack(index_records.Object, current),
            None if listed is None else int(index_keys.U64.unpack(listed)[0]),
        )


def _tagged(
    reader: index_port.IndexReader, table: bytes, bucket_id: int, prefix: bytes, position: bytes
) -> Iterator[tuple[bytes, bytes, bytes]]:
    for key, value in _scan(reader, table, bucket_id, prefix, position):
        yield key, table, value


def _scan(
    reader: index_port.IndexReader, table: bytes, bucket_id: int, prefix: bytes, position: bytes
) -> Iterator[tuple[bytes, bytes]]:
    stop = key_space.after_prefix(prefix)
    start = max(prefix, position)
    if stop is not None and start >= stop:
        return iter(())
    return key_space.scan(reader, table, bucket_id, start=start, stop=stop)
