"""An ordered map with keys of any length over index keys of limited length.

See ``formats.index_keys`` for the layout. ``root`` is the namespace a map starts in.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from couchestor_daemon.formats import index_keys
from couchestor_daemon.ports import index as index_port

_PART_BYTES: Final = index_keys.KEY_PART_BYTES
_MARK: Final = index_keys.CHILD_MARK
# Behind every entry that shares a key part, whether it ends there or goes on in a child.
_AFTER_MARK: Final = bytes([_MARK[0] + 1])
_CHILD_KEY_BYTES: Final = 1 + index_keys.U64.size + _PART_BYTES + len(_MARK)


def new_namespace(txn: index_port.IndexWriter) -> int:
    """A number never drawn before, from 1."""
    value = txn.get(index_keys.NAMESPACE_KEY)
    number = 1 if value is None else int(index_keys.U64.unpack(value)[0]) + 1
    txn.put(index_keys.NAMESPACE_KEY, index_keys.U64.pack(number))
    return number


def get(reader: index_port.IndexReader, table: bytes, root: int, key: bytes) -> bytes | None:
    """The value of a key."""
    base = index_keys.namespace(table, root)
    while len(key) > _PART_BYTES:
        child = reader.get(base + key[:_PART_BYTES] + _MARK)
        if child is None:
            return None
        base = table + child
        key = key[_PART_BYTES:]
    return reader.get(base + key)


def put(txn: index_port.IndexWriter, table: bytes, root: int, key: bytes, value: bytes) -> None:
    """Set a key (not empty), adding the namespaces it needs."""
    assert key, "keys are not empty"
    base = index_keys.namespace(table, root)
    while len(key) > _PART_BYTES:
        entry = base + key[:_PART_BYTES] + _MARK
        child = txn.get(entry)
        if child is None:
            child = index_keys.U64.pack(new_namespace(txn))
            txn.put(entry, child)
        base = table + child
        key = key[_PART_BYTES:]
    txn.put(base + key, value)


def delete(txn: index_port.IndexWriter, table: bytes, root: int, key: bytes) -> bool:
    """Remove a key and the namespaces it leaves empty; True when it was there."""
    base = index_keys.namespace(table, root)
    path: list[tuple[bytes, bytes]] = []
    while len(key) > _PART_BYTES:
        entry = base + key[:_PART_BYTES] + _MARK
        child = txn.get(entry)
        if child is None:
            return False
        path.append((entry, child))
        base = table + child
        key = key[_PART_BYTES:]
    if not txn.delete(base + key):
        return False
    for entry, child in reversed(path):
        if not is_empty(txn, table, int(index_keys.U64.unpack(child)[0])):
            break
        txn.delete(entry)
    return True


def is_empty(reader: index_port.IndexReader, table: bytes, root: int) -> bool:
    """Whether a map has no key."""
    start = index_keys.namespace(table, root)
    return next(reader.scan(start, index_keys.namespace_stop(table, root)), None) is None


def after(key: bytes) -> bytes:
    """The smallest key above ``key``."""
    return key + b"\x00"


def after_prefix(prefix: bytes) -> bytes | None:
    """The smallest key above every key that starts with ``prefix``; None when there is none."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else None


def scan(
    reader: index_port.IndexReader,
    table: bytes,
    root: int,
    *,
    start: bytes = b"",
    stop: bytes | None = None,
) -> Iterator[tuple[bytes, bytes]]:
    """Pairs with start <= key < stop in bytewise order of whole keys; ``stop`` None: to the end.

    Time grows with what is consumed, whatever lies before ``start``.
    """
    base = index_keys.namespace(table, root)
    low = base + start[:_PART_BYTES]
    if len(start) > _PART_BYTES:
        low += _MARK
    if stop is None:
        high = index_keys.namespace_stop(table, root)
    else:
        high = base + stop[:_PART_BYTES]
        if len(stop) > _PART_BYTES:
            high += _AFTER_MARK
    for entry, value in reader.scan(low, high):
        if len(entry) < _CHILD_KEY_BYTES:
            yield entry[len(base) :], value
            continue
        head = entry[len(base) : -len(_MARK)]
        # A bound that does not go on below this part leaves all of the child in range.
        rest = start[_PART_BYTES:] if start[:_PART_BYTES] == head else b""
        end = stop[_PART_BYTES:] if stop and stop[:_PART_BYTES] == head else None
        child = int(index_keys.U64.unpack(value)[0])
        for tail, found in scan(reader, table, child, start=rest, stop=end or None):
            yield head + tail, found
