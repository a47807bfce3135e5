"""The loop of an operator that leads, in virtual time: when it does what, what cannot hold it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import pytest
import tiering_stage
from tests.simulation import virtual_loop

from couchestor_domain import errors
from couchestor_operator.app import figures
from couchestor_operator.control import standing
from couchestor_operator.services import (
    heartbeats,
    migrator,
    pass_reporting,
    tiering_loop,
    tiering_pass,
)

T = TypeVar("T")
PASS_SECONDS, POLL_SECONDS, TURN_SECONDS = 30.0, 5.0, 100.0


def _run(main: Coroutine[Any, Any, T]) -> T:
    loop = virtual_loop.VirtualLoop("tiering")  # type: ignore[abstract]
    result = loop.run(main, interrupted=lambda: False)
    loop.abandon()
    assert not loop.problems
    return result


class Turns:
    """Passes and looks that do what the test says, at the times that it can read."""

    def __init__(self) -> None:
        self.passes: list[int] = []
        self.looks: list[int] = []
        self.under_way: Callable[[], int] = lambda: 0
        self.do: Callable[[], Awaitable[None]] = _nothing

    async def run(self) -> tiering_pass.Summary:
        """A pass."""
        self.passes.append(_now())
        await self.do()
        return tiering_pass.Summary(under_way_count=self.under_way())

    async def tick_all(self) -> int:
        """A look."""
        self.looks.append(_now())
        await self.do()
        return self.under_way()


class Heard:
    """What an audience hears."""

    def __init__(self) -> None:
        self.passed_count = 0
        self.missed_count = 0

    def passed(self, summary: tiering_pass.Summary, *, seconds: float) -> None:
        """Count."""
        self.passed_count += 1

    def missed(self, *, seconds: float) -> None:
        """Count."""
        self.missed_count += 1


async def _nothing() -> None:
    pass


def _now() -> int:
    return round(asyncio.get_running_loop().time())


def _loop(
    turns: Turns, audience: tiering_loop.Audience, beat: heartbeats.Beat = lambda: None
) -> tiering_loop.TieringLoop:
    return tiering_loop.TieringLoop(
        passes=turns,
        mover=turns,
        audience=audience,
        clock=virtual_loop.LoopClock(),
        beat=beat,
        pass_seconds=PASS_SECONDS,
        poll_seconds=POLL_SECONDS,
        turn_seconds_max=TURN_SECONDS,
    )


async def _for(seconds: float, loop: tiering_loop.TieringLoop) -> None:
    work = asyncio.ensure_future(loop.run())
    await asyncio.wait([work], timeout=seconds)
    if not work.done():
        work.cancel()
    await asyncio.wait([work])
    if not work.cancelled():
        work.result()


def test_without_migrations_there_are_passes_and_nothing_between() -> None:
    turns, heard = Turns(), Heard()
    _run(_for(95.0, _loop(turns, heard)))
    assert (turns.passes, turns.looks) == ([0, 30, 60, 90], [])
    assert (heard.passed_count, heard.missed_count) == (4, 0)


def test_what_is_under_way_is_looked_at_between_passes_until_it_is_over() -> None:
    turns = Turns()
    turns.under_way = lambda: int(_now() < 12)
    _run(_for(40.0, _loop(turns, Heard())))
    assert (turns.passes, turns.looks) == ([0, 30], [5, 10, 15])


def test_a_turn_that_takes_for_ever_is_given_up_and_told_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    turns, heard = Turns(), Heard()
    turns.do = lambda: asyncio.sleep(1e6)
    _run(_for(150.0, _loop(turns, heard)))
    # The next one is due at once.
    assert turns.passes == [0, 100]
    assert heard.missed_count == 1
    assert "a pass was given up after 100 s: look at how fast" in caplog.text


def test_what_may_pass_does_not_end_the_loop_and_what_will_not_does() -> None:
    turns, heard = Turns(), Heard()
    kept: list[Exception] = [errors.KubernetesApiError("no answer"), ZeroDivisionError()]

    async def fail() -> None:
        raise kept.pop(0)

    turns.do = fail
    turns.under_way = lambda: 1
    with pytest.raises(ZeroDivisionError):
        _run(_for(95.0, _loop(turns, heard)))
    # Whether anything is under way is not known after a pass that was not made: it is looked.
    assert (turns.passes, turns.looks, heard.missed_count) == ([0], [5], 1)


def test_a_loop_that_nothing_cuts_off_is_told_from_one_that_lives() -> None:
    stuck_at: list[tuple[int, list[str]]] = []

    async def deaf() -> None:
        while True:
            try:
                await asyncio.sleep(1e6)
            except asyncio.CancelledError:
                if _now() > 300:
                    raise

    async def main() -> None:
        clock = virtual_loop.LoopClock()
        beats = heartbeats.Heartbeats(clock)
        turns = Turns()
        with beats.expected("tiering", within_seconds=TURN_SECONDS + PASS_SECONDS) as beat:
            work = asyncio.ensure_future(_loop(turns, Heard(), beat).run())
            for moment in (70, 120, 190, 260):
                if moment == 120:
                    turns.do = deaf
                await asyncio.sleep(moment - clock.monotonic_seconds())
                stuck_at.append((moment, [each.loop for each in beats.silences()]))
            await asyncio.sleep(100)
            work.cancel()
            await asyncio.wait([work])
        assert beats.silences() == [], "a loop that does not run is not expected to beat"

    _run(main())
    assert stuck_at == [(70, []), (120, []), (190, []), (260, ["tiering"])]


def test_a_volume_that_heats_up_is_moved_by_the_loop_alone() -> None:
    stage = tiering_stage.Stage()
    stage.policies.put(tiering_stage.POLICY, tiering_stage.rule())
    stage.put(tiering_stage.volume("v", "cold-0", "cold-1"), iops=100)

    async def main() -> None:
        mover = migrator.Migrator(
            manager=stage.memory,
            policies=stage.policies,
            time=stage.clock,
            publisher=stage.heard,
            new_id=lambda: f"m{_now()}",
        )
        passes = tiering_pass.TieringPass(
            manager=stage.memory,
            policies=stage.policies,
            metrics=stage.heat,
            time=stage.clock,
            mover=mover,
            migrations_count_max=2,
        )
        loop = tiering_loop.TieringLoop(
            passes=passes,
            mover=mover,
            audience=figures.OperatorFigures(),
            clock=virtual_loop.LoopClock(),
            beat=lambda: None,
            pass_seconds=PASS_SECONDS,
            poll_seconds=POLL_SECONDS,
            turn_seconds_max=TURN_SECONDS,
        )
        work = asyncio.ensure_future(loop.run())
        await asyncio.sleep(100)
        assert stage.homes("v") == ["cold-0", "cold-1"]
        stage.heat.put("v", 9000)
        while {home[:3] for home in stage.homes("v")} != {"hot"}:
            assert _now() < 600
            await asyncio.sleep(2)
            await stage.settle()
        work.cancel()
        await asyncio.wait([work])

    _run(main())
    assert min(stage.whole_counts) == 2


def test_decisions_are_logged_when_they_change(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    stage = tiering_stage.Stage()
    stage.policies.put(tiering_stage.POLICY, tiering_stage.rule(dry_run=True))
    stage.put(tiering_stage.volume("v", "cold-0"), iops=100)
    told = figures.OperatorFigures()
    reporting = pass_reporting.PassReporting(told)

    async def passes(count: int) -> list[str]:
        caplog.clear()
        for _ in range(count):
            reporting.passed(await stage.operator().run(), seconds=0.5)
        return [record.getMessage() for record in caplog.records]

    assert asyncio.run(passes(3)) == ["policy p decided: Settled: 1"]
    stage.heat.put("v", 9000)
    assert asyncio.run(passes(3)) == [
        "policy p decided: Planned: 1",
        "policy p: v from pool cold-0 to hot-0 (hot, 9000 IOPS) would move: dry run",
    ]
    stage.heat.fault = errors.PrometheusConnectionError("Prometheus is away")
    said = asyncio.run(passes(2))
    assert said.count("nothing moves where this is missing: Prometheus is away") == 1
    stage.heat.fault = None
    assert "all that decisions need is known again" in asyncio.run(passes(2))
    page = told.page().decode()
    assert 'couchestor_operator_decisions_total{decision="Settled",policy="p"} 3.0' in page
    assert 'couchestor_operator_passes_total{outcome="incomplete"} 2.0' in page


def test_a_fault_is_shown_as_the_policy_shows_it() -> None:
    fault = standing.Fault(reason="PrometheusConnection", message="away")
    heard = figures.OperatorFigures()
    heard.passed(tiering_pass.Summary(faults=[fault], watched_count=3), seconds=0.1)
    page = heard.page().decode()
    assert 'couchestor_operator_volumes{kind="watched"} 3.0' in page
    assert "couchestor_operator_last_pass_timestamp_seconds 0.0" in page
