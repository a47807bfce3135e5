"""Passes over stripe groups come at their interval, never in a hot loop, and are told of once."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

import pytest
from tests.simulation import virtual_loop

from couchestor_domain import errors
from couchestor_operator.app import figures
from couchestor_operator.control import stripe_group
from couchestor_operator.services import stripe_assigner, stripe_loop

PASS_SECONDS: Final = 30.0

Outcome = stripe_assigner.Summary | Exception | float


class Passes:
    """Makes passes that take so long, or do not come about."""

    def __init__(self, *outcomes: Outcome) -> None:
        self.began_at: list[int] = []
        self._outcomes = itertools.chain(outcomes, itertools.repeat(stripe_assigner.Summary()))

    async def run(self) -> stripe_assigner.Summary:
        """The next one."""
        self.began_at.append(round(asyncio.get_running_loop().time()))
        outcome: Outcome = next(self._outcomes)
        if isinstance(outcome, float):
            await asyncio.sleep(outcome)
            return stripe_assigner.Summary()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def _virtual(main: Coroutine[Any, Any, None]) -> None:
    loop = virtual_loop.VirtualLoop("stripes")  # type: ignore[abstract]
    loop.run(main, interrupted=lambda: False)
    loop.abandon()
    assert not loop.problems


def _run(
    passes: Passes, *, for_seconds: float, beat: Callable[[], None] = lambda: None
) -> figures.OperatorFigures:
    seen = figures.OperatorFigures()

    async def run() -> None:
        loop = stripe_loop.StripeLoop(
            passes=passes,
            audience=seen,
            clock=virtual_loop.LoopClock(),
            beat=beat,
            pass_seconds=PASS_SECONDS,
            pass_seconds_max=100.0,
        )
        work = asyncio.ensure_future(loop.run())
        await asyncio.wait([work], timeout=for_seconds)
        if not work.done():
            work.cancel()
        await asyncio.wait([work])
        if not work.cancelled():
            work.result()

    _virtual(run())
    return seen


def _figure(seen: figures.OperatorFigures, name: str) -> float:
    lines = (line.rpartition(" ") for line in seen.page().decode().splitlines())
    return {key: float(value) for key, _, value in lines if not key.startswith("#")}[name]


def test_passes_begin_at_their_interval_and_beat() -> None:
    beats = itertools.count()
    passes = Passes()
    seen = _run(passes, for_seconds=95.0, beat=lambda: [next(beats)].clear())
    assert passes.began_at == [0, 30, 60, 90]
    assert next(beats) == 8
    name = 'couchestor_operator_stripe_passes_total{outcome="complete"}'
    assert _figure(seen, name) == 4


def test_a_pass_that_is_late_is_followed_by_one_that_is_not_hurried() -> None:
    passes = Passes(45.0, 45.0)
    _run(passes, for_seconds=130.0)
    assert passes.began_at == [0, 46, 92, 122]


def test_a_pass_that_takes_too_long_is_given_up_and_one_without_an_answer_is_missed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    passes = Passes(1e6, errors.KubernetesApiError("no answer"))
    seen = _run(passes, for_seconds=140.0)
    assert passes.began_at == [0, 101, 131]
    assert "given up after 100 s" in caplog.text
    assert "was not made: no answer" in caplog.text
    name = 'couchestor_operator_stripe_passes_total{outcome="missed"}'
    assert _figure(seen, name) == 2


def test_a_fault_of_its_own_ends_the_loop() -> None:
    with pytest.raises(ZeroDivisionError):
        _run(Passes(ZeroDivisionError()), for_seconds=10.0)


def test_what_is_new_is_logged_once_and_all_of_it_is_in_the_figures(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    bad = stripe_assigner.Summary(
        nodes_count=5,
        lost=frozenset({"n1"}),
        faults={"n2": "node n2 did not answer"},
        problems=["no device has room"],
        moved_count=3,
        stock_count=7,
    )
    bad.states[stripe_group.State.DEGRADED] = 2
    seen = _run(Passes(bad, bad, bad), for_seconds=125.0)
    assert [record.message for record in caplog.records] == [
        "node n1 is lost: its shards get new places",
        "node n2 says nothing: node n2 did not answer",
        "no device has room",
        "node n1 is not lost any more",
        "node n2 answers again",
    ]
    assert _figure(seen, 'couchestor_operator_stripe_changes_total{what="moved"}') == 9
    # Of the last pass.
    assert _figure(seen, 'couchestor_operator_stripe_groups{state="Degraded"}') == 0
    assert _figure(seen, 'couchestor_operator_nodes{kind="lost"}') == 0
