"""The index port on LMDB, shared by the processes of a node.

Commits are not synced: the replicated log is what makes mutations durable, and a start after
power loss rebuilds this index from it. Commits do survive the death of processes, because LMDB
writes its pages into the kernel's page cache before the commit is visible.
"""

from __future__ import annotations

import mmap
import os
import pathlib
import struct
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Final, Self

import lmdb

from couchestor_daemon.adapters import index_limits
from couchestor_domain import errors

READERS_COUNT_MAX: Final = 1024
_COUNTER: Final = struct.Struct("<Q")


class _Transaction:
    def __init__(self, txn: Any) -> None:
        self._txn = txn

    def get(self, key: bytes) -> bytes | None:
        found = self._txn.get(key)
        return None if found is None else bytes(found)

    def scan(
        self, start: bytes, stop: bytes, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        with self._txn.cursor() as cursor:
            if reverse:
                # Position on the last key below ``stop``.
                found = cursor.prev() if cursor.set_range(stop) else cursor.last()
                while found and cursor.key() >= start:
                    yield cursor.item()
                    found = cursor.prev()
                return
            found = cursor.set_range(start)
            while found and cursor.key() < stop:
                yield cursor.item()
                found = cursor.next()

    def put(self, key: bytes, value: bytes) -> None:
        index_limits.check_key(key)
        try:
            self._txn.put(key, value)
        except lmdb.MapFullError as exc:
            raise errors.IndexFullError(f"the index is full: {exc}") from exc

    def delete(self, key: bytes) -> bool:
        return bool(self._txn.delete(key))

    def commit(self) -> None:
        try:
            self._txn.commit()
        except lmdb.MapFullError as exc:
            raise errors.IndexFullError(f"the index is full: {exc}") from exc
        except lmdb.Error as exc:
            raise errors.IndexCorruptError(
                f"the index refused a commit: {exc}; run `couchestor recover`"
            ) from exc

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # After a commit this does nothing.
        self._txn.abort()


class LmdbIndex:
    """Open once per process, never across a fork.

    Args:
        path: Folder of the index, created if missing.
        map_size_bytes: Address space and upper bound of the file; the file grows as needed.

    Raises:
        IndexCorruptError: LMDB cannot open what is there.
    """

    def __init__(self, path: pathlib.Path, *, map_size_bytes: int) -> None:
        path.mkdir(parents=True, exist_ok=True)
        try:
            self._env = lmdb.open(
                str(path),
                map_size=map_size_bytes,
                max_readers=READERS_COUNT_MAX,
                sync=False,
                metasync=False,
                readahead=False,
            )
            # Slots of readers that were killed would keep old pages alive.
            self._env.reader_check()
        except lmdb.Error as exc:
            raise errors.IndexCorruptError(
                f"the index under {path} cannot be opened: {exc}; run `couchestor recover`"
            ) from exc
        fd = os.open(path / "sequence", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if os.fstat(fd).st_size < _COUNTER.size:
                os.ftruncate(fd, mmap.PAGESIZE)
            self._counter = mmap.mmap(fd, mmap.PAGESIZE)
        finally:
            os.close(fd)

    def read(self) -> _Transaction:
        return _Transaction(self._env.begin())

    def write(self) -> _Transaction:
        return _Transaction(self._env.begin(write=True))

    def next_sequence(self, floor: int) -> int:
        (last,) = _COUNTER.unpack_from(self._counter)
        following = int(max(last, floor)) + 1
        _COUNTER.pack_into(self._counter, 0, following)
        return following

    def sync(self) -> None:
        self._env.sync(True)

    def close(self) -> None:
        self._env.close()
        self._counter.close()
