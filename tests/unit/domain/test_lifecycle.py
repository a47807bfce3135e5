"""What lifecycle rules say is due: the examples of S3's guide, and what they leave open."""

from __future__ import annotations

import datetime

from couchestor_domain import lifecycle
from couchestor_domain.lifecycle import Due, Filter, Rule, Version

DAY = lifecycle.NS_PER_DAY


def _ns(text: str) -> int:
    return int(datetime.datetime.fromisoformat(f"{text}+00:00").timestamp()) * 10**9


WRITTEN = _ns("2014-01-15 10:30:00")
DUE = _ns("2014-01-19 00:00:00")
OBJECT = Version(1000, WRITTEN, {"a": "1", "b": "2"})


def _rule(name: str = "r", asked: Filter | None = None, **actions: int | bool) -> Rule:
    return Rule(rule_id=name, is_enabled=True, filter=asked or Filter(), **actions)  # type: ignore[arg-type]


def test_days_end_at_the_midnight_that_follows() -> None:
    assert lifecycle.current_due([_rule(days=3)], "k", OBJECT) == Due(DUE, "r")
    at_midnight = OBJECT._replace(modified_ns=_ns("2014-01-15 00:00:00"))
    assert lifecycle.current_due([_rule(days=3)], "k", at_midnight) == Due(
        _ns("2014-01-18 00:00:00"), "r"
    )


def test_the_days_of_a_test_are_not_rounded() -> None:
    calendar = lifecycle.Calendar(10 * 10**9)
    due = lifecycle.current_due([_rule(days=3)], "k", OBJECT, calendar)
    assert due == Due(WRITTEN + 30 * 10**9, "r")


def test_the_first_of_several_rules_counts_whether_by_days_or_by_date() -> None:
    rules = [_rule("late", days=9), _rule("date", date_ns=5), _rule("soon", days=1)]
    assert lifecycle.current_due(rules, "k", OBJECT) == Due(5, "date")
    assert lifecycle.current_due(rules[::2], "k", OBJECT) == Due(_ns("2014-01-17 00:00:00"), "soon")
    assert lifecycle.current_due([_rule(noncurrent_days=1)], "k", OBJECT) is None


def test_a_filter_matches_what_matches_all_of_it() -> None:
    def is_due(asked: Filter, key: str = "logs/x") -> bool:
        return lifecycle.current_due([_rule(asked=asked, days=1)], key, OBJECT) is not None

    assert is_due(Filter())
    assert is_due(Filter(prefix="logs/"))
    assert not is_due(Filter(prefix="logs/"), "log")
    assert is_due(Filter(tags={"a": "1"}))
    assert is_due(Filter(tags={"a": "1", "b": "2"}))
    assert not is_due(Filter(tags={"a": "2"}))
    assert not is_due(Filter(tags={"c": ""}))
    assert is_due(Filter(larger_than_bytes=999))
    assert not is_due(Filter(larger_than_bytes=1000))
    assert is_due(Filter(smaller_than_bytes=1001))
    assert not is_due(Filter(smaller_than_bytes=1000))
    assert not is_due(Filter(prefix="x", tags={"a": "1"}))


def test_a_version_goes_by_the_time_its_successor_came() -> None:
    rule = _rule(noncurrent_days=3)
    found = lifecycle.noncurrent_due([rule], "k", OBJECT, since_ns=WRITTEN + 5 * DAY, newer_count=0)
    assert found == Due(DUE + 5 * DAY, "r")


def test_the_newest_versions_are_kept_however_old() -> None:
    rules = [_rule(noncurrent_days=1, newer_noncurrent_count=2)]

    def is_due(newer_count: int) -> bool:
        due = lifecycle.noncurrent_due(rules, "k", OBJECT, since_ns=0, newer_count=newer_count)
        return due is not None

    assert [is_due(count) for count in range(4)] == [False, False, True, True]
    assert lifecycle.newer_counted_max(rules) == 2
    assert lifecycle.newer_counted_max([]) == 0


def test_markers_have_neither_tags_nor_sizes() -> None:
    for asked in (Filter(tags={"a": "1"}), Filter(smaller_than_bytes=9)):
        rules = [_rule(asked=asked, noncurrent_days=1, days=1)]
        assert lifecycle.noncurrent_due(rules, "k", None, since_ns=0, newer_count=0) is None
        assert lifecycle.lone_marker_due(rules, "k", modified_ns=0) is None
    rules = [_rule(asked=Filter(prefix="k"), noncurrent_days=1)]
    found = lifecycle.noncurrent_due(rules, "k", None, since_ns=0, newer_count=0)
    assert found == Due(DAY, "r")


def test_a_marker_that_hides_nothing_goes_at_once_or_by_age() -> None:
    at_once = _rule("m", removes_lone_markers=True)
    assert lifecycle.lone_marker_due([at_once], "k", modified_ns=7) == Due(7, "m")
    assert lifecycle.lone_marker_due([_rule(days=1)], "k", modified_ns=7) == Due(2 * DAY, "r")
    assert lifecycle.lone_marker_due([_rule(date_ns=9)], "k", modified_ns=7) == Due(9, "r")
    no = _rule("m", removes_lone_markers=False)
    assert lifecycle.lone_marker_due([no], "k", modified_ns=7) is None


def test_an_upload_goes_by_the_time_it_was_begun() -> None:
    rules = [_rule(asked=Filter(prefix="a/"), abort_days=3)]
    assert lifecycle.upload_due(rules, "a/k", initiated_ns=WRITTEN) == Due(DUE, "r")
    assert lifecycle.upload_due(rules, "k", initiated_ns=WRITTEN) is None
    assert lifecycle.upload_due([_rule(days=3)], "k", initiated_ns=WRITTEN) is None


def test_prefixes_are_the_fewest_and_those_of_rules_that_act() -> None:
    def of(*prefixes: str | None) -> tuple[bytes, ...]:
        return lifecycle.prefixes([_rule(asked=Filter(prefix=each), days=1) for each in prefixes])

    assert of() == ()
    assert of("b", "a/", "a/b", "a", "é") == (b"a", b"b", "é".encode())
    assert of("x", None, "y") == (b"",)
    disabled = Rule(rule_id="d", is_enabled=False, filter=Filter(prefix="z"), days=1)
    assert lifecycle.prefixes([disabled]) == ()
    assert lifecycle.enabled([disabled, _rule()]) == (_rule(),)
