"""Works that are called again and again, and how fast they may go."""

from __future__ import annotations

import asyncio
import logging

import pytest
from tests.simulation import virtual_loop

from couchestor_daemon.services import background, pacing
from couchestor_domain import errors


class Work:
    """Gives the waits it is told, raises the errors it is told, then stops the runner."""

    name = "work"

    def __init__(self, *script: float | Exception) -> None:
        self.called_at: list[float] = []
        self.stop = asyncio.Event()
        self._script = list(script)

    async def step(self) -> float:
        self.called_at.append(asyncio.get_running_loop().time())
        if not self._script:
            self.stop.set()
            await asyncio.Event().wait()
        following = self._script.pop(0)
        if isinstance(following, Exception):
            raise following
        return following


def run(work: Work) -> list[int]:
    """Whole seconds of virtual time at which the steps began."""
    loop = virtual_loop.VirtualLoop("background")  # type: ignore[abstract]
    loop.run(background.BackgroundRunner([work]).run(work.stop), interrupted=lambda: False)
    return [int(at) for at in work.called_at]


def test_a_work_is_called_again_after_as_long_as_it_says_and_cancelled_at_the_stop() -> None:
    assert run(Work(5.0, 0.0, 10.0)) == [0, 5, 5, 15]


def test_failures_are_told_once_a_kind_and_repeated_less_and_less_often(
    caplog: pytest.LogCaptureFixture,
) -> None:
    full, gone = errors.StoreFullError("no room"), errors.StoreReadOnlyError("too few")
    work = Work(full, full, full, gone, full, 100.0, full)
    with caplog.at_level(logging.INFO):
        assert run(work) == [0, 1, 3, 7, 15, 20, 120, 121]
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "work waits and tries again: no room",
        "work waits and tries again: too few",
        "work goes on",
        "work waits and tries again: no room",
    ]


def test_an_unforeseen_failure_is_not_hidden() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        run(Work(ValueError("a bug")))
    assert isinstance(caught.value.exceptions[0], ValueError)


def test_a_full_store_is_tried_again_soon_however_long_it_has_been_full() -> None:
    """What frees space may be just this work, once a zone has come back."""
    full, gone = errors.StoreFullError("no room"), errors.StoreReadOnlyError("too few")
    assert run(Work(*[full] * 9))[-1] == 1 + 2 + 4 + 5 * 6
    assert run(Work(*[gone] * 9))[-1] == 2**9 - 1


class Clock:
    """Virtual time."""

    def monotonic_seconds(self) -> float:
        return asyncio.get_running_loop().time()


def paced(rate: int, *takes: tuple[float, int]) -> list[float]:
    """When each (pause before it, bytes) was let through."""

    async def work() -> list[float]:
        pacer = pacing.Pacer(rate, clock=Clock())
        times = []
        for pause, count in takes:
            await asyncio.sleep(pause)
            await pacer.take(count)
            times.append(round(asyncio.get_running_loop().time(), 1))
        return times

    loop = virtual_loop.VirtualLoop("pace")  # type: ignore[abstract]
    return loop.run(work(), interrupted=lambda: False)


def test_bytes_are_let_through_at_the_rate() -> None:
    assert paced(1000, (1.0, 2000), (0, 500), (0, 500), (0, 1)) == [1.0, 2.8, 3.3, 3.8]


def test_a_pause_saves_up_no_more_than_the_burst() -> None:
    assert paced(1000, (100.0, 250), (0, 1000), (0, 1)) == [100.0, 100.0, 101.0]


def test_no_limit_lets_others_run() -> None:
    assert paced(0, (1.0, 10**12), (0, 10**12)) == [1.0, 1.0]


def test_a_debt_made_at_a_slow_rate_is_paid_at_the_present_one() -> None:
    async def work() -> list[float]:
        pacer = pacing.Pacer(1000, clock=Clock())
        times = []
        await asyncio.sleep(1)
        await pacer.take(60_000)
        pacer.set_rate(100_000)
        for _ in range(2):
            await pacer.take(100_000)
            times.append(round(asyncio.get_running_loop().time(), 1))
        pacer.set_rate(1000)
        await pacer.take(1)
        times.append(round(asyncio.get_running_loop().time(), 1))
        return times

    loop = virtual_loop.VirtualLoop("debt")  # type: ignore[abstract]
    # 60,000 less the quarter of a second saved up, then 100,000 each; at last a debt of 100,000
    # bytes at a rate of 1,000.
    assert loop.run(work(), interrupted=lambda: False) == [1.6, 2.6, 102.6]


def test_those_who_wait_are_served_in_turn() -> None:
    async def work() -> list[int]:
        pacer = pacing.Pacer(1000, clock=Clock())
        order: list[int] = []

        async def one(number: int) -> None:
            await pacer.take(1000)
            order.append(number)

        async with asyncio.TaskGroup() as group:
            for number in range(4):
                group.create_task(one(number))
                await asyncio.sleep(0.01)
        return order

    loop = virtual_loop.VirtualLoop("turns")  # type: ignore[abstract]
    assert loop.run(work(), interrupted=lambda: False) == [0, 1, 2, 3]
