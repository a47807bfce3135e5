"""An event loop whose order and time are functions of a seed.

Each step runs one ready callback, drawn at random: any order in which threads and the network could
have finished is possible, and the same seed gives the same one again. Time passes by a random
amount per step and jumps to the next timer when nothing is ready, so timers fire in the middle of
other work and nothing ever waits.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import random
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar, TypeVarTuple, Unpack

from couchestor_domain import units

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

STEP_SECONDS_MEAN: Final = 20e-6
STEPS_MAX: Final = 2_000_000
ABANDON_ROUNDS_MAX: Final = 100


OWNER: Final[contextvars.ContextVar[object]] = contextvars.ContextVar("owner", default=None)
"""The simulated process a task belongs to; what it starts belongs to the same one."""


class DeadlockError(AssertionError):
    """Something waits for what will never happen."""


class InterruptedLoop(Exception):
    """The run was cut off by its ``interrupted`` condition."""


class VirtualLoop(asyncio.AbstractEventLoop):
    """Runs coroutines in one thread; no I/O, no signals, no threads.

    Args:
        seed: The order of callbacks and the passing of time follow from it.
    """

    def __init__(self, seed: str) -> None:
        self.steps_count = 0
        self.problems: list[dict[str, Any]] = []
        """What tasks and callbacks raised that nobody awaited."""
        self._rng = random.Random(seed)
        self._now = 0.0
        self._ready: list[asyncio.Handle] = []
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._timers_count = 0
        self._tasks: list[asyncio.Task[Any]] = []
        self._awaited: set[asyncio.Task[Any]] = set()
        self._dead: list[object] = []
        self._never: list[asyncio.Handle] = []

    # -- running ----------------------------------------------------------------------------

    def run(self, main: Coroutine[Any, Any, T], *, interrupted: Callable[[], bool]) -> T:
        """Run a coroutine to its end.

        Args:
            interrupted: Asked after every step; True cuts the run off at once.

        Raises:
            InterruptedLoop: it was cut off; everything is left as it stands. See ``abandon``.
            DeadlockError: nothing can go on although ``main`` has not ended.
        """
        task: asyncio.Task[T] = self.create_task(main)
        with _Running(self):
            while not task.done():
                self._step()
                if interrupted():
                    raise InterruptedLoop
        return task.result()

    def create_task_of(self, owner: object, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task that belongs to a process, with all that it starts; the caller awaits it."""
        context = contextvars.copy_context()
        context.run(OWNER.set, owner)
        task: asyncio.Task[T] = self.create_task(work, context=context)
        self._awaited.add(task)
        return task

    def kill(self, owner: object) -> None:
        """The tasks of a process never go on: neither their next step nor any clean-up."""
        self._dead.append(owner)

    def abandon(self) -> None:
        """Cancel every task until none is left. Nothing they touch may still be alive: those of
        killed processes end here, too."""
        self._dead.clear()
        self._ready.extend(self._never)
        self._never.clear()
        with _Running(self):
            for _ in range(ABANDON_ROUNDS_MAX):
                pending = [task for task in self._tasks if not task.done()]
                if not pending:
                    self._tell_unseen_failures()
                    return
                for task in pending:
                    task.cancel()
                while self._ready:
                    self._step()
        raise DeadlockError(f"{pending[0]} does not end when it is cancelled")

    def _step(self) -> None:
        self.steps_count += 1
        if self.steps_count > STEPS_MAX:
            raise DeadlockError(f"{STEPS_MAX} steps without an end")
        self._now += self._rng.expovariate(1 / STEP_SECONDS_MEAN)
        if not self._ready:
            if not self._timers:
                raise DeadlockError("every task waits and no timer is set")
            self._now = max(self._now, self._timers[0][0])
        while self._timers and self._timers[0][0] <= self._now:
            self._ready.append(heapq.heappop(self._timers)[2])
        # Swapping keeps the removal from the middle cheap; the order is random anyway.
        chosen = self._rng.randrange(len(self._ready))
        self._ready[chosen], self._ready[-1] = self._ready[-1], self._ready[chosen]
        handle = self._ready.pop()
        if handle.cancelled():
            return
        if handle._context.get(OWNER) in self._dead:  # type: ignore[attr-defined]
            self._never.append(handle)
            return
        handle._run()

    def _tell_unseen_failures(self) -> None:
        for task in self._tasks:
            unseen = not task.cancelled() and task._log_traceback and task not in self._awaited
            if unseen and (error := task.exception()):
                self.problems.append({"task": task, "exception": error})

    # -- what asyncio needs of a loop ---------------------------------------------------------

    def time(self) -> float:
        return self._now

    def call_soon(
        self,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._timers_count += 1
        heapq.heappush(self._timers, (when, self._timers_count, handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers are skipped when their time comes."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Any,
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=name, context=context)
        self._tasks.append(task)
        return task

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return asyncio._get_running_loop() is self

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.problems.append(context)


class LoopClock:
    """Virtual time, of one life."""

    def now_ns(self) -> int:
        """A wall clock that goes back at each start: the scrub must bear it."""
        return int(asyncio.get_running_loop().time() * units.NS_PER_SECOND)

    def monotonic_seconds(self) -> float:
        """Since the life began."""
        return asyncio.get_running_loop().time()


class _Running:
    """Makes a loop the running one of this thread for a while."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def __enter__(self) -> None:
        assert asyncio._get_running_loop() is None, "loops do not nest"
        asyncio._set_running_loop(self._loop)

    def __exit__(self, *_: object) -> None:
        asyncio._set_running_loop(None)
