"""What the operations of one commit write: kept in memory for the log, then stored in one pass."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from types import TracebackType
from typing import Self

from couchestor_daemon.formats import batch
from couchestor_daemon.ports import index as index_port


class RecordingWriter:
    """An index writer that keeps what is written, for the log and for one pass over the index.

    What was written is read back from memory, so a key that many operations of a batch change (a
    counter) is stored and logged once. ``carry_out`` brings it into the transaction.
    """

    def __init__(self, txn: index_port.IndexWriter) -> None:
        self.writes_count = 0
        """Puts and deletes so far; tells whether an operation has written."""
        self._txn = txn
        self._changes: dict[bytes, bytes | None] = {}
        self._pending: dict[bytes, None] = {}

    @property
    def mutations(self) -> Collection[batch.Mutation]:
        """The last change of each key written."""
        return self._changes.items()

    def get(self, key: bytes) -> bytes | None:
        try:
            return self._changes[key]
        except KeyError:
            return self._txn.get(key)

    def scan(
        self, start: bytes, stop: bytes, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        self.carry_out()
        return self._txn.scan(start, stop, reverse=reverse)

    def put(self, key: bytes, value: bytes) -> None:
        self._changes[key] = value
        self._pending[key] = None
        self.writes_count += 1

    def delete(self, key: bytes) -> bool:
        if self.get(key) is None:
            return False
        self._changes[key] = None
        self._pending[key] = None
        self.writes_count += 1
        return True

    def carry_out(self) -> None:
        """Write what is not in the transaction yet. Raises IndexFullError."""
        for key in self._pending:
            value = self._changes[key]
            if value is None:
                self._txn.delete(key)
            else:
                self._txn.put(key, value)
        self._pending.clear()

    def commit(self) -> None:
        raise AssertionError("operations do not commit; the log does")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None
