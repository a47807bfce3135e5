"""The index port in RAM: for the simulator and for tests of what stands on the port."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from sortedcontainers import SortedDict

from couchestor_daemon.adapters import index_limits


class _Reader:
    def __init__(self, store: MemoryIndex, content: SortedDict) -> None:
        self._store = store
        self._content = content
        self._open = True

    def get(self, key: bytes) -> bytes | None:
        found: bytes | None = self._content.get(key)
        return found

    def scan(
        self, start: bytes, stop: bytes, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        if start >= stop:
            return
        for key in self._content.irange(start, stop, (True, False), reverse):
            yield key, self._content[key]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._open:
            self._open = False
            self._store.end_reader(self._content)


class _Writer:
    """Collects changes beside the content until the commit; None is a deletion."""

    def __init__(self, store: MemoryIndex, content: SortedDict) -> None:
        self._store = store
        self._content = content
        self._changes = SortedDict()
        self.open = True

    def get(self, key: bytes) -> bytes | None:
        source = self._changes if key in self._changes else self._content
        found: bytes | None = source.get(key)
        return found

    def scan(
        self, start: bytes, stop: bytes, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        if start >= stop:
            return
        bounds = (start, stop, (True, False), reverse)
        previous = b""
        for key in heapq.merge(
            self._content.irange(*bounds), self._changes.irange(*bounds), reverse=reverse
        ):
            value = self.get(key)
            if key != previous and value is not None:
                yield key, value
            previous = key

    def put(self, key: bytes, value: bytes) -> None:
        assert self.open, "the writer has ended"
        index_limits.check_key(key)
        self._changes[key] = bytes(value)

    def delete(self, key: bytes) -> bool:
        assert self.open, "the writer has ended"
        found = self.get(key) is not None
        self._changes[key] = None
        return found

    def commit(self) -> None:
        assert self.open, "the writer has ended"
        self._store.publish(self._changes)
        self._store.end_writer(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._store.end_writer(self)


class MemoryIndex:
    """A commit changes the content in place, or a copy of it while readers hold it."""

    def __init__(self) -> None:
        self._content = SortedDict()
        self._readers_count = 0
        self._guard = threading.Lock()
        self._turn = threading.Lock()
        self._writer: _Writer | None = None
        self._sequence = 0

    def read(self) -> _Reader:
        with self._guard:
            self._readers_count += 1
            return _Reader(self, self._content)

    def write(self) -> _Writer:
        self._turn.acquire()
        self._writer = _Writer(self, self._content)
        return self._writer

    def publish(self, changes: SortedDict) -> None:
        """Apply a writer's changes; readers begun from now on see them."""
        with self._guard:
            if self._readers_count:
                self._content = self._content.copy()
                self._readers_count = 0
            for key, value in changes.items():
                if value is None:
                    self._content.pop(key, None)
                else:
                    self._content[key] = value

    def end_reader(self, content: SortedDict) -> None:
        """A reader of ``content`` has ended."""
        with self._guard:
            if content is self._content:
                self._readers_count -= 1

    def end_writer(self, writer: _Writer) -> None:
        """Let the next writer begin; idempotent."""
        if writer.open:
            writer.open = False
            self._writer = None
            self._turn.release()

    def crash(self) -> None:
        """What the death of the writing process does: its uncommitted changes are gone."""
        if self._writer is not None:
            self.end_writer(self._writer)

    def next_sequence(self, floor: int) -> int:
        self._sequence = max(self._sequence, floor) + 1
        return self._sequence

    def sync(self) -> None:
        """Nothing to do: RAM is not durable and does not claim to be."""

    def close(self) -> None:
        """Nothing to release."""
