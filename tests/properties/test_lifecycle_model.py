"""What is due, against a model that asks every rule about every second of a short calendar."""

from __future__ import annotations

import hypothesis
from hypothesis import strategies as st

from couchestor_domain import lifecycle
from couchestor_domain.lifecycle import Filter, Rule, Version

DAY = lifecycle.NS_PER_DAY
HOUR = DAY // 24
LAST_HOUR = 24 * 12

KEYS = st.sampled_from(["", "a", "a/b", "ab", "b", "é"])
TAGS = st.dictionaries(st.sampled_from("xy"), st.sampled_from("01"), max_size=2)
SIZES = st.none() | st.integers(0, 4)
FILTERS = st.builds(
    Filter,
    prefix=st.none() | KEYS,
    tags=TAGS,
    larger_than_bytes=SIZES,
    smaller_than_bytes=SIZES,
)
FEW = st.none() | st.integers(1, 4)
RULES = st.builds(
    Rule,
    rule_id=st.sampled_from("pqr"),
    is_enabled=st.booleans(),
    filter=FILTERS,
    days=FEW,
    date_ns=st.none() | st.integers(0, 9).map(lambda days: days * DAY),
    removes_lone_markers=st.none() | st.booleans(),
    noncurrent_days=FEW,
    newer_noncurrent_count=FEW,
    abort_days=FEW,
)
MOMENTS = st.integers(0, 96).map(lambda hours: hours * HOUR)


def _begins(asked: Filter, key: str) -> bool:
    return asked.prefix is None or key[: len(asked.prefix)] == asked.prefix


def _fits(asked: Filter, key: str, version: Version) -> bool:
    sizes = range(1 << 4)
    allowed = {
        size
        for size in sizes
        if (asked.larger_than_bytes is None or size > asked.larger_than_bytes)
        and (asked.smaller_than_bytes is None or size < asked.smaller_than_bytes)
    }
    has_tags = all(version.tags.get(name) == value for name, value in asked.tags.items())
    return _begins(asked, key) and version.size_bytes in allowed and has_tags


def _asks_key_alone(asked: Filter, key: str) -> bool:
    sizes = (asked.larger_than_bytes, asked.smaller_than_bytes)
    return _begins(asked, key) and not asked.tags and sizes == (None, None)


def _is_over(now_ns: int, begun_ns: int, days: int) -> bool:
    """Whether ``days`` have passed, and a midnight since or then."""
    enough = begun_ns + days * DAY
    return any(enough <= midnight * DAY <= now_ns for midnight in range(now_ns // DAY + 1))


def _expires(rule: Rule, now_ns: int, written_ns: int) -> bool:
    if rule.days is not None:
        return _is_over(now_ns, written_ns, rule.days)
    return rule.date_ns is not None and rule.date_ns <= now_ns


def _same(due: lifecycle.Due | None, is_due_at: dict[int, bool]) -> None:
    """Compare when something is due with whether it is at each hour."""
    for now_ns, is_due in is_due_at.items():
        assert (due is not None and due.at_ns <= now_ns) == is_due, (now_ns // HOUR, due)


def _hours(begun_ns: int) -> list[int]:
    return [hour * HOUR for hour in range(begun_ns // HOUR, LAST_HOUR)]


@hypothesis.given(
    st.lists(RULES, max_size=4), KEYS, st.integers(0, 5), TAGS, MOMENTS, st.integers(0, 5)
)
def test_what_is_due_is_what_the_model_says(
    rules: list[Rule],
    key: str,
    size_bytes: int,
    tags: dict[str, str],
    written_ns: int,
    newer_count: int,
) -> None:
    version = Version(size_bytes, written_ns, tags)
    active = [rule for rule in rules if rule.is_enabled]
    assert lifecycle.enabled(rules) == tuple(active)
    hours = _hours(written_ns)
    _same(
        lifecycle.current_due(active, key, version),
        {
            now: any(_fits(r.filter, key, version) and _expires(r, now, written_ns) for r in active)
            for now in hours
        },
    )
    for subject in (version, None):
        due = lifecycle.noncurrent_due(
            active, key, subject, since_ns=written_ns, newer_count=newer_count
        )
        _same(
            due,
            {
                now: any(
                    (_fits(r.filter, key, version) if subject else _asks_key_alone(r.filter, key))
                    and r.noncurrent_days is not None
                    and newer_count >= (r.newer_noncurrent_count or 0)
                    and _is_over(now, written_ns, r.noncurrent_days)
                    for r in active
                )
                for now in hours
            },
        )
    _same(
        lifecycle.lone_marker_due(active, key, modified_ns=written_ns),
        {
            now: any(
                _asks_key_alone(r.filter, key)
                and (r.removes_lone_markers is True or _expires(r, now, written_ns))
                for r in active
            )
            for now in hours
        },
    )
    _same(
        lifecycle.upload_due(active, key, initiated_ns=written_ns),
        {
            now: any(
                _asks_key_alone(r.filter, key)
                and r.abort_days is not None
                and _is_over(now, written_ns, r.abort_days)
                for r in active
            )
            for now in hours
        },
    )


@hypothesis.given(st.lists(RULES, max_size=6), KEYS)
def test_prefixes_are_all_keys_that_a_rule_may_act_on(rules: list[Rule], key: str) -> None:
    found = lifecycle.prefixes(rules)
    assert list(found) == sorted(set(found))
    assert any(key.encode().startswith(prefix) for prefix in found) == any(
        rule.is_enabled and _begins(rule.filter, key) for rule in rules
    )
    assert not any(a != b and a.startswith(b) for a in found for b in found)
