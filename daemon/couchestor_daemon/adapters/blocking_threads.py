"""Named threads that a thread sends work to and waits for, but not for ever."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence

from couchestor_daemon.adapters import worker_threads


class BlockingThreads:
    """Runs commands at the same time for calling threads, which wait for them.

    A thread for each command under way, kept for the next ones; it keeps to the CPUs of the thread
    that first waited for it. Thread-safe.

    Args:
        name: What the threads are called, with a number behind it.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._queue: queue.SimpleQueue[tuple[_Call, int] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._started_count = 0
        self._busy_count = 0
        self._closed = False

    def run_all(
        self, commands: Sequence[worker_threads.Command], *, seconds_max: float
    ) -> list[object]:
        """Run all of them and wait.

        Returns:
            What each returned, or the exception that it raised, in order; OverdueError for one
            that has not ended after ``seconds_max``. It goes on in its thread and is left alone.

        Raises:
            ThreadsClosedError: see ``close``.
        """
        call = _Call(commands)
        with self._lock:
            if self._closed:
                raise worker_threads.ThreadsClosedError(
                    f"the {self._name} threads have been closed"
                )
            self._busy_count += len(commands)
            while len(self._threads) < self._busy_count:
                self._start()
        for index in range(len(commands)):
            self._queue.put((call, index))
        stuck: list[threading.Thread] = []
        if commands:
            try:
                call.ended.get(timeout=seconds_max)
            except queue.Empty:
                stuck = call.abandon()
        with self._lock:
            self._busy_count -= len(commands)
            self._threads.difference_update(stuck)
        return call.outcomes

    def close(self) -> None:
        """End the threads, but for those that were left behind. Idempotent, blocking."""
        with self._lock:
            self._closed = True
            threads, self._threads = self._threads, set()
            for _ in threads:
                self._queue.put(None)
        for thread in threads:
            thread.join()

    def _start(self) -> None:
        thread = threading.Thread(
            target=self._work, name=f"{self._name}-{self._started_count}", daemon=True
        )
        self._started_count += 1
        self._threads.add(thread)
        thread.start()

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            call, index = item
            if call.carry_out(index):
                return  # Left behind: another thread has its place by now.
            del item, call  # Not kept alive, with the memory it names, while this thread waits.


class _Call:
    """Commands that a thread waits for. Fields that end in ``_locked`` belong to the lock."""

    __slots__ = ("_abandoned_locked", "_lock", "_running_locked", "commands", "ended", "outcomes")

    def __init__(self, commands: Sequence[worker_threads.Command]) -> None:
        self.commands = commands
        self.outcomes: list[object] = [None] * len(commands)
        self.ended: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._running_locked: dict[int, threading.Thread | None] = dict.fromkeys(
            range(len(commands))
        )
        self._abandoned_locked = False

    def carry_out(self, index: int) -> bool:
        """On a thread: run one command; whether nobody waits for it any more."""
        with self._lock:
            if self._abandoned_locked:
                return False  # Never started: the thread is as good as before.
            self._running_locked[index] = threading.current_thread()
        outcome: object
        try:
            outcome = self.commands[index]()
        except BaseException as exc:  # Handed to the caller.
            outcome = exc
        with self._lock:
            if self._abandoned_locked:
                return True
            del self._running_locked[index]
            self.outcomes[index] = outcome
            is_last = not self._running_locked
        if is_last:
            # The caller is woken once, not by each: waking a thread costs as much as its work.
            self.ended.put(None)
        return False

    def abandon(self) -> list[threading.Thread]:
        """Wait for nothing any more; the threads that are still at it."""
        with self._lock:
            self._abandoned_locked = True
            for index in self._running_locked:
                self.outcomes[index] = worker_threads.OverdueError()
            return [thread for thread in self._running_locked.values() if thread is not None]
