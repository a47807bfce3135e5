"""One measurement for all who ask, and a source in trouble that is left alone."""

from __future__ import annotations

import asyncio

import pytest
import set_clock

from couchestor_domain import errors
from couchestor_operator.adapters import heat_cache
from couchestor_operator.control import heat
from couchestor_operator.ports import metrics_provider

HOUR_SECONDS = 3600.0


class _Source:
    """Answers with each of ``answers``, the last of them for ever; waits for ``gate``."""

    def __init__(self, clock: set_clock.SetClock, *answers: float | Exception) -> None:
        self._clock = clock
        self._answers = list(answers)
        self.asked: list[float] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def measure(self, window_seconds: float) -> metrics_provider.HeatReading:
        """See ``MetricsProvider.measure``."""
        self.asked.append(window_seconds)
        measured_at_seconds = self._clock.now_seconds()
        await self.gate.wait()
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        score = heat.HeatScore(iops=answer, covered_ratio=1.0, newest_age_seconds=0.0)
        return metrics_provider.HeatReading(
            measured_at_seconds=measured_at_seconds,
            window_seconds=window_seconds,
            scores={"1": score},
        )


def _iops(reading: metrics_provider.HeatReading) -> float:
    score = reading.of("1")
    assert isinstance(score, heat.HeatScore)
    return score.iops


def _down(retry_after_seconds: float = 0.0) -> errors.PrometheusConnectionError:
    return errors.PrometheusConnectionError(
        "it is down", retry_after_seconds=retry_after_seconds, status=503
    )


async def test_a_reading_is_shared_until_it_is_too_old() -> None:
    clock = set_clock.SetClock()
    source = _Source(clock, 1, 2)
    cache = heat_cache.HeatCache(source, clock, kept_seconds=30)
    assert _iops(await cache.measure(HOUR_SECONDS)) == 1
    clock.go(29.75)
    assert _iops(await cache.measure(HOUR_SECONDS)) == 1
    clock.go(0.25)
    assert _iops(await cache.measure(HOUR_SECONDS)) == 2
    assert len(source.asked) == 2


async def test_callers_at_one_time_share_one_measurement() -> None:
    clock = set_clock.SetClock()
    source = _Source(clock, 1)
    source.gate.clear()
    cache = heat_cache.HeatCache(source, clock)
    async with asyncio.TaskGroup() as group:
        callers = [group.create_task(cache.measure(HOUR_SECONDS)) for _ in range(20)]
        await asyncio.sleep(0)
        source.gate.set()
    assert {_iops(caller.result()) for caller in callers} == {1}
    assert len(source.asked) == 1


async def test_callers_at_one_time_share_one_failure() -> None:
    clock = set_clock.SetClock()
    source = _Source(clock, _down())
    source.gate.clear()
    cache = heat_cache.HeatCache(source, clock)
    callers = [asyncio.ensure_future(cache.measure(HOUR_SECONDS)) for _ in range(20)]
    await asyncio.sleep(0)
    source.gate.set()
    found = await asyncio.gather(*callers, return_exceptions=True)
    assert {type(fault) for fault in found} == {errors.PrometheusConnectionError}
    assert {str(fault) for fault in found} == {"it is down"}
    assert len(source.asked) == 1


async def test_a_caller_that_is_cancelled_takes_nothing_from_the_others() -> None:
    clock = set_clock.SetClock()
    source = _Source(clock, 1)
    source.gate.clear()
    cache = heat_cache.HeatCache(source, clock)
    first, second = (asyncio.ensure_future(cache.measure(HOUR_SECONDS)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    source.gate.set()
    assert _iops(await second) == 1
    assert len(source.asked) == 2


async def test_a_fault_is_told_again_without_asking_until_its_time_is_over() -> None:
    clock = set_clock.SetClock()
    source = _Source(clock, _down(), _down(), _down(), 7)
    cache = heat_cache.HeatCache(source, clock)
    for wait_seconds in (1.0, 2.0, 4.0):
        for step_seconds in (0.0, wait_seconds - 0.25):
            clock.go(step_seconds)
            with pytest.raises(errors.PrometheusConnectionError, match="it is down") as raised:
                await cache.measure(HOUR_SECONDS)
            assert raised.value.context["status"] == 503
        clock.go(0.25)
    assert len(source.asked) == 3
    assert _iops(await cache.measure(HOUR_SECONDS)) == 7


async def test_a_success_ends_the_doubling() -> None:
    clock = set_clock.SetClock()
    source = _Source(clock, _down(), _down(), 7, _down(), 8)
    cache = heat_cache.HeatCache(source, clock, kept_seconds=0)
    for wait_seconds in (1.0, 2.0):
        with pytest.raises(errors.PrometheusConnectionError):
            await cache.measure(HOUR_SECONDS)
        clock.go(wait_seconds)
    assert _iops(await cache.measure(HOUR_SECONDS)) == 7
    with pytest.raises(errors.PrometheusConnectionError):
        await cache.measure(HOUR_SECONDS)
    clock.go(1.0)
    assert _iops(await cache.measure(HOUR_SECONDS)) == 8


async def test_a_source_that_asks_to_be_left_alone_is() -> None:
    clock = set_clock.SetClock()
    source = _Source(clock, _down(retry_after_seconds=120), 7)
    cache = heat_cache.HeatCache(source, clock)
    with pytest.raises(errors.PrometheusConnectionError):
        await cache.measure(HOUR_SECONDS)
    clock.go(119.75)
    with pytest.raises(errors.PrometheusConnectionError):
        await cache.measure(HOUR_SECONDS)
    assert len(source.asked) == 1
    clock.go(0.25)
    assert _iops(await cache.measure(HOUR_SECONDS)) == 7


async def test_an_old_reading_is_not_given_in_place_of_an_error() -> None:
    clock = set_clock.SetClock()
    source = _Source(clock, 1, _down())
    cache = heat_cache.HeatCache(source, clock, kept_seconds=30)
    await cache.measure(HOUR_SECONDS)
    clock.go(30)
    for _ in range(2):
        with pytest.raises(errors.PrometheusConnectionError):
            await cache.measure(HOUR_SECONDS)


async def test_windows_do_not_share_faults_or_readings() -> None:
    clock = set_clock.SetClock()
    source = _Source(clock, errors.PrometheusParseError("too large"), 7)
    cache = heat_cache.HeatCache(source, clock)
    with pytest.raises(errors.PrometheusParseError, match="too large"):
        await cache.measure(30 * 86_400.0)
    assert _iops(await cache.measure(HOUR_SECONDS)) == 7
    with pytest.raises(errors.PrometheusParseError, match="too large"):
        await cache.measure(30 * 86_400.0)
    assert source.asked == [30 * 86_400.0, HOUR_SECONDS]


async def test_whoever_asks_all_the_time_asks_a_broken_source_seldom() -> None:
    clock = set_clock.SetClock()
    source = _Source(clock, errors.PrometheusQueryError("no such function"))
    cache = heat_cache.HeatCache(source, clock)
    for _ in range(7200):
        with pytest.raises(errors.PrometheusQueryError):
            await cache.measure(HOUR_SECONDS)
        clock.go(0.5)
    # 1 + 2 + 4 ... 32 s, then once a minute.
    assert 60 <= len(source.asked) <= 66


async def test_windows_that_nobody_asks_for_are_forgotten() -> None:
    clock = set_clock.SetClock()
    source = _Source(clock, 1)
    cache = heat_cache.HeatCache(source, clock, kept_seconds=30)
    for index in range(1000):
        await cache.measure(HOUR_SECONDS + index)
        clock.go(1)
    assert len(cache._windows) < 200
