"""Versions of a key that are not its current one: older ones, and delete markers of any age.

A key whose newest version is a delete marker has no current version, so listings and reads of
current objects never meet one. Newest first.
"""

from __future__ import annotations

from collections.abc import Iterator

from couchestor_daemon.formats import index_keys, index_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services.catalogue import key_space
from couchestor_domain import objects, version_ids


def order_of(stored: index_records.Object) -> int:
    """Where a version stands; what was written before versioning was enabled has only its time."""
    return stored.order or stored.modified_ns


def add(
    txn: index_port.IndexWriter, bucket_id: int, key: bytes, stored: index_records.Object
) -> None:
    """Keep a version that is not, or no longer, the current one."""
    list_id = find_list(txn, bucket_id, key)
    if list_id is None:
        list_id = key_space.new_namespace(txn)
        key_space.put(txn, index_keys.HISTORY_KEYS, bucket_id, key, index_keys.U64.pack(list_id))
    txn.put(index_keys.history_entry(list_id, order_of(stored)), index_records.pack(stored))


def remove(
    txn: index_port.IndexWriter, bucket_id: int, key: bytes, stored: index_records.Object
) -> None:
    """Forget a version, not what it owns."""
    list_id = find_list(txn, bucket_id, key)
    assert list_id is not None, key
    txn.delete(index_keys.history_entry(list_id, order_of(stored)))
    if key_space.is_empty(txn, index_keys.HISTORY, list_id):
        key_space.delete(txn, index_keys.HISTORY_KEYS, bucket_id, key)


def newest(
    reader: index_port.IndexReader, bucket_id: int, key: bytes
) -> index_records.Object | None:
    """The newest of them."""
    list_id = find_list(reader, bucket_id, key)
    return None if list_id is None else next(entries(reader, list_id), None)


def find(
    reader: index_port.IndexReader, bucket_id: int, key: bytes, version_id: str
) -> index_records.Object | None:
    """The version with this id. The null version is looked for among all of the key."""
    list_id = find_list(reader, bucket_id, key)
    if list_id is None:
        return None
    if version_id == objects.NULL_VERSION:
        null = (found for found in entries(reader, list_id) if found.version_id == version_id)
        return next(null, None)
    order = version_ids.order_of(version_id)
    if order is None:
        return None
    value = reader.get(index_keys.history_entry(list_id, order))
    if value is None:
        return None
    stored = index_records.unpack(index_records.Object, value)
    return stored if stored.version_id == version_id else None


def at(reader: index_port.IndexReader, list_id: int, order: int) -> index_records.Object | None:
    """The version at a place of a list."""
    value = reader.get(index_keys.history_entry(list_id, order))
    return None if value is None else index_records.unpack(index_records.Object, value)


def successor(
    reader: index_port.IndexReader, list_id: int, order: int
) -> index_records.Object | None:
    """The next newer version in a list; None for its newest, whose successor is the current one."""
    start = index_keys.namespace(index_keys.HISTORY, list_id)
    stop = index_keys.history_entry(list_id, order)
    for _, value in reader.scan(start, stop, reverse=True):
        return index_records.unpack(index_records.Object, value)
    return None


def entries(
    reader: index_port.IndexReader, list_id: int, *, below_order: int | None = None
) -> Iterator[index_records.Object]:
    """The versions in a list, newest first; only those below an order, if one is given."""
    start = index_keys.namespace(index_keys.HISTORY, list_id)
    if below_order is not None:
        start = key_space.after(index_keys.history_entry(list_id, below_order))
    stop = index_keys.namespace_stop(index_keys.HISTORY, list_id)
    for _, value in reader.scan(start, stop):
        yield index_records.unpack(index_records.Object, value)


def find_list(reader: index_port.IndexReader, bucket_id: int, key: bytes) -> int | None:
    """Where the versions of a key are, if it has any."""
    value = key_space.get(reader, index_keys.HISTORY_KEYS, bucket_id, key)
    return None if value is None else int(index_keys.U64.unpack(value)[0])
