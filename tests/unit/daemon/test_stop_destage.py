"""Emptying the log before a stop: to its end, or to the end of its time."""

from __future__ import annotations

import asyncio
import logging

import pytest

from couchestor_daemon.services import stop_destage
from couchestor_domain import errors


class Work:
    """Answers each step as it is told, then that nothing is due."""

    name = "destage"

    def __init__(self, *answers: float | Exception, seconds: float = 0.0) -> None:
        self._answers = list(answers)
        self._seconds = seconds
        self.steps_count = 0

    async def step(self) -> float:
        self.steps_count += 1
        await asyncio.sleep(self._seconds)
        answer = self._answers.pop(0) if self._answers else 1.0
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stop_destage, "SETTLE_SECONDS", 0.0)


async def test_it_ends_when_nothing_is_due_any_more() -> None:
    work = Work(0.0, 0.0)
    assert await stop_destage.empty_log([work], within_seconds=10)
    assert work.steps_count == 4


async def test_what_ends_after_a_look_that_found_nothing_is_moved_too() -> None:
    work = Work(0.0, 1.0, 0.0, 1.0, 1.0)
    assert await stop_destage.empty_log([work], within_seconds=10)
    assert work.steps_count == 5


async def test_it_is_cut_off_when_its_time_is_over(caplog: pytest.LogCaptureFixture) -> None:
    work = Work(*[0.0] * 1000, seconds=0.01)
    assert not await stop_destage.empty_log([work], within_seconds=0.05)
    assert 0 < work.steps_count < 20
    assert "moves after the next start" in caplog.text


async def test_an_error_is_left_to_the_next_start(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        work = Work(0.0, errors.StoreFullError("no room"))
        assert not await stop_destage.empty_log([work], within_seconds=10)
    assert "no room" in caplog.text
