"""The index of a process that may die at any commit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from couchestor_daemon.adapters import memory_index, simulated_device
from couchestor_daemon.ports import index as index_port


class WorkerCrash(BaseException):
    """One process is dead; not an Exception, so that nothing under test can handle it."""


class _MortalWriter:
    """A writing transaction of a process that dies with its world, also just before the commit."""

    def __init__(self, index: MortalIndex, inner: index_port.IndexWriter) -> None:
        self._index = index
        self._inner = inner

    def get(self, key: bytes) -> bytes | None:
        return self._inner.get(key)

    def scan(
        self, start: bytes, stop: bytes, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        return self._inner.scan(start, stop, reverse=reverse)

    def put(self, key: bytes, value: bytes) -> None:
        self._inner.put(key, value)

    def delete(self, key: bytes) -> bool:
        return self._inner.delete(key)

    def commit(self) -> None:
        self._index.before_commit()
        self._inner.commit()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._inner.__exit__(kind, exc, trace)


class MortalIndex:
    """The index of one life: a commit is a command at which the world may end.

    Args:
        on_commit: Called before each commit; what it raises is the end of the process.
    """

    def __init__(
        self,
        world: simulated_device.SimulatedWorld,
        inner: memory_index.MemoryIndex,
        on_commit: Callable[[], None] = lambda: None,
    ) -> None:
        self._world = world
        self._inner = inner
        self._on_commit = on_commit

    def before_commit(self) -> None:
        """The batch is on the log and the index does not show it yet."""
        self._world.count_command(lambda power_lost: None)
        self._on_commit()

    def read(self) -> index_port.IndexReader:
        self._world.check_running()
        return self._inner.read()

    def write(self) -> index_port.IndexWriter:
        self._world.check_running()
        return _MortalWriter(self, self._inner.write())

    def next_sequence(self, floor: int) -> int:
        return self._inner.next_sequence(floor)

    def sync(self) -> None:
        """Process crashes keep it, power loss takes it: there is no third case here."""

    def close(self) -> None:
        """Nothing to release."""
