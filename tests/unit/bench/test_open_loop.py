"""The driver in virtual time: from when latency counts, and what is counted at all."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from couchestor_bench.engine import (
    driver,
    http_answers,
    operations,
    recorder,
    signed_requests,
)
from couchestor_bench.reports import tally
from couchestor_bench.workload import choices, pacing

OK = http_answers.Answer(200, 0, b"", b"", False)
REFUSED = http_answers.Answer(503, 99, b"<Error><Code>SlowDown</Code></Error>", b"", False)


class Stage:
    """A server that answers after ``service(now)`` seconds, and the driver before it."""

    def __init__(
        self,
        pace: pacing.Pace,
        *,
        connections: int,
        service: Callable[[float], float],
        measured_from: float = 0.0,
        ends: float = math.inf,
        answer: http_answers.Answer = OK,
        work_count: int = 10**9,
    ) -> None:
        self.now = 0.0
        self.seconds: dict[int, tally.Tallies] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._service, self._answer, self._work_left = service, answer, work_count
        self.sent_at: list[float] = []
        self.is_over = False
        self.recording = recorder.Recorder(
            measured_from=measured_from, ends=ends, report=self._keep
        )
        self.driver = driver.Driver(
            pace,
            self.recording,
            clock=lambda: self.now,
            work=self._work,
            release=lambda operation, succeeded: None,
            wake_at=lambda at: self.at(at, lambda: self.driver.feed(was_free=True)),
            ended=self._over,
        )
        self._links = [Link(self) for _ in range(connections)]

    def run(self, until: float) -> tally.Tally:
        for link in self._links:
            self.driver.on_free(link)
        while self._events and self._events[0][0] <= until:
            at, _, act = heapq.heappop(self._events)
            self.now = max(self.now, at)
            act()
        self.now = until
        self.recording.finish()
        return self.recording.totals.get("get", tally.Tally())

    def at(self, when: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), act))

    def serve(self, link: Link) -> None:
        self.sent_at.append(self.now)
        self.at(self.now + self._service(self.now), lambda: self._finish(link))

    def _finish(self, link: Link) -> None:
        self.driver.on_answer(link, self._answer)
        self.driver.on_free(link)

    def _work(self, now: float) -> operations.Operation | None:
        self._work_left -= 1
        if self._work_left < 0:
            return None
        return operations.Single(choices.Choice("get", 0), signed_requests.Request(b""), 1)

    def _keep(self, interval: recorder.Interval) -> None:
        tally.merge_into(self.seconds.setdefault(interval.at, {}), interval.tallies)

    def _over(self) -> None:
        assert not self.is_over, "told twice"
        self.is_over = True


class Link:
    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.operation: operations.Operation | None = None
        self.intended = self.begun = 0.0

    def send(self, request: signed_requests.Request) -> None:
        self._stage.serve(self)

    def abort(self, failure: str) -> None:
        self._stage.driver.on_lost(self, failure)


def stalls(now: float) -> float:
    """1 ms, but nothing is answered between the seconds 1 and 2."""
    return 0.001 if not 1.0 <= now < 2.0 else 2.0 - now + 0.001


def every_ten_ms() -> Iterator[float]:
    return pacing.constant(100, begin=0.0)


def test_a_stall_shows_in_every_request_that_was_due_in_it() -> None:
    pace = pacing.OpenLoop(every_ten_ms(), measured_from=0.0, ends=10.0)
    found = Stage(pace, connections=1, service=stalls).run(12.0)
    # By hand: one after the other, each as soon as it is due and the one before is done.
    wanted_ms, free_at = [], 0.0
    for due in (n / 100 for n in range(1000)):
        begun = max(due, free_at)
        free_at = begun + stalls(begun)
        wanted_ms.append((free_at - due) * 1000)
    wanted_ms.sort()
    assert found.good_count == 1000
    for percent in (50, 88, 90, 95, 99):
        exact = wanted_ms[round(percent * 10) - 1]
        assert found.latencies.percentile_ms(percent) == pytest.approx(exact, rel=1 / 1024)
    # A tenth of all was due in the stall, and half of these waited half of it.
    assert wanted_ms[950] > 450


def test_a_closed_loop_hides_the_same_stall() -> None:
    pace = pacing.ClosedLoop(measured_from=0.0, ends=10.0)
    found = Stage(pace, connections=1, service=stalls).run(12.0)
    assert found.latencies.percentile_ms(99.9) < 1.1
    assert found.latencies.max_ns / 1e6 == pytest.approx(1001, abs=1)


def test_a_free_connection_sends_at_the_very_time() -> None:
    pace = pacing.OpenLoop(every_ten_ms(), measured_from=0.0, ends=1.0)
    stage = Stage(pace, connections=4, service=lambda now: 0.015)
    stage.run(2.0)
    assert stage.sent_at == pytest.approx([n / 100 for n in range(100)])
    assert stage.driver.waited_count == 0
    assert stage.driver.lags().max_ns == 0
    assert stage.is_over


def test_what_waited_for_a_connection_is_told() -> None:
    pace = pacing.OpenLoop(every_ten_ms(), measured_from=0.0, ends=1.0)
    stage = Stage(pace, connections=1, service=lambda now: 0.020)
    found = stage.run(1.0)
    assert stage.driver.waited_count == pytest.approx(50, abs=2)
    assert found.good_count == pytest.approx(50, abs=2)
    assert not stage.is_over
    assert isinstance(pace, pacing.OpenLoop)
    assert pace.give_up() == pytest.approx(50, abs=2)


def test_warm_up_is_seen_in_its_seconds_and_counted_in_none() -> None:
    pace = pacing.OpenLoop(every_ten_ms(), measured_from=2.0, ends=4.0)
    stage = Stage(pace, connections=1, service=lambda now: 0.001, measured_from=2.0, ends=4.0)
    found = stage.run(5.0)
    assert found.good_count == 200
    assert {at: each["get"].good_count for at, each in sorted(stage.seconds.items())} == {
        -2: 100, -1: 100, 0: 100, 1: 100,
    }  # fmt: skip


def test_slow_requests_at_the_end_are_counted_in_latencies_but_in_no_second() -> None:
    pace = pacing.ClosedLoop(measured_from=0.0, ends=1.0)
    stage = Stage(
        pace,
        connections=1,
        service=lambda now: 0.1 if now < 0.85 else 5.0,
        ends=1.0,
    )
    found = stage.run(10.0)
    assert found.good_count == 10
    assert found.latencies.max_ns / 1e9 == pytest.approx(5.0)
    assert stage.seconds[0]["get"].good_count == 9
    assert stage.seconds[recorder.AFTER]["get"].good_count == 1


def test_a_count_is_of_measured_requests_alone() -> None:
    pace = pacing.ClosedLoop(measured_from=1.0, ends=100.0, count=50)
    stage = Stage(pace, connections=3, service=lambda now: 0.01, measured_from=1.0)
    assert stage.run(10.0).good_count == 50
    assert stage.is_over
    pace_open = pacing.OpenLoop(every_ten_ms(), measured_from=1.0, ends=100.0, count=50)
    stage = Stage(pace_open, connections=3, service=lambda now: 0.01, measured_from=1.0)
    assert stage.run(10.0).good_count == 50


def test_failures_are_counted_by_code_and_have_no_latency() -> None:
    pace = pacing.ClosedLoop(measured_from=0.0, ends=100.0)
    stage = Stage(pace, connections=2, service=lambda now: 0.001, answer=REFUSED)
    found = stage.run(50.0)
    # Given up as hopeless; the other connection still had a request under way.
    assert found.errors == {"SlowDown": driver.HOPELESS_COUNT + 1}
    assert found.good_count == 0
    assert stage.driver.hopeless == "SlowDown"
    assert stage.is_over


def test_a_request_without_an_answer_is_given_up() -> None:
    pace = pacing.ClosedLoop(measured_from=0.0, ends=1.0)
    stage = Stage(pace, connections=2, service=lambda now: 1e6)
    stage.run(40.0)
    stage.driver.sweep(30.0)
    stage.recording.finish()
    assert stage.recording.totals["get"].errors == {"NoAnswer": 2}
    assert stage.is_over


def test_it_ends_when_nothing_is_left_to_do() -> None:
    pace = pacing.ClosedLoop(measured_from=0.0, ends=100.0)
    stage = Stage(pace, connections=4, service=lambda now: 0.001, work_count=10)
    assert stage.run(50.0).good_count == 10
    assert stage.driver.ran_out
    assert stage.is_over


def test_arrivals_keep_their_rate_and_those_of_processes_interleave() -> None:
    random = np.random.default_rng(5)
    times = list(itertools.islice(pacing.poisson(1000, begin=3.0, random=random), 50_000))
    gaps = np.diff(times)
    assert times[0] >= 3.0
    assert gaps.mean() == pytest.approx(0.001, rel=0.02)
    # Exponential: the deviation is the mean.
    assert gaps.std() == pytest.approx(0.001, rel=0.02)
    halves = [
        list(itertools.islice(pacing.constant(50, begin=0.0, phase=phase), 50))
        for phase in (0.0, 0.5)
    ]
    assert sorted(halves[0] + halves[1]) == pytest.approx([n / 100 for n in range(100)])
