"""Page-aligned memory, pooled: what O_DIRECT and in-place coding need."""

from __future__ import annotations

import mmap
import threading
import weakref
from types import TracebackType
from typing import Final, Self

from couchestor_domain import errors, units

SMALLEST_CLASS_BYTES: Final = 4 * units.KIB

_abandoned: Final[weakref.WeakSet[mmap.mmap]] = weakref.WeakSet()
_abandoned_lock: Final = threading.Lock()


def abandon(view: memoryview) -> None:
    """Never lend again the pooled memory that ``view`` is of, whoever gives it back.

    For memory that a device command still uses although nobody waits for it any more. It is
    unmapped when that command lets go of it; until then it counts towards no pool. Thread-safe.
    """
    if isinstance(view.obj, mmap.mmap):
        with _abandoned_lock:
            _abandoned.add(view.obj)


def abandoned_bytes() -> int:
    """How much memory abandoned commands hold now."""
    with _abandoned_lock:
        return sum(map(len, _abandoned))


def size_class_bytes(size_bytes: int) -> int:
    """Length of the buffers that serve ``size_bytes``.

    Four classes per doubling, so that at most a quarter of a large buffer is waste: a 4+2 stripe
    of 4 MiB is a little over 6 MiB and would take 8 MiB by powers of two.
    """
    class_bytes = SMALLEST_CLASS_BYTES
    while class_bytes < size_bytes:
        class_bytes *= 2
    quarter = class_bytes // 8
    if quarter < SMALLEST_CLASS_BYTES:
        return class_bytes
    return quarter * units.ceil_div(size_bytes, quarter)


class AlignedBuffer:
    """A borrowed buffer. ``view`` is at least as long as asked for and 4 KiB-aligned.

    The content is whatever the last user left. Give it back with ``release`` or a ``with`` block;
    views taken from it must not be used afterwards.
    """

    def __init__(self, pool: BufferPool, memory: mmap.mmap) -> None:
        self._pool = pool
        self._memory: mmap.mmap | None = memory
        self.view = memoryview(memory)

    def release(self) -> None:
        """Give the memory back; idempotent."""
        memory, self._memory = self._memory, None
        if memory is not None:
            self._pool.take_back(memory)

    def passed_on(self, pool: BufferPool) -> AlignedBuffer:
        """The same memory, given back to ``pool`` in place of the one that lent it; this one is as
        if it had been released."""
        memory, self._memory = self._memory, None
        assert memory is not None, "it was given back"
        return AlignedBuffer(pool, memory)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class BufferPool:
    """Buffers by size class, bounded in bytes. Thread-safe.

    Args:
        limit_bytes: Most bytes lent and kept together.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._free: dict[int, list[mmap.mmap]] = {}
        self._lent_bytes = 0
        self._kept_bytes = 0

    @property
    def lent_bytes(self) -> int:
        """Bytes in use now."""
        return self._lent_bytes

    @property
    def limit_bytes(self) -> int:
        """What it lends at most."""
        return self._limit_bytes

    def acquire(self, size_bytes: int, *, leave_bytes: int = 0) -> AlignedBuffer:
        """Borrow at least ``size_bytes``.

        Args:
            leave_bytes: What others must still be able to borrow afterwards.

        Raises:
            OverloadedError: the pool's limit is reached.
        """
        found = self.try_acquire(size_bytes, leave_bytes=leave_bytes)
        if found is None:
            raise errors.OverloadedError(
                f"{self._lent_bytes} of {self._limit_bytes} bytes of buffers are in use; "
                "try again later"
            )
        return found

    def try_acquire(self, size_bytes: int, *, leave_bytes: int = 0) -> AlignedBuffer | None:
        """Borrow at least ``size_bytes``, or None when the pool's limit is reached.

        Args:
            leave_bytes: What others must still be able to borrow afterwards.
        """
        class_bytes = size_class_bytes(size_bytes)
        with self._lock:
            if self._lent_bytes + class_bytes + leave_bytes > self._limit_bytes:
                return None
            free = self._free.get(class_bytes)
            if free:
                memory = free.pop()
                self._kept_bytes -= class_bytes
            else:
                self._make_room(class_bytes)
                memory = mmap.mmap(-1, class_bytes)
            self._lent_bytes += class_bytes
        return AlignedBuffer(self, memory)

    def _make_room(self, wanted_bytes: int) -> None:
        for class_bytes in sorted(self._free, reverse=True):
            kept = self._free[class_bytes]
            while kept and (self._lent_bytes + self._kept_bytes + wanted_bytes > self._limit_bytes):
                # Dropping the last reference unmaps; a stray view keeps it mapped, never reused.
                kept.pop()
                self._kept_bytes -= class_bytes

    def take_back(self, memory: mmap.mmap) -> None:
        """Called by ``AlignedBuffer.release``."""
        with _abandoned_lock:
            is_abandoned = memory in _abandoned
        with self._lock:
            self._lent_bytes -= len(memory)
            if is_abandoned:
                return
            self._kept_bytes += len(memory)
            self._free.setdefault(len(memory), []).append(memory)


class PoolPart(BufferPool):
    """What one work borrows of a pool that others borrow from, too: lent by that, counted here.

    For a work of several parts that borrow at the same time. To the others they are one work: what
    is borrowed while another part holds some leaves as much for somebody else.
    """

    def __init__(self, whole: BufferPool) -> None:
        super().__init__(whole.limit_bytes)
        self._whole = whole

    def acquire(self, size_bytes: int, *, leave_bytes: int = 0) -> AlignedBuffer:
        """As of any pool. Raises OverloadedError."""
        if self._lent_bytes:
            leave_bytes = max(leave_bytes, size_class_bytes(size_bytes))
        return self._counted(self._whole.acquire(size_bytes, leave_bytes=leave_bytes))

    def try_acquire(self, size_bytes: int, *, leave_bytes: int = 0) -> AlignedBuffer | None:
        """As of any pool."""
        found = self._whole.try_acquire(size_bytes, leave_bytes=leave_bytes)
        return None if found is None else self._counted(found)

    def take_back(self, memory: mmap.mmap) -> None:
        """Called by ``AlignedBuffer.release``."""
        with self._lock:
            self._lent_bytes -= len(memory)
        self._whole.take_back(memory)

    def _counted(self, found: AlignedBuffer) -> AlignedBuffer:
        with self._lock:
            self._lent_bytes += len(found.view)
        return found.passed_on(self)
