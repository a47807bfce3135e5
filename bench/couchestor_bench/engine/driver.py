"""Gives operations to connections as the pace wants it, and tells the recorder what came of them.

No socket and no clock of its own: a test drives it in virtual time.
"""

from __future__ import annotations

import array
import collections
import math
from collections.abc import Callable
from typing import Final, Protocol

from couchestor_bench.engine import http_answers, operations, recorder, signed_requests
from couchestor_bench.reports import histogram
from couchestor_bench.workload import pacing

HOPELESS_COUNT: Final = 1000
"""So many failures without one success end a run: it would measure how fast a server refuses."""
_LAGS_COUNT_MAX: Final = 1 << 16


class Link(Protocol):
    """A connection that carries one operation at a time."""

    operation: operations.Operation | None
    intended: float
    """Start of the operation, from which its latency counts."""
    begun: float
    """When the request under way was sent."""

    def send(self, request: signed_requests.Request) -> None:
        """Begin to send. The answer, or the loss of the connection, is told to the driver."""
        ...

    def abort(self, failure: str) -> None:
        """Give up the request under way, and the connection."""
        ...


class Driver:
    """Drives the connections of one process.

    Args:
        work: The next operation, None when none is left to do.
        release: Told of every operation that has ended, and whether it succeeded.
        wake_at: Asks for a call of ``feed`` at that time; infinity: none.
        ended: Called once, when nothing is under way and nothing will start any more.
    """

    def __init__(
        self,
        pace: pacing.Pace,
        recording: recorder.Recorder,
        *,
        clock: Callable[[], float],
        work: Callable[[float], operations.Operation | None],
        release: Callable[[operations.Operation, bool], None],
        wake_at: Callable[[float], None],
        ended: Callable[[], None],
    ) -> None:
        self.pace, self.recording = pace, recording
        self._clock, self._work, self._release = clock, work, release
        self._wake_at, self._tell_ended = wake_at, ended
        self._idle: collections.deque[Link] = collections.deque()
        self._busy: set[Link] = set()
        self._lags = array.array("d")
        self._lag_histogram = histogram.Histogram()
        self._succeeded = False
        self._failed_count = 0
        self._is_over = False
        self.waited_count = 0
        """Requests that were due while every connection was busy."""
        self.ran_out = False
        """Nothing was left to do before the time was over."""
        self.hopeless = ""
        """The failure of all requests, when there were so many that the run was given up."""

    @property
    def is_over(self) -> bool:
        return self._is_over

    def lags(self) -> histogram.Histogram:
        """How late this process itself sent what a free connection waited for."""
        self._lag_histogram.record_seconds(self._lags)
        self._lags = array.array("d")
        return self._lag_histogram

    def on_free(self, link: Link) -> None:
        """A connection can take an operation."""
        others_free = bool(self._idle)
        self._idle.append(link)
        self.feed(was_free=others_free)

    def feed(self, *, was_free: bool = False) -> None:
        """Send what is due. ``was_free``: a connection was, when it became due."""
        while self._idle:
            now = self._clock()
            intended = self.pace.take(now)
            if intended is None:
                break
            operation = self._work(now)
            if operation is None:
                self.ran_out = True
                self.pace.stop()
                break
            if was_free:
                self._lags.append(now - intended)
                if len(self._lags) >= _LAGS_COUNT_MAX:
                    self.lags()
            elif intended < now:
                self.waited_count += 1
            link = self._idle.popleft()
            self._busy.add(link)
            link.operation, link.intended, link.begun = operation, intended, now
            link.send(operation.request)
        due_at = self.pace.due_at
        if due_at == math.inf:
            self._end_if_done()
        elif self._idle and due_at > -math.inf:
            self._wake_at(due_at)

    def on_answer(self, link: Link, answer: http_answers.Answer) -> None:
        """The answer to what ``link`` sent. Its owner says ``on_free`` if it can be used again."""
        operation, now = link.operation, self._clock()
        assert operation is not None, "an answer to nothing"
        step, size_bytes = operation.step, len(operation.request.body or b"")
        goes_on = operation.advance(answer)
        if step:
            self.recording.record(
                step,
                intended=link.begun,
                ended=now,
                size_bytes=size_bytes,
                failure=operation.failure if step != "multipart abort" else "",
            )
        if goes_on:
            link.begun = now
            link.send(operation.request)
            return
        self._end(link, operation, operation.failure, now)

    def on_lost(self, link: Link, failure: str) -> None:
        """The connection is gone, with whatever it was doing."""
        operation = link.operation
        if operation is not None:
            self._end(link, operation, operation.failure or failure, self._clock())
        elif link in self._idle:
            self._idle.remove(link)
        self._end_if_done()

    def on_refused(self, failure: str) -> None:
        """A connection could not be opened."""
        now = self._clock()
        self.recording.record("connect", intended=now, ended=now, size_bytes=0, failure=failure)
        self._judge(failure)
        self._end_if_done()

    def sweep(self, timeout_seconds: float) -> None:
        """Give up what has waited too long for its answer."""
        now = self._clock()
        for link in [each for each in self._busy if now - each.begun > timeout_seconds]:
            link.abort("NoAnswer")
        self.recording.fold(now)
        # A closed loop whose connections are all busy does not see its end by itself.
        self.pace.end_if_late(now)
        self._end_if_done()

    def _end(self, link: Link, operation: operations.Operation, failure: str, now: float) -> None:
        link.operation = None
        self._busy.discard(link)
        self.recording.record(
            operation.choice.operation,
            intended=link.intended,
            ended=now,
            size_bytes=0 if failure else operation.size_bytes,
            failure=failure,
        )
        self._release(operation, not failure)
        self._judge(failure)
        if self.pace.due_at == math.inf:
            self._end_if_done()

    def _judge(self, failure: str) -> None:
        if not failure:
            self._succeeded = True
        elif not self._succeeded:
            self._failed_count += 1
            if self._failed_count >= HOPELESS_COUNT:
                self.hopeless = failure
                self.pace.stop()

    def _end_if_done(self) -> None:
        if self.pace.due_at == math.inf and not self._busy and not self._is_over:
            self._is_over = True
            self._tell_ended()
