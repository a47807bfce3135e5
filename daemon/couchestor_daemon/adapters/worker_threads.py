"""Named threads that blocking work is sent to from an event loop.

In place of ``ThreadPoolExecutor``: a storage request takes a dozen hops to a thread, and the
executor's future, its condition and the chaining to asyncio's own future took more time per hop
than the work between them.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar, cast

T = TypeVar("T")
Command = Callable[[], object]


class ThreadsClosedError(Exception):
    """Work was sent to threads that have been closed."""


class OverdueError(Exception):
    """A command has not ended in time; it goes on in its thread and nobody waits for it."""


class WorkerThreads:
    """A bounded set of threads and their queue.

    The queue is bounded by the callers' admission: each caller awaits what it sent.

    Args:
        count: Threads, started at the first use.
        name: What the threads are called, with a number behind it.
        seconds_max: A command that takes longer is left behind with its thread, and another
            thread takes the place of that one; None: there is no limit.
        on_start: Called by each thread before its first work; must not raise.
    """

    def __init__(
        self,
        count: int,
        name: str,
        *,
        seconds_max: float | None = None,
        on_start: Callable[[], None] | None = None,
    ) -> None:
        self._seconds_max = seconds_max
        self._on_start = on_start
        self._count = count
        self._name = name
        self._queue: queue.SimpleQueue[_Sent | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._started_count = 0
        self._lock = threading.Lock()
        self._closed = False

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call ``function`` on one of the threads.

        Cancellation: a call that has started is waited for, so that memory lent to it may be
        reused afterwards; one that has not is dropped.

        Raises:
            ThreadsClosedError: see ``close``.
            OverdueError: it is still under way and has been left behind.
        """
        sent = _Sent([lambda: function(*arguments)], self, lambda index: OverdueError())
        self._send(sent)
        (outcome,) = await sent.outcomes()
        if isinstance(outcome, BaseException):
            raise outcome
        return cast(T, outcome)

    async def run_all(
        self,
        commands: Sequence[Command],
        *,
        on_overdue: Callable[[int], BaseException] = lambda index: OverdueError(),
    ) -> list[object]:
        """Run commands at the same time; one wake-up of the loop for all of them.

        Args:
            on_overdue: Told, on the loop, the index of a command that is left behind, also when
                the caller has been cancelled; gives what stands for its outcome.

        Returns:
            What each returned, or the exception that it raised, in order.

        Cancellation, errors: as ``run``.
        """
        sent = _Sent(commands, self, on_overdue)
        self._send(sent)
        return await sent.outcomes()

    def close(self) -> None:
        """Carry out what was sent and end the threads. Idempotent, blocking.

        With a limit it is waited for no longer than that: a thread that is at it still is left.
        """
        with self._lock:
            if not self._closed:
                self._closed = True
                for _ in self._threads:
                    self._queue.put(None)
            threads = list(self._threads)
        ends_at = None if self._seconds_max is None else time.monotonic() + self._seconds_max
        for thread in threads:
            thread.join(None if ends_at is None else max(0.0, ends_at - time.monotonic()))

    @property
    def seconds_max(self) -> float | None:
        """How long a command may take."""
        return self._seconds_max

    def replace(self, stuck: Collection[threading.Thread]) -> None:
        """Go on without threads that were left behind: others take their places."""
        with self._lock:
            self._threads = [thread for thread in self._threads if thread not in stuck]
        # What is queued must not wait for the next command to be sent.
        with contextlib.suppress(ThreadsClosedError):
            self._start()

    def _send(self, sent: _Sent) -> None:
        if len(self._threads) < self._count or self._closed:
            self._start()
        for _ in sent.commands:
            self._queue.put(sent)

    def _start(self) -> None:
        with self._lock:
            if self._closed:
                raise ThreadsClosedError(f"the {self._name} threads have been closed")
            while len(self._threads) < self._count:
                thread = threading.Thread(
                    target=_work,
                    args=(self._queue, self._on_start),
                    name=f"{self._name}-{self._started_count}",
                    daemon=True,
                )
                self._started_count += 1
                self._threads.append(thread)
                thread.start()


class _Sent:
    """Commands of one caller. Fields that end in ``_loop`` belong to the loop's thread, those that
    end in ``_locked`` to who holds the lock.
    """

    __slots__ = (
        "_abandoned_locked",
        "_ended_count_locked",
        "_is_over_loop",
        "_limit_locked",
        "_lock",
        "_loop",
        "_on_overdue",
        "_outcomes",
        "_running_locked",
        "_started_count_locked",
        "_threads",
        "_timer_loop",
        "_waiter_loop",
        "commands",
    )

    def __init__(
        self,
        commands: Sequence[Command],
        threads: WorkerThreads,
        on_overdue: Callable[[int], BaseException],
    ) -> None:
        self.commands = commands
        self._threads = threads
        self._on_overdue = on_overdue
        self._running_locked: dict[int, tuple[float, threading.Thread]] = {}
        """When the commands under way began, and where."""
        self._abandoned_locked: set[int] = set()
        self._timer_loop: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._started_count_locked = 0
        self._ended_count_locked = 0
        self._limit_locked = len(commands)
        self._outcomes: list[object] = [None] * len(commands)
        self._waiter_loop: asyncio.Future[None] = self._loop.create_future()
        self._is_over_loop = not commands

    async def outcomes(self) -> list[object]:
        if self._is_over_loop:
            return self._outcomes
        if self._threads.seconds_max is not None:
            self._timer_loop = self._loop.call_later(self._threads.seconds_max, self._look)
        try:
            await self._waiter_loop
        except asyncio.CancelledError:
            with self._lock:
                self._limit_locked = self._started_count_locked
                if self._ended_count_locked == self._limit_locked:
                    self._is_over_loop = True
            # The first waiter went with the cancellation; the threads may still be at work.
            while not self._is_over_loop:
                self._waiter_loop = self._loop.create_future()
                try:
                    await self._waiter_loop
                except asyncio.CancelledError:
                    continue
            raise
        return self._outcomes

    def carry_out_next(self) -> bool:
        """On a thread: run the next command; the last one to end wakes the caller.

        Returns:
            Whether nobody waits for it any more: another thread has the place of this one.
        """
        with self._lock:
            index = self._started_count_locked
            if index == self._limit_locked:
                return False  # Its caller was cancelled before it started.
            self._started_count_locked = index + 1
            if self._threads.seconds_max is not None:
                self._running_locked[index] = (time.monotonic(), threading.current_thread())
        outcome: object
        try:
            outcome = self.commands[index]()
        except BaseException as exc:  # Handed to the caller.
            outcome = exc
        with self._lock:
            if index in self._abandoned_locked:
                return True
            self._running_locked.pop(index, None)
            self._outcomes[index] = outcome
            self._ended_count_locked += 1
            is_last = self._ended_count_locked == self._limit_locked
        if is_last:
            # A loop that has closed has no one waiting any more.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._wake)
        return False

    def _look(self) -> None:
        """Leave behind what has taken too long; look again when the next one will have."""
        limit = self._threads.seconds_max
        assert limit is not None
        if self._is_over_loop:
            return
        now = time.monotonic()
        stuck: dict[int, threading.Thread] = {}
        with self._lock:
            for index, (began, thread) in list(self._running_locked.items()):
                if now - began >= limit:
                    del self._running_locked[index]
                    self._abandoned_locked.add(index)
                    self._ended_count_locked += 1
                    stuck[index] = thread
            is_last = bool(stuck) and self._ended_count_locked == self._limit_locked
            oldest = min((began for began, _ in self._running_locked.values()), default=now)
        # Before any waiter wakes, which happens on this loop.
        for index in stuck:
            self._outcomes[index] = self._on_overdue(index)
        if stuck:
            self._threads.replace(stuck.values())
        if is_last:
            self._wake()
        else:
            self._timer_loop = self._loop.call_later(max(0.0, oldest + limit - now), self._look)

    def _wake(self) -> None:
        if self._timer_loop is not None:
            self._timer_loop.cancel()
        self._is_over_loop = True
        if not self._waiter_loop.done():
            self._waiter_loop.set_result(None)


def _work(commands: queue.SimpleQueue[_Sent | None], on_start: Callable[[], None] | None) -> None:
    if on_start is not None:
        on_start()
    while (sent := commands.get()) is not None:
        if sent.carry_out_next():
            return
        del sent  # Not kept alive, with the memory it names, while this thread waits.
