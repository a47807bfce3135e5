"""The oracle itself: each rule must let the right state pass and catch the wrong one."""

from __future__ import annotations

import pytest
from tests.crash import oracle


def _seen(operation: oracle.Operation, *, body: bytes | None = None) -> oracle.Sighting:
    return oracle.Sighting(
        version=operation.version,
        etag=operation.etag(),
        size_bytes=operation.size_bytes,
        body=operation.body() if body is None else body,
    )


def _written(judge: oracle.Oracle, *, at: float, acknowledged: bool = True) -> oracle.Operation:
    operation = judge.issue("k", started=at, size_bytes=100)
    if acknowledged:
        judge.acknowledge(operation, ended=at + 1, etag=operation.etag())
    return operation


def test_the_last_acknowledged_version_is_demanded() -> None:
    judge = oracle.Oracle()
    old = _written(judge, at=1)
    _written(judge, at=3)
    judge.settle("k", _seen(old))
    with pytest.raises(AssertionError, match="shows version 1; allowed: version 2"):
        judge.check()


def test_a_lost_acknowledged_write_is_caught() -> None:
    judge = oracle.Oracle()
    _written(judge, at=1)
    judge.settle("k", None)
    with pytest.raises(AssertionError, match="shows nothing"):
        judge.check()


@pytest.mark.parametrize("present", [True, False])
def test_an_unknown_write_may_be_there_or_not_but_then_stays(present: bool) -> None:
    judge = oracle.Oracle()
    old = _written(judge, at=1)
    new = _written(judge, at=3, acknowledged=False)
    shown, other = (new, old) if present else (old, new)
    judge.settle("k", _seen(shown))
    judge.settle("k", _seen(shown))
    judge.check()
    judge.settle("k", _seen(other))
    with pytest.raises(AssertionError, match="allowed"):
        judge.check()


def test_a_deleted_object_must_not_return() -> None:
    judge = oracle.Oracle()
    old = _written(judge, at=1)
    gone = judge.issue("k", started=3, delete=True)
    judge.acknowledge(gone, ended=4)
    judge.settle("k", None)
    judge.check()
    judge.settle("k", _seen(old))
    with pytest.raises(AssertionError, match="shows version 1"):
        judge.check()


def test_a_settled_object_may_be_deleted_in_the_next_round() -> None:
    judge = oracle.Oracle()
    operation = _written(judge, at=1)
    judge.settle("k", _seen(operation))
    judge.acknowledge(judge.issue("k", started=3, delete=True), ended=4)
    judge.settle("k", None)
    judge.check()


def test_a_read_pins_an_unknown_write() -> None:
    judge = oracle.Oracle()
    old = _written(judge, at=1)
    new = _written(judge, at=3, acknowledged=False)
    judge.observe("k", _seen(new), started=5, ended=6)
    judge.settle("k", _seen(old))
    with pytest.raises(AssertionError, match="shows version 1"):
        judge.check()


def test_a_torn_body_is_caught() -> None:
    judge = oracle.Oracle()
    operation = _written(judge, at=1)
    judge.settle("k", _seen(operation, body=operation.body()[:50] + bytes(50)))
    with pytest.raises(AssertionError, match="torn: differs from byte 50"):
        judge.check()


def test_two_winners_of_a_conditional_write_are_caught() -> None:
    judge = oracle.Oracle()
    first, second = (judge.issue("k", started=1, size_bytes=1) for _ in range(2))
    for operation in (first, second):
        judge.acknowledge(operation, ended=2)
        judge.conditional_success(operation)
    with pytest.raises(AssertionError, match="both succeeded"):
        judge.check()


def test_what_a_412_reported_as_existing_must_exist() -> None:
    judge = oracle.Oracle()
    winner, loser = (judge.issue("k", started=1, size_bytes=1) for _ in range(2))
    judge.refuse(loser, exists=True)
    judge.settle("k", None)
    with pytest.raises(AssertionError, match="reported as existing"):
        judge.check()
    assert winner.outcome is oracle.Outcome.UNKNOWN


def test_a_listing_must_agree() -> None:
    judge = oracle.Oracle()
    operation = _written(judge, at=1)
    judge.settle("k", _seen(operation))
    judge.compare_listing([("k", _seen(operation))])
    judge.check()
    judge.compare_listing([("k", _seen(operation)), ("stray", _seen(operation))])
    judge.compare_listing([])
    assert len(judge.violations) == 2
