"""Pages of all versions of a bucket: current ones, older ones and delete markers."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import operator
from collections.abc import Iterator
from typing import NamedTuple

from couchestor_daemon.formats import index_keys, index_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services.catalogue import buckets, history, listing
from couchestor_domain import objects, version_ids


class _Name(NamedTuple):
    """A key with what the tables hold of it, or a common prefix."""

    name: bytes
    is_prefix: bool
    current: index_records.Object | None
    list_id: int | None


def list_versions(
    reader: index_port.IndexReader, query: objects.VersionQuery
) -> objects.VersionPage:
    """A page by key, each key's newest version first; time grows with the page.

    Records whose parts are stored apart come without sizes and extents of parts.

    Raises:
        NoSuchBucketError.
    """
    bucket = buckets.find(reader, query.bucket)
    found: list[objects.ObjectRecord] = []
    prefixes: list[str] = []
    last_key, last_version = "", ""
    truncated = False
    if query.limit > 0:
        for record in _records(reader, bucket, query):
            if len(found) + len(prefixes) == query.limit:
                truncated = True
                break
            if isinstance(record, str):
                prefixes.append(record)
                last_key, last_version = record, ""
            else:
                found.append(record)
                last_key, last_version = record.key, _marker(record)
    return objects.VersionPage(
        versions=found,
        common_prefixes=prefixes,
        truncated=truncated,
        next_key_marker=last_key if truncated else "",
        next_version_marker=last_version if truncated else "",
    )


def _records(
    reader: index_port.IndexReader, bucket: index_records.Bucket, query: objects.VersionQuery
) -> Iterator[objects.ObjectRecord | str]:
    after_key = query.key_marker.encode()
    for each in _names(reader, bucket.bucket_id, query):
        name = each.name.decode()
        if each.is_prefix:
            yield name
            continue
        below = None
        if query.version_marker and each.name == after_key:
            below = _order_of_marker(reader, each, query.version_marker)
            if below is None:
                continue
        is_latest = True
        if each.current is not None:
            if below is None or history.order_of(each.current) < below:
                yield _record(query.bucket, name, each.current, is_latest=True)
            is_latest = False
        if each.list_id is None:
            continue
        if below is not None and each.current is None:
            newest = next(history.entries(reader, each.list_id), None)
            is_latest = newest is not None and history.order_of(newest) < below
        for stored in history.entries(reader, each.list_id, below_order=below):
            yield _record(query.bucket, name, stored, is_latest=is_latest)
            is_latest = False


def _names(
    reader: index_port.IndexReader, bucket_id: int, query: objects.VersionQuery
) -> Iterator[_Name]:
    """Keys and common prefixes of both tables in one order."""
    tagged = [
        _entries(reader, table, bucket_id, query)
        for table in (index_keys.OBJECTS, index_keys.HISTORY_KEYS)
    ]
    merged = heapq.merge(*tagged, key=operator.itemgetter(0))
    for name, group in itertools.groupby(merged, key=operator.itemgetter(0)):
        values = {table: value for _, table, value in group}
        current = values.get(index_keys.OBJECTS)
        listed = values.get(index_keys.HISTORY_KEYS)
        yield _Name(
            name,
            current is None and listed is None,
            None if current is None else index_records.unpack(index_records.Object, current),
            None if listed is None else int(index_keys.U64.unpack(listed)[0]),
        )


def _entries(
    reader: index_port.IndexReader, table: bytes, bucket_id: int, query: objects.VersionQuery
) -> Iterator[tuple[bytes, bytes, bytes | None]]:
    """Names with the table they are from and their values; None for a common prefix."""
    for name, value in listing.entries(
        reader,
        table,
        bucket_id,
        prefix=query.prefix.encode(),
        delimiter=query.delimiter.encode(),
        after=query.key_marker.encode(),
        inclusive=bool(query.version_marker),
    ):
        yield name, table, value


def _marker(record: objects.ObjectRecord) -> str:
    """An id to go on behind, whether the version still exists then or not."""
    if record.version_id != objects.NULL_VERSION or not record.order:
        return record.version_id
    return version_ids.make(record.order, bytes(version_ids.RANDOM_BYTES))


def _order_of_marker(reader: index_port.IndexReader, name: _Name, marker: str) -> int | None:
    """The order to go on below; None when nothing of the key is left to be listed."""
    order = version_ids.order_of(marker)
    if order is not None:
        return order
    known = [] if name.current is None else [name.current]
    if name.list_id is not None:
        known += history.entries(reader, name.list_id)
    return next((history.order_of(each) for each in known if each.version_id == marker), None)


def _record(
    bucket: str, key: str, stored: index_records.Object, *, is_latest: bool
) -> objects.ObjectRecord:
    record = index_records.object_to_domain(bucket, key, stored)
    return dataclasses.replace(record, is_latest=is_latest, order=history.order_of(stored))
