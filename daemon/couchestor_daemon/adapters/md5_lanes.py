"""MD5 of the bodies that a worker receives at the same time, computed together.

One thread takes what is waiting, up to eight messages, and hashes a part of each in one call of
``md5_code``, without the GIL. What comes meanwhile joins at the next call. Eight bodies take hardly
longer than one; a body that is alone takes about as long as with OpenSSL
(``couchestor_bench.md5``, docs/adr/0026).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import hashlib
import queue
import struct
import threading
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from couchestor_daemon.adapters import machine_code, md5_code, thread_priority
from couchestor_domain import units

CALL_BLOCKS_MAX: Final = 512 * units.KIB // md5_code.BLOCK_BYTES
"""Of one message in one call: what comes meanwhile waits for no longer than that takes (0.7 ms)."""

AVX512_FEATURES: Final = frozenset({"avx2", "avx512f", "avx512vl"})

_LANES: Final = md5_code.LANES_COUNT
_TEST_LENGTHS: Final = (0, 1, 55, 56, 63, 64, 65, 200, 4096)

Kernel = Callable[[int, int, int, int], None]
"""``md5_code``'s function: addresses of state and messages, blocks, address of the frame."""

Span = tuple[int, int]
"""Address and number of whole blocks."""


def kernel() -> Kernel:
    """The function for this processor, which has passed a test against OpenSSL.

    Raises:
        MachineCodeError: it cannot be had here, or it is wrong.
    """
    features = machine_code.processor_features()
    if "avx2" not in features:
        raise machine_code.MachineCodeError("the processor has no AVX2")
    made = loaded(with_avx512=features >= AVX512_FEATURES)
    lanes = Md5Lanes(made)
    for length in _TEST_LENGTHS:
        message = bytes(index * 7 % 251 for index in range(length))
        stream = lanes.new()
        stream.update(message)
        if stream.digest() != hashlib.md5(message, usedforsecurity=False).digest():
            raise machine_code.MachineCodeError(f"MD5 of {length} bytes came out wrong")
    return made


def loaded(*, with_avx512: bool) -> Kernel:
    """``md5_code``'s function, untested. Raises MachineCodeError."""
    pointer = ctypes.c_void_p
    return machine_code.loaded(
        md5_code.kernel(with_avx512=with_avx512), pointer, pointer, ctypes.c_uint64, pointer
    )


class _Frame:
    """Memory of one call at a time."""

    def __init__(self) -> None:
        raw = np.zeros(md5_code.FRAME_BYTES + 32, np.uint8)
        start = -raw.ctypes.data % 32
        constants = md5_code.frame_start()
        raw[start : start + len(constants)] = np.frombuffer(constants, np.uint8)
        self._raw = raw
        self.frame_address = raw.ctypes.data + start
        self.state = (ctypes.c_uint32 * (4 * _LANES))()
        self.messages = (ctypes.c_uint64 * _LANES)()
        self.state_address = ctypes.addressof(self.state)
        self.messages_address = ctypes.addressof(self.messages)

    def put(self, lane: int, state: Sequence[int]) -> None:
        for row, word in enumerate(state):
            self.state[_LANES * row + lane] = word

    def taken(self, lane: int) -> tuple[int, ...]:
        return tuple(self.state[_LANES * row + lane] for row in range(4))


class Md5Lanes:
    """The thread of one process and what waits for it.

    Args:
        function: Of ``kernel``.
    """

    def __init__(self, function: Kernel) -> None:
        self._function = function
        self._waiting: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self._own = _Frame()
        self._own_lock = threading.Lock()

    def new(self) -> LaneMd5:
        """The digest of an empty message, which goes on growing."""
        return LaneMd5(self)

    def send(self, job: Job) -> None:
        """Have a job carried out. Raises RuntimeError after ``close``."""
        if self._thread is None or self._is_closed:
            self._start()
        self._waiting.put(job)

    def run_here(self, state: tuple[int, ...], spans: Sequence[Span]) -> tuple[int, ...]:
        """The state after one message's next blocks, computed by the caller's own thread."""
        with self._own_lock:
            own = self._own
            own.put(0, state)
            for address, blocks in spans:
                own.messages[:] = [address] * _LANES
                self._call(own, blocks)
            return own.taken(0)

    def close(self) -> None:
        """Carry out what was sent and end the thread. Idempotent, blocking."""
        with self._lock:
            self._is_closed = True
            thread = self._thread
        if thread is not None:
            self._waiting.put(None)
            thread.join()

    def _start(self) -> None:
        with self._lock:
            if self._is_closed:
                raise RuntimeError("the lanes have been closed")
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="md5", daemon=True)
                self._thread.start()

    def _call(self, frame: _Frame, blocks: int) -> None:
        self._function(frame.state_address, frame.messages_address, blocks, frame.frame_address)

    def _work(self) -> None:
        thread_priority.yield_to_others()
        frame = _Frame()
        lanes: list[Job | None] = [None] * _LANES
        while self._fill(frame, lanes):
            jobs = [job for job in lanes if job is not None]
            if not jobs:
                continue
            try:
                ended = self._advance(frame, lanes, jobs)
            except Exception as exc:
                # Such as a lack of memory: whoever waits is told, and the thread goes on.
                for job in jobs:
                    job.error = exc
                lanes[:] = [None] * _LANES
                ended = jobs
            _tell(ended)

    def _advance(
        self, frame: _Frame, lanes: list[Job | None], jobs: Sequence[Job]
    ) -> Sequence[Job]:
        """One call over all lanes. Returns the jobs that it ended, out of their lanes."""
        blocks = min(CALL_BLOCKS_MAX, *(job.blocks for job in jobs))
        # A lane without a message works on another's, to no effect.
        frame.messages[:] = [(job or jobs[0]).address for job in lanes]
        self._call(frame, blocks)
        ended: list[Job] = []
        for lane, job in enumerate(lanes):
            if job is not None and job.advance(blocks):
                job.state = frame.taken(lane)
                lanes[lane] = None
                ended.append(job)
        return ended

    def _fill(self, frame: _Frame, lanes: list[Job | None]) -> bool:
        """Give free lanes what waits; wait if all are free. False at the end."""
        is_idle = not any(lanes)
        for lane, job in enumerate(lanes):
            if job is not None:
                continue
            try:
                taken = self._waiting.get(block=is_idle)
            except queue.Empty:
                break
            if taken is None:
                if is_idle:
                    return False
                # Behind everything that was sent; seen again once that is done.
                self._waiting.put(None)
                break
            if taken.start():
                frame.put(lane, taken.state)
                lanes[lane] = taken
                is_idle = False
        return True


def _tell(ended: Sequence[Job]) -> None:
    """Wake the loop of these jobs once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Job]] = {}
    for job in ended:
        by_loop.setdefault(job.loop, []).append(job)
    for loop, jobs in by_loop.items():
        # A loop that has closed has no one waiting any more.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_end_all, jobs)


def _end_all(jobs: Sequence[Job]) -> None:
    for job in jobs:
        job.end()


class Job:
    """The next blocks of one message. Made, awaited and ended on an event loop.

    Args:
        stream: Is given the state at the end.
        spans: At least one.
        kept: What owns their memory.
    """

    __slots__ = (
        "_is_over",
        "_is_started",
        "_kept",
        "_lock",
        "_spans",
        "_stream",
        "_waiter",
        "address",
        "blocks",
        "error",
        "loop",
        "state",
    )

    def __init__(
        self, stream: LaneMd5, spans: list[Span], kept: Sequence[object], lock: threading.Lock
    ) -> None:
        self._stream = stream
        self.state = stream.state
        spans.reverse()
        self._spans = spans
        self.address, self.blocks = spans.pop()
        self._kept = kept
        self._lock = lock
        self.loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] = self.loop.create_future()
        self._is_started = False
        self._is_over = False
        self.error: Exception | None = None
        """Why the state is not there."""

    def start(self) -> bool:
        """On the thread: whether anybody still wants it."""
        with self._lock:
            self._is_started = not self._is_over
            return self._is_started

    def advance(self, blocks: int) -> bool:
        """On the thread: so many more have been taken. Whether they were the last."""
        self.address += md5_code.BLOCK_BYTES * blocks
        self.blocks -= blocks
        if not self.blocks and self._spans:
            self.address, self.blocks = self._spans.pop()
        return not self.blocks

    def end(self) -> None:
        """On the loop: the state is there."""
        self._stream.state = self.state
        self._is_over = True
        self._kept = ()
        if not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self) -> None:
        """Until the memory is read no more, also when cancelled. Raises what went wrong."""
        try:
            if not self._is_over:
                await self._waiter
        except asyncio.CancelledError:
            with self._lock:
                if not self._is_started:
                    self._is_over = True
            while not self._is_over:
                self._waiter = self.loop.create_future()
                try:
                    await self._waiter
                except asyncio.CancelledError:
                    continue
            raise
        if self.error is not None:
            raise self.error


class _Nothing:
    """The end of what needed no job."""

    async def wait(self) -> None:
        return


_NOTHING: Final = _Nothing()


class LaneMd5:
    """``gateway.ports.hashing.SharedMd5``."""

    __slots__ = ("_lanes", "_length_bytes", "_rest", "state")

    def __init__(self, lanes: Md5Lanes) -> None:
        self._lanes = lanes
        self.state: tuple[int, ...] = md5_code.START
        self._rest = b""
        """Bytes at the end that are no whole block."""
        self._length_bytes = 0

    def begin(self, views: Sequence[memoryview]) -> Job | _Nothing:
        """See ``SharedMd5.begin``."""
        spans, kept = self._spans(views)
        if not spans:
            return _NOTHING
        job = Job(self, spans, kept, self._lanes._lock)
        self._lanes.send(job)
        return job

    def update(self, view: bytes | memoryview, /) -> None:
        """See ``SharedMd5.update``."""
        spans, kept = self._spans((memoryview(view),))
        if spans:
            self.state = self._lanes.run_here(self.state, spans)
        del kept

    def digest(self) -> bytes:
        """See ``SharedMd5.digest``."""
        zeros = -(len(self._rest) + 9) % md5_code.BLOCK_BYTES
        length_bits = 8 * self._length_bytes % 2**64
        end = np.frombuffer(
            self._rest + b"\x80" + bytes(zeros) + length_bits.to_bytes(8, "little"), np.uint8
        )
        blocks = len(end) // md5_code.BLOCK_BYTES
        return struct.pack("<4I", *self._lanes.run_here(self.state, [(end.ctypes.data, blocks)]))

    def _spans(self, views: Sequence[memoryview]) -> tuple[list[Span], list[object]]:
        """Whole blocks of what there is now, in order, and what owns their memory."""
        spans: list[Span] = []
        kept: list[object] = []
        for view in views:
            if not view:
                continue
            self._length_bytes += len(view)
            start = 0
            if self._rest:
                start = md5_code.BLOCK_BYTES - len(self._rest)
                self._rest += bytes(view[:start])
                if len(self._rest) < md5_code.BLOCK_BYTES:
                    continue
                block = np.frombuffer(self._rest, np.uint8)
                kept.append(block)
                spans.append((block.ctypes.data, 1))
            blocks = max(0, len(view) - start) // md5_code.BLOCK_BYTES
            end = start + md5_code.BLOCK_BYTES * blocks
            if blocks:
                array = np.frombuffer(view, np.uint8)
                kept.append(array)
                spans.append((array.ctypes.data + start, blocks))
            self._rest = bytes(view[end:])
        return spans, kept
