"""The live index: one ordered map of bytes to bytes, shared by every process of a node.

Keys are 1 to 511 bytes and sort bytewise. One writer at a time node-wide; readers never block and
see the last commit. Commits survive the death of a process but not power loss: the replicated log
makes them durable, and recovery replays it.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Protocol, Self

KEY_BYTES_MAX = 511


class IndexReader(Protocol):
    """A consistent snapshot. Also the read half of a writer, which sees its own writes."""

    def get(self, key: bytes) -> bytes | None: ...

    def scan(
        self, start: bytes, stop: bytes, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Pairs with start <= key < stop in bytewise order, or from the last down to the first.

        The writer must not change the map while a scan of it is being consumed.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close a reader; abort a writer that was not committed."""
        ...


class IndexWriter(IndexReader, Protocol):
    """The one writing transaction of the node, bound to the thread that began it."""

    def put(self, key: bytes, value: bytes) -> None:
        """Raises IndexFullError."""
        ...

    def delete(self, key: bytes) -> bool:
        """True when the key was there."""
        ...

    def commit(self) -> None:
        """Atomic; visible to readers begun afterwards, in every process. Raises IndexFullError."""
        ...


class IndexStore(Protocol):
    """Opens transactions."""

    def read(self) -> IndexReader:
        """Never blocks."""
        ...

    def write(self) -> IndexWriter:
        """Block until the node's write lock is free; one left by a dead process is taken over."""
        ...

    def next_sequence(self, floor: int) -> int:
        """A number above ``floor`` and above every one given before, even to a process that died.

        Call while holding the writer. Survives the death of processes, not power loss.
        """
        ...

    def sync(self) -> None:
        """Make the present state survive power loss (used at a clean shutdown)."""
        ...

    def close(self) -> None: ...
