"""The index port in RAM: for the simulator and for tests of what stands on the port."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from sortedcontainers import SortedDict

from couchestor_daemon.adapters import index_limits


class _Transaction:
    def __init__(self, store: MemoryIndex, content: SortedDict, *, writable: bool) -> None:
        self._store = store
        self._content = content
        self._writable = writable
        self._open = True

    def get(self, key: bytes) -> bytes | None:
        found = self._content.get(key)
        return None if found is None else bytes(found)

    def scan(
        self, start: bytes, stop: bytes, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        for key in self._content.irange(start, stop, (True, False), reverse):
            yield key, self._content[key]

    def put(self, key: bytes, value: bytes) -> None:
        index_limits.check_key(key)
        self._content[key] = value

    def delete(self, key: bytes) -> bool:
        return self._content.pop(key, None) is not None

    def commit(self) -> None:
        self._store.publish(self._content)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._writable and self._open:
            self._open = False
            self._store.unlock()


class MemoryIndex:
    """A writer works on a copy, so readers keep the snapshot they began with."""

    def __init__(self) -> None:
        self._content = SortedDict()
        self._lock = threading.Lock()
        self._sequence = 0

    def read(self) -> _Transaction:
        return _Transaction(self, self._content, writable=False)

    def write(self) -> _Transaction:
        self._lock.acquire()
        return _Transaction(self, self._content.copy(), writable=True)

    def publish(self, content: SortedDict) -> None:
        """Make a writer's content what new readers see."""
        self._content = content

    def unlock(self) -> None:
        """End of a writer."""
        self._lock.release()

    def next_sequence(self, floor: int) -> int:
        self._sequence = max(self._sequence, floor) + 1
        return self._sequence

    def sync(self) -> None:
        """Nothing to do: RAM is not durable and does not claim to be."""

    def close(self) -> None:
        """Nothing to release."""
