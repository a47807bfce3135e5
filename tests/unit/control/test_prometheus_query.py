"""The expression that Prometheus is asked: for one window, and never answered by old data."""

from __future__ import annotations

import hypothesis
import pytest
from hypothesis import strategies

from couchestor_domain import errors
from couchestor_operator.adapters import prometheus_query


def _rendered(expression: str, window_seconds: float = 3600.0, label: str = "volume") -> str:
    template = prometheus_query.QueryTemplate(expression=expression, volume_label=label)
    return template.rendered(window_seconds)


def test_what_the_presets_ask() -> None:
    assert prometheus_query.PRESETS["openebs"].rendered(3600.0) == (
        "(rate(openebs_volume_iops[1h]))"
        " and on (volume) openebs_volume_iops"
        " and on (volume) openebs_volume_iops offset 1h"
    )
    assert prometheus_query.PRESETS["mayastor"].rendered(5400.0) == (
        "(sum by (pv_name) (rate(volume_num_read_ops[90m]) + rate(volume_num_write_ops[90m])))"
        " and on (pv_name) volume_num_read_ops"
        " and on (pv_name) volume_num_read_ops offset 90m"
        " and on (pv_name) volume_num_write_ops"
        " and on (pv_name) volume_num_write_ops offset 90m"
    )


@pytest.mark.parametrize(
    ("expression", "guards"),
    [
        ("iops", []),
        ("rate(a[5m])", ["a", "a offset 5m"]),
        ("rate( a [ 5m ] )", ["a", "a offset 5m"]),
        ('rate(a{b="c]d[5m}",e=~"f$"}[5m])', ['a{b="c]d[5m}",e=~"f$"}']),
        ("rate({__name__='a'}[5m])", ["{__name__='a'}", "{__name__='a'} offset 5m"]),
        ("b and rate({x=`\\`}[5m])", ["{x=`\\`} offset 5m"]),
        ("rate(a[5m]) or rate(a[5m])", ["a", "a offset 5m"]),
        ("rate(a[5m]) + rate(a[1h])", ["a", "a offset 5m", "a offset 1h"]),
        ('a{offset="1"}', []),
    ],
)
def test_everything_that_is_looked_back_on_must_be_there_at_both_ends(
    expression: str, guards: list[str]
) -> None:
    whole, *found = _rendered(expression).split(" and on (volume) ")
    assert whole == f"({expression.strip()})"
    assert set(guards) <= set(found)
    assert len(found) == len(set(found))
    assert bool(found) == bool(guards)


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("", "1 to 4096"),
        (" \n", "1 to 4096"),
        ("a" * 4097, "1 to 4096"),
        ("rate(a[5m]", "not closed"),
        ("rate(a[5m", "not closed"),
        ("rate(a[5m)]", "closes nothing"),
        ("rate(a[5m])) or (b", "closes nothing"),
        ('rate(a{b="c}[5m])', "string is not closed"),
        ("rate(a[5m]) # the rate", "comments"),
        ("rate(a[5m] offset 1d)", "look new"),
        ("rate(a[5m] OFFSET 1d)", "look new"),
        ("rate(a[5m] @ 1609746000)", "another time"),
        ("max_over_time(rate(a[5m])[1h:1m])", "subqueries"),
        ("max_over_time(a[1h:])", "subqueries"),
        ("max_over_time((a)[1h:1m])", "subqueries"),
        ("rate(a[$__rate_interval])", r"only variable is \$window"),
        ("[5m]", "must follow a metric"),
    ],
)
def test_an_expression_that_would_hide_the_age_of_data_is_refused(
    expression: str, why: str
) -> None:
    with pytest.raises(errors.ConfigurationError, match=why):
        prometheus_query.QueryTemplate(expression=expression, volume_label="volume")


@pytest.mark.parametrize("label", ["", "pv-name", "1st", "a) or (b", "ä", "a\n"])
def test_a_label_that_is_none_is_refused(label: str) -> None:
    with pytest.raises(errors.ConfigurationError, match="is not the name of a Prometheus label"):
        prometheus_query.QueryTemplate(expression="a", volume_label=label)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3600, "1h"), (5400, "90m"), (90, "90s"), (1.5, "1500ms"), (172_800, "2d"), (0.0001, "1ms")],
)
def test_durations_in_prometheus_notation(seconds: float, text: str) -> None:
    assert prometheus_query.promql_duration(seconds) == text


@hypothesis.given(strategies.floats(0.5, 10 * 366 * 86_400))
def test_steps_cover_a_window_with_few_samples(window_seconds: float) -> None:
    steps = prometheus_query.steps(window_seconds)
    covered_seconds = steps.step_seconds * steps.steps_count
    assert 1 <= steps.steps_count <= prometheus_query.STEPS_COUNT
    assert covered_seconds <= window_seconds * (1 + 1e-9)
    assert window_seconds - covered_seconds < steps.step_seconds
    assert steps.step_seconds >= min(window_seconds, prometheus_query.STEP_SECONDS_MIN)


@hypothesis.given(strategies.text(alphabet="ab[]{}()\"'`:$@#, \n\\5m=offset", max_size=40))
def test_any_text_is_an_expression_or_refused(expression: str) -> None:
    try:
        rendered = _rendered(expression)
    except errors.ConfigurationError:
        return
    assert rendered.startswith(f"({expression.strip()})")
