"""Each rule of the simulation's oracle catches its violation, and allows what may be."""

from __future__ import annotations

import pytest
from tests.simulation import oracle

KEY = "k"


@pytest.fixture
def judge() -> oracle.Oracle:
    return oracle.Oracle()


def put(judge: oracle.Oracle) -> oracle.Write:
    return judge.begin(KEY, judge.draw_version(), size_bytes=3)


def look(judge: oracle.Oracle, version: int) -> oracle.Write:
    return judge.observe(KEY, version, started=judge.tick())


def test_an_acknowledged_write_stays(judge: oracle.Oracle) -> None:
    write = put(judge)
    judge.ack(write)
    look(judge, write.version)
    with pytest.raises(AssertionError, match="shows nothing"):
        look(judge, oracle.ABSENT)


@pytest.mark.parametrize("happened", [True, False])
def test_a_write_cut_off_by_a_crash_is_there_or_not_but_then_stays(
    judge: oracle.Oracle, happened: bool
) -> None:
    old, new = put(judge), put(judge)
    judge.ack(old)
    judge.crash()
    judge.fenced()
    shown, other = (new, old) if happened else (old, new)
    look(judge, shown.version)
    with pytest.raises(AssertionError, match="allowed"):
        look(judge, other.version)


def test_what_was_overwritten_does_not_return(judge: oracle.Oracle) -> None:
    old = put(judge)
    judge.ack(old)
    new = put(judge)
    judge.ack(new)
    with pytest.raises(AssertionError, match=f"shows version {old.version}"):
        look(judge, old.version)


def test_a_failed_write_may_come_back_only_until_a_commit(judge: oracle.Oracle) -> None:
    failed = put(judge)
    judge.fail(failed)
    look(judge, oracle.ABSENT)
    look(judge, failed.version)
    again = oracle.Oracle()
    failed = put(again)
    again.fail(failed)
    again.fenced()
    look(again, oracle.ABSENT)
    with pytest.raises(AssertionError, match="shows version"):
        look(again, failed.version)


def test_a_refused_write_is_never_there(judge: oracle.Oracle) -> None:
    write = put(judge)
    judge.refuse(write)
    with pytest.raises(AssertionError, match="shows version"):
        look(judge, write.version)


def test_a_seen_write_rules_out_what_ended_before_it_began(judge: oracle.Oracle) -> None:
    old = put(judge)
    judge.ack(old)
    new = put(judge)
    look(judge, new.version)
    with pytest.raises(AssertionError, match="allowed"):
        look(judge, old.version)


def test_only_one_conditional_write_wins(judge: oracle.Oracle) -> None:
    first, second = put(judge), put(judge)
    judge.win(first)
    judge.ack(first)
    with pytest.raises(AssertionError, match="both found it absent"):
        judge.win(second)


def test_what_was_reported_as_taken_must_be_there(judge: oracle.Oracle) -> None:
    winner, loser = put(judge), put(judge)
    judge.refuse_as_taken(loser, started=judge.tick())
    with pytest.raises(AssertionError, match="shows nothing"):
        look(judge, oracle.ABSENT)
    look(judge, winner.version)


def test_the_etag_is_that_of_the_parts(judge: oracle.Oracle) -> None:
    write = judge.begin(KEY, 9, size_bytes=3, part_sizes=(1, 2), part_versions=(4, 5))
    assert len(oracle.body_of(write)) == 3
    assert oracle.etag_of(write).endswith("-2")
