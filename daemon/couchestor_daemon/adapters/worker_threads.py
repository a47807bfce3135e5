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
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

T = TypeVar("T")
Command = Callable[[], object]


class ThreadsClosedError(Exception):
    """Work was sent to threads that have been closed."""


class WorkerThreads:
    """A bounded set of threads and their queue.

    The queue is bounded by the callers' admission: each caller awaits what it sent.

    Args:
        count: Threads, started at the first use.
        name: What the threads are called, with a number behind it.
    """

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._queue: queue.SimpleQueue[_Sent | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._closed = False

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call ``function`` on one of the threads.

        Cancellation: a call that has started is waited for, so that memory lent to it may be
        reused afterwards; one that has not is dropped.

        Raises:
            ThreadsClosedError: see ``close``.
        """
        sent = _Sent([lambda: function(*arguments)])
        self._send(sent)
        (outcome,) = await sent.outcomes()
        if isinstance(outcome, BaseException):
            raise outcome
        return cast(T, outcome)

    async def run_all(self, commands: Sequence[Command]) -> list[object]:
        """Run commands at the same time; one wake-up of the loop for all of them.

        Returns:
            What each returned, or the exception that it raised, in order.

        Cancellation, errors: as ``run``.
        """
        sent = _Sent(commands)
        self._send(sent)
        return await sent.outcomes()

    def close(self) -> None:
        """Carry out what was sent and end the threads. Idempotent, blocking."""
        with self._lock:
            if not self._closed:
                self._closed = True
                for _ in self._threads:
                    self._queue.put(None)
        for thread in self._threads:
            thread.join()

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
                    args=(self._queue,),
                    name=f"{self._name}-{len(self._threads)}",
                    daemon=True,
                )
                self._threads.append(thread)
                thread.start()


class FanOut:
    """Runs commands at the same time for one calling thread, which carries out the first itself.

    Args:
        count: Further threads, started at the first use.
    """

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._sent: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._failures: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def __call__(self, commands: Sequence[Command]) -> None:
        """Run all of them and wait; then raise the first failure noticed. Not reentrant."""
        if not self._threads:
            self._start()
        for command in commands[1:]:
            self._sent.put(command)
        failure: BaseException | None = None
        try:
            commands[0]()
        except BaseException as exc:  # Raised below: the others still use the caller's memory.
            failure = exc
        for _ in commands[1:]:
            ended = self._failures.get()
            failure = failure or ended
        if failure is not None:
            raise failure

    def close(self) -> None:
        """End the threads. Idempotent, blocking."""
        for _ in self._threads:
            self._sent.put(None)
        while self._threads:
            self._threads.pop().join()

    def _start(self) -> None:
        for number in range(self._count):
            thread = threading.Thread(target=self._work, name=f"{self._name}-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self) -> None:
        while (command := self._sent.get()) is not None:
            try:
                command()
            except BaseException as exc:  # Handed to the caller.
                self._failures.put(exc)
            else:
                self._failures.put(None)
            del command


class _Sent:
    """Commands of one caller. Fields that end in ``_loop`` belong to the loop's thread, those that
    end in ``_locked`` to who holds the lock.
    """

    __slots__ = (
        "_ended_count_locked",
        "_is_over_loop",
        "_limit_locked",
        "_lock",
        "_loop",
        "_outcomes",
        "_started_count_locked",
        "_waiter_loop",
        "commands",
    )

    def __init__(self, commands: Sequence[Command]) -> None:
        self.commands = commands
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

    def carry_out_next(self) -> None:
        """On a thread: run the next command; the last one to end wakes the caller."""
        with self._lock:
            index = self._started_count_locked
            if index == self._limit_locked:
                return  # Its caller was cancelled before it started.
            self._started_count_locked = index + 1
        try:
            self._outcomes[index] = self.commands[index]()
        except BaseException as exc:  # Handed to the caller.
            self._outcomes[index] = exc
        with self._lock:
            self._ended_count_locked += 1
            is_last = self._ended_count_locked == self._limit_locked
        if is_last:
            # A loop that has closed has no one waiting any more.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._is_over_loop = True
        if not self._waiter_loop.done():
            self._waiter_loop.set_result(None)


def _work(commands: queue.SimpleQueue[_Sent | None]) -> None:
    while (sent := commands.get()) is not None:
        sent.carry_out_next()
        del sent  # Not kept alive, with the memory it names, while this thread waits.
