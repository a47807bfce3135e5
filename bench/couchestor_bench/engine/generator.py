"""One process of the load generator: obeys its parent, reports through a pipe."""

from __future__ import annotations

import asyncio
import contextlib
import math
import multiprocessing.connection
import signal
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

import numpy as np
import uvloop

from couchestor_bench.engine import (
    connection,
    driver,
    operations,
    recorder,
    signed_requests,
    wake_timer,
)
from couchestor_bench.reports import histogram, tally
from couchestor_bench.workload import choices, pacing
from couchestor_bench.workload import plan as plans

_TICK_SECONDS: Final = 0.25
_RECONNECT_SECONDS: Final = 0.1
_CONNECT_SECONDS_MAX: Final = 10.0
_DRAIN_SECONDS_MAX: Final = 10.0
"""What was due in an open loop and not sent may still be sent that long after the end."""
_CHOICES_TRIED_MAX: Final = 64
_FILL_CONNECTIONS_MAX: Final = 16


class Order(NamedTuple):
    """What the parent wants next. ``begin``: of the warm-up, by ``time.monotonic``."""

    kind: Literal["fill", "run", "stop", "end"]
    begin: float = 0.0


class Report(NamedTuple):
    """What a child says: it is prepared, a second has passed, it is done, or it failed."""

    kind: Literal["ready", "interval", "done", "failed"]
    content: object = None


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What one process, or all of them, found in a run."""

    totals: tally.Tallies = field(default_factory=dict)
    seconds: float = 0.0
    """Measured time."""
    cpu_seconds: list[float] = field(default_factory=list)
    """CPU time of each process within the measured time."""
    lags: histogram.Histogram = field(default_factory=histogram.Histogram)
    waited_count: int = 0
    missed_count: int = 0
    """Requests of an open loop that were due and never sent."""
    ran_out: bool = False
    hopeless: str = ""

    def merge(self, other: Outcome) -> None:
        """Add another process's."""
        tally.merge_into(self.totals, other.totals)
        self.seconds = max(self.seconds, other.seconds)
        self.cpu_seconds += other.cpu_seconds
        self.lags.merge(other.lags)
        self.waited_count += other.waited_count
        self.missed_count += other.missed_count
        self.ran_out = self.ran_out or other.ran_out
        self.hopeless = self.hopeless or other.hopeless


def main(
    pipe: multiprocessing.connection.Connection, plan: plans.Plan, index: int, fills: bool
) -> None:
    """Obey until told to end, or until the parent is gone."""
    # Ctrl-C reaches the whole group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            generator = _Generator(pipe, plan, index, fills=fills)
            pipe.send(Report("ready"))
            while (order := pipe.recv()).kind != "end":
                if order.kind != "stop":
                    pipe.send(Report("done", generator.obey(order)))
        except OSError as exc:
            pipe.send(Report("failed", f"a process of the load generator failed: {exc}"))


class _Generator:
    def __init__(
        self,
        pipe: multiprocessing.connection.Connection,
        plan: plans.Plan,
        index: int,
        *,
        fills: bool,
    ) -> None:
        self._pipe, self._plan, self._index = pipe, plan, index
        self._requests = signed_requests.SignedRequests(plan, fills=fills)
        self._own_keys = range(index, plan.keys_count, plan.process_count)
        keys = self._own_keys if plan.deletes else range(plan.keys_count)
        beforehand = [name for name, weight in plan.mix.items() if weight and name != "multipart"]
        self._requests.sign_beforehand(beforehand, keys, time.monotonic())
        self._draw = plan.draw_of_keys()
        self._tls = tls_context(plan)

    def obey(self, order: Order) -> Outcome:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(self._carry_out(order))

    async def _carry_out(self, order: Order) -> Outcome:
        plan, fills = self._plan, order.kind == "fill"
        begin = time.monotonic() if fills else order.begin
        measured_from = begin if fills else begin + plan.warm_up_seconds
        # A fill ends with its keys.
        ends = math.inf if fills else measured_from + plan.duration_seconds
        connections = len(range(self._index, plan.connections, plan.process_count))
        if fills:
            connections = min(connections, _FILL_CONNECTIONS_MAX)
        pace = (
            pacing.ClosedLoop(measured_from=measured_from, ends=ends)
            if fills
            else self._pace(begin, measured_from, ends)
        )
        counts = recorder.Recorder(
            measured_from=measured_from,
            ends=ends if plan.count is None else math.inf,
            report=lambda interval: self._pipe.send(Report("interval", interval)),
        )
        work = _Work(self._choices(fills), self._requests, plan, living=self._living(fills))
        run = _Run(
            plan, pace, counts, work=work, tls=self._tls, pipe=self._pipe, connections=connections
        )
        return await run.drive(begin=begin, measured_from=measured_from, ends=ends)

    def _pace(self, begin: float, measured_from: float, ends: float) -> pacing.Pace:
        plan = self._plan
        count = None
        if plan.count is not None:
            count = len(range(self._index, plan.count, plan.process_count))
        if plan.per_second is None:
            return pacing.ClosedLoop(measured_from=measured_from, ends=ends, count=count)
        per_second = plan.per_second / plan.process_count
        arrivals = (
            pacing.constant(per_second, begin=begin, phase=self._index / plan.process_count)
            if plan.arrivals == "constant"
            else pacing.poisson(per_second, begin=begin, random=self._random(stream=1))
        )
        return pacing.OpenLoop(arrivals, measured_from=measured_from, ends=ends, count=count)

    def _choices(self, fills: bool) -> Iterator[choices.Choice]:
        plan = self._plan
        if fills:
            return choices.once("put", self._own_keys)
        if set(plan.mix) == {"delete"}:
            shuffled = self._random(stream=0).permutation(len(self._own_keys))
            return choices.once("delete", (int(place) for place in shuffled))
        return choices.endless(plan.mix, self._draw, self._random(stream=0))

    def _living(self, fills: bool) -> choices.LivingKeys | None:
        return choices.LivingKeys(self._own_keys) if self._plan.deletes and not fills else None

    def _random(self, *, stream: int) -> np.random.Generator:
        return np.random.default_rng((self._plan.seed, 100 + self._index, stream))


class _Work:
    """The next operation, ready to be sent."""

    def __init__(
        self,
        chosen: Iterator[choices.Choice],
        requests: signed_requests.SignedRequests,
        plan: plans.Plan,
        *,
        living: choices.LivingKeys | None,
    ) -> None:
        self._chosen, self._requests = chosen, requests
        self._part_bytes, self._living = plan.part_bytes, living

    def take(self, now: float) -> operations.Operation | None:
        for _ in range(_CHOICES_TRIED_MAX):
            choice = next(self._chosen, None)
            if choice is None:
                return None
            admitted = choice if self._living is None else self._living.admit(choice)
            if admitted is not None:
                return self._make(admitted, now)
        return None

    def release(self, operation: operations.Operation, succeeded: bool) -> None:
        if self._living is not None:
            self._living.release(operation.choice, succeeded=succeeded)

    def _make(self, choice: choices.Choice, now: float) -> operations.Operation:
        name, key_index = choice
        if name == "multipart":
            return operations.Upload(choice, self._requests, part_bytes=self._part_bytes)
        size = self._requests.size_of(key_index) if name in ("get", "put") else 0
        return operations.Single(choice, self._requests.request(name, key_index, now), size)


class _Run:
    def __init__(
        self,
        plan: plans.Plan,
        pace: pacing.Pace,
        counts: recorder.Recorder,
        *,
        work: _Work,
        tls: ssl.SSLContext | None,
        pipe: multiprocessing.connection.Connection,
        connections: int,
    ) -> None:
        self._plan, self._pace, self._counts = plan, pace, counts
        self._tls, self._pipe, self._connections = tls, pipe, connections
        self._over = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._timer = wake_timer.WakeTimer(loop, self._wake)
        self._driver = driver.Driver(
            pace,
            counts,
            clock=time.monotonic,
            work=work.take,
            release=work.release,
            wake_at=self._timer.arm,
            ended=self._over.set,
        )
        self._missed_count = 0

    async def drive(self, *, begin: float, measured_from: float, ends: float) -> Outcome:
        await asyncio.sleep(max(0.0, begin - time.monotonic()))
        cpu_marks: list[float] = []
        loop = asyncio.get_running_loop()
        offset = loop.time() - time.monotonic()
        marks = [measured_from] if ends == math.inf else [measured_from, ends]
        handles = [
            loop.call_at(at + offset, lambda: cpu_marks.append(time.process_time())) for at in marks
        ]
        keepers = [asyncio.create_task(self._keep_open()) for _ in range(self._connections)]
        watcher = asyncio.create_task(self._watch(ends))
        try:
            await self._over.wait()
        finally:
            for handle in handles:
                handle.cancel()
            for task in (*keepers, watcher):
                task.cancel()
            await asyncio.gather(*keepers, watcher, return_exceptions=True)
            self._timer.close()
        self._counts.finish()
        cpu_marks.append(time.process_time())
        timed = self._plan.count is None and ends < math.inf and not self._driver.ran_out
        last = ends if timed and not self._driver.hopeless else self._counts.last_ended
        return Outcome(
            totals=self._counts.totals,
            seconds=max(0.0, last - measured_from),
            cpu_seconds=[cpu_marks[1] - cpu_marks[0] if len(cpu_marks) > 1 else 0.0],
            lags=self._driver.lags(),
            waited_count=self._driver.waited_count,
            missed_count=self._missed_count,
            ran_out=self._driver.ran_out,
            hopeless=self._driver.hopeless,
        )

    def _wake(self) -> None:
        self._driver.feed(was_free=True)

    async def _keep_open(self) -> None:
        loop, endpoint = asyncio.get_running_loop(), self._plan.endpoint
        while not self._driver.is_over:
            closed: asyncio.Future[None] = loop.create_future()
            made = connection.Connection(self._driver, closed)
            try:
                async with asyncio.timeout(_CONNECT_SECONDS_MAX):
                    await loop.create_connection(
                        lambda made=made: made,
                        endpoint.host,
                        endpoint.port,
                        ssl=self._tls,
                    )
            except (OSError, TimeoutError) as exc:
                self._driver.on_refused(_connect_failure(exc))
                await asyncio.sleep(_RECONNECT_SECONDS)
                continue
            try:
                await closed
            finally:
                made.abort("Ended")

    async def _watch(self, ends: float) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            if self._told_to_stop():
                self._pace.stop()
            late = time.monotonic() >= ends + _DRAIN_SECONDS_MAX
            if late and isinstance(self._pace, pacing.OpenLoop):
                self._missed_count += self._pace.give_up()
            self._driver.sweep(self._plan.timeout_seconds)

    def _told_to_stop(self) -> bool:
        try:
            return self._pipe.poll() and self._pipe.recv().kind in ("stop", "end")
        except EOFError:
            return True


def tls_context(plan: plans.Plan) -> ssl.SSLContext | None:
    """How to trust the server; None: it speaks no TLS."""
    if not plan.endpoint.secure:
        return None
    context = ssl.create_default_context(cafile=plan.ca_file)
    if not plan.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _connect_failure(exc: OSError | TimeoutError) -> str:
    if isinstance(exc, ssl.SSLError):
        return "TlsFailed"
    return "ConnectTimeout" if isinstance(exc, TimeoutError) else "ConnectionRefused"
