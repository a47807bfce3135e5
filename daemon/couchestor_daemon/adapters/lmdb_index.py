"""The index port on LMDB, shared by the processes of a node.

Commits are not synced: the replicated log is what makes mutations durable, and a start after
power loss rebuilds this index from it. Commits do survive the death of processes, because LMDB
writes its pages into the kernel's page cache before the commit is visible.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pathlib
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Final, Self

import lmdb

from couchestor_daemon.adapters import index_limits
from couchestor_domain import errors

READERS_COUNT_MAX: Final = 1024
SPARE_READERS_COUNT: Final = 16
"""Ended read transactions kept for reuse: beginning one again is a renewal, not an allocation."""
READERS_BYTES: Final = 64 * (READERS_COUNT_MAX + 64)
"""A cache line for each reader, and more than the table's head takes."""
LOCK_NAME: Final = "lock.mdb"
COUNTER_BYTES: Final = 8
_STAT_BLOCK_BYTES: Final = 512
_DAMAGE: Final = (lmdb.InvalidError, lmdb.CorruptedError, lmdb.PageNotFoundError)
"""What says that the file is not as LMDB left it, and not that it may not be opened."""


@contextlib.contextmanager
def _mapped(doing: str) -> Iterator[None]:
    """LMDB's errors as ours, most specific first."""
    try:
        yield
    except lmdb.Error as exc:
        raise _translated(exc, doing) from exc


def _translated(exc: lmdb.Error, doing: str) -> Exception:
    if isinstance(exc, lmdb.MapFullError):
        return errors.IndexFullError(
            "the index has grown to the size that is the limit of a node: delete objects"
        )
    if isinstance(exc, lmdb.DiskError):
        return errors.IndexFullError(f"no room for the file of the index: {exc}")
    if isinstance(exc, lmdb.ReadersFullError):
        return errors.OverloadedError(f"too many readers of the index: {exc}")
    return errors.IndexCorruptError(
        f"the index failed to {doing}: {exc}; run `couchestor recover`",
        is_damage=isinstance(exc, _DAMAGE),
    )


class _Transaction:
    def __init__(self, txn: Any) -> None:
        self._txn = txn

    def get(self, key: bytes) -> bytes | None:
        # Written out because this is the hot path: a context manager would cost as much as LMDB.
        try:
            found: bytes | None = self._txn.get(key)
        except lmdb.BadValsizeError:
            # No such key can be there; names and ids from clients may be of any length.
            return None
        except lmdb.Error as exc:
            raise _translated(exc, "read") from exc
        return found

    def scan(
        self, start: bytes, stop: bytes, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        # An error of the consumer is thrown into this generator only on close, so the mapping
        # covers LMDB's own errors alone.
        with _mapped("scan"), self._txn.cursor() as cursor:
            if reverse:
                # Position on the last key below ``stop``.
                found = cursor.prev() if cursor.set_range(stop) else cursor.last()
                while found and cursor.key() >= start:
                    yield cursor.item()
                    found = cursor.prev()
                return
            found = cursor.set_range(start) if start else cursor.first()
            while found and cursor.key() < stop:
                yield cursor.item()
                found = cursor.next()

    def put(self, key: bytes, value: bytes) -> None:
        index_limits.check_key(key)
        try:
            self._txn.put(key, value)
        except lmdb.Error as exc:
            raise _translated(exc, "write") from exc

    def delete(self, key: bytes) -> bool:
        try:
            return bool(self._txn.delete(key))
        except lmdb.Error as exc:
            raise _translated(exc, "delete") from exc

    def commit(self) -> None:
        with _mapped("commit"):
            self._txn.commit()

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
        read_only: For a look beside the node that owns it: nothing is created or changed, and
            writes raise IndexCorruptError.

    Raises:
        IndexCorruptError: LMDB cannot open what is there; ``context['is_damage']`` tells whether
            for what the file holds.
        IndexFullError: no room to create it.
    """

    def __init__(self, path: pathlib.Path, *, map_size_bytes: int, read_only: bool = False) -> None:
        self._path = path
        if not read_only:
            path.mkdir(parents=True, exist_ok=True)
            _reserve_readers(path / LOCK_NAME)
        self._counter_map = _map_counter(path / "sequence", read_only=read_only)
        # As one native 64-bit item: it is stored by one instruction, so a process killed at any
        # point leaves the old or the new number.
        self._counter = memoryview(self._counter_map).cast("Q")
        try:
            with _mapped(f"open under {path}"):
                self._env = lmdb.open(
                    str(path),
                    map_size=map_size_bytes,
                    max_readers=READERS_COUNT_MAX,
                    max_spare_txns=SPARE_READERS_COUNT,
                    sync=False,
                    metasync=False,
                    readahead=False,
                    readonly=read_only,
                    create=not read_only,
                )
                # Slots of readers that were killed would keep old pages alive.
                self._env.reader_check()
        except BaseException:
            self._close_counter()
            raise

    def read(self) -> _Transaction:
        try:
            return _Transaction(self._env.begin())
        except lmdb.ReadersFullError:
            # Killed processes leave their slots taken until someone looks.
            with _mapped("read"):
                self._env.reader_check()
                return _Transaction(self._env.begin())
        except lmdb.Error as exc:
            raise _translated(exc, "read") from exc

    def write(self) -> _Transaction:
        with _mapped("begin a write"):
            return _Transaction(self._env.begin(write=True))

    def next_sequence(self, floor: int) -> int:
        following = max(self._counter[0], floor) + 1
        self._counter[0] = following
        return following

    def sync(self) -> None:
        with _mapped("sync"):
            self._env.sync(True)
        self._counter_map.flush()
        # The files' names, and what else a caller has put beside them.
        for name in (*sorted(os.listdir(self._path)), "."):
            # Not the table of readers: it means nothing after a restart, and see its reservation.
            if name != LOCK_NAME:
                _sync(self._path / name)

    def close(self) -> None:
        self._env.close()
        self._close_counter()

    def _close_counter(self) -> None:
        self._counter.release()
        self._counter_map.close()


def _sync(path: pathlib.Path) -> None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as exc:
        raise errors.IndexCorruptError(f"{path} cannot be synced: {exc.strerror}") from exc


def _reserve_readers(path: pathlib.Path) -> None:
    """Reserve the table of readers, which LMDB would extend and map: a slot in a hole of a full
    disk kills the process that takes it.

    Only before LMDB has the file open in this process: to close it a second time would drop the
    lock by which other processes see that this one lives, and they would take its slots away.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            found = os.fstat(fd)
            if found.st_blocks * _STAT_BLOCK_BYTES < max(found.st_size, READERS_BYTES):
                os.posix_fallocate(fd, 0, max(found.st_size, READERS_BYTES))
        finally:
            os.close(fd)
    except OSError as exc:
        raise errors.IndexFullError(f"no room for {path}: {exc.strerror}") from exc


def _map_counter(path: pathlib.Path, *, read_only: bool) -> mmap.mmap:
    if read_only:
        return mmap.mmap(-1, COUNTER_BYTES)  # A number that nobody shares: nothing is committed.
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        # Reserved, not just extended: a store into a hole of a full disk kills the process.
        os.posix_fallocate(fd, 0, COUNTER_BYTES)
        return mmap.mmap(fd, COUNTER_BYTES)
    except OSError as exc:
        raise errors.IndexFullError(f"no room for {path}: {exc.strerror}") from exc
    finally:
        os.close(fd)
