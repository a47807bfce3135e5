"""The processes of the load generator, seen from their parent."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import multiprocessing.context
import time
import types
from collections.abc import Callable
from typing import Final, Self

from couchestor_bench import failures
from couchestor_bench.engine import generator, recorder
from couchestor_bench.reports import tally
from couchestor_bench.workload import plan as plans

_START_SECONDS_MAX: Final = 300.0
HEAD_START_SECONDS: Final = 0.2
"""At least, from the order to the first request, so that all processes begin together."""
_POLL_SECONDS: Final = 0.2
_END_SECONDS_MAX: Final = 5.0

Watcher = Callable[[recorder.Interval | None], None]
"""Told of each second of each process; None: some time has passed."""


class Fleet:
    """Processes that prepare at ``__enter__`` and end at ``__exit__``, whatever happened.

    Raises (every method): BenchmarkError when a process fails.
    """

    def __init__(self, plan: plans.Plan, *, fills: bool) -> None:
        self._plan, self._fills = plan, fills
        self._pipes: list[multiprocessing.connection.Connection] = []
        self._processes: list[multiprocessing.context.SpawnProcess] = []

    def __enter__(self) -> Self:
        spawn = multiprocessing.get_context("spawn")
        try:
            for index in range(self._plan.process_count):
                ours, theirs = spawn.Pipe()
                process = spawn.Process(
                    target=generator.main,
                    args=(theirs, self._plan, index, self._fills),
                    daemon=True,
                )
                process.start()
                theirs.close()
                self._pipes.append(ours)
                self._processes.append(process)
            self._collect("ready", lambda _: None, deadline_seconds=_START_SECONDS_MAX)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self._end()

    def fill(self, watch: Watcher) -> generator.Outcome:
        """Put every object once."""
        return self._obey(generator.Order("fill"), watch)

    def run(self, begin: float, watch: Watcher) -> generator.Outcome:
        """The run itself. ``begin``: of its warm-up, by ``time.monotonic``."""
        return self._obey(generator.Order("run", begin), watch)

    def _obey(self, order: generator.Order, watch: Watcher) -> generator.Outcome:
        for pipe in self._pipes:
            pipe.send(order)
        total = generator.Outcome()
        for outcome in self._collect("done", watch):
            assert isinstance(outcome, generator.Outcome)
            total.merge(outcome)
        return total

    def _collect(
        self, kind: str, watch: Watcher, *, deadline_seconds: float | None = None
    ) -> list[object]:
        """What each process says when it has come that far."""
        waiting = dict(zip(self._pipes, self._processes, strict=True))
        found: list[object] = []
        began = time.monotonic()
        while waiting:
            for pipe in multiprocessing.connection.wait(list(waiting), timeout=_POLL_SECONDS):
                assert isinstance(pipe, multiprocessing.connection.Connection)
                try:
                    report: generator.Report = pipe.recv()
                except (EOFError, OSError) as exc:
                    raise failures.BenchmarkError(
                        "a process of the load generator has ended early; what it said stands above"
                    ) from exc
                if report.kind == "failed":
                    raise failures.BenchmarkError(str(report.content))
                if report.kind == "interval":
                    assert isinstance(report.content, recorder.Interval)
                    watch(report.content)
                elif report.kind == kind:
                    found.append(report.content)
                    del waiting[pipe]
            watch(None)
            if deadline_seconds is not None and time.monotonic() - began > deadline_seconds:
                raise failures.BenchmarkError("the load generator did not start in five minutes")
        return found

    def _end(self) -> None:
        for pipe in self._pipes:
            with contextlib.suppress(OSError):
                pipe.send(generator.Order("end"))
            pipe.close()
        for process in self._processes:
            process.join(_END_SECONDS_MAX)
            if process.is_alive():
                process.kill()
                process.join()
        self._pipes, self._processes = [], []


def merge_interval(seconds: dict[int, tally.Tallies], interval: recorder.Interval) -> None:
    """Add one process's second to that second of all."""
    tally.merge_into(seconds.setdefault(interval.at, {}), interval.tallies)
