"""Durations, byte counts and label selectors as people write them."""

from __future__ import annotations

import hypothesis
import pytest
from hypothesis import strategies

from couchestor_domain import errors
from couchestor_operator.control import duration, quantity, selector


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("1h30m", 5400), ("7d", 604800), ("250ms", 0.25), ("1.5h", 5400), ("0h5m", 300)],
)
def test_durations(text: str, seconds: float) -> None:
    assert duration.parse_seconds(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0s",
        "5",
        "h",
        "1 h",
        "-1h",
        "1h\n",
        "1w",
        "\u0661h",
        "1e3s",
        "1hh",
        "9" * 40 + "d",
        "4000d",
    ],
)
def test_what_is_not_a_duration_is_named(text: str) -> None:
    with pytest.raises(errors.DurationParseError, match="duration"):
        duration.parse_seconds(text)


@hypothesis.given(strategies.text(alphabet="0123456789.smhd-e \n", max_size=40))
def test_any_text_is_a_positive_duration_or_refused(text: str) -> None:
    try:
        seconds = duration.parse_seconds(text)
    except errors.DurationParseError:
        return
    assert 0 < seconds <= duration.SECONDS_MAX


@pytest.mark.parametrize(
    ("text", "amount_bytes"),
    [
        ("0", 0),
        ("1048576", 1048576),
        ("10Gi", 10 << 30),
        ("1.5Ki", 1536),
        ("500M", 500_000_000),
        ("1e3", 1000),
        ("2E", 2 * 10**18),
        ("1E3", 1000),
        ("100m", 1),
        (".5Ki", 512),
        ("9223372036854775807", (1 << 63) - 1),
    ],
)
def test_quantities(text: str, amount_bytes: int) -> None:
    assert quantity.parse_bytes(text) == amount_bytes


@pytest.mark.parametrize(
    "text", ["", "Gi", "-1", "1 Gi", "1gi", "1GiB", "1e", "0x10", "1Gi\n", "8Ei", "1e99", "NaN"]
)
def test_what_is_not_a_quantity_is_named(text: str) -> None:
    with pytest.raises(errors.QuantityParseError):
        quantity.parse_bytes(text)


@hypothesis.given(strategies.integers(0, 1 << 40), strategies.sampled_from(["Ki", "k", "", "Mi"]))
def test_a_larger_number_is_never_fewer_bytes(number: int, suffix: str) -> None:
    larger = quantity.parse_bytes(f"{number + 1}{suffix}")
    assert quantity.parse_bytes(f"{number}{suffix}") < larger


def _requirement(operator: str, *values: str) -> selector.Requirement:
    return selector.Requirement(
        key="tier", operator=selector.Operator(operator), values=frozenset(values)
    )


@pytest.mark.parametrize(
    ("requirement", "fast", "slow", "without"),
    [
        (_requirement("In", "fast", "faster"), True, False, False),
        (_requirement("NotIn", "fast"), False, True, True),
        (_requirement("Exists"), True, True, False),
        (_requirement("DoesNotExist"), False, False, True),
    ],
)
def test_the_four_operators(
    requirement: selector.Requirement, *, fast: bool, slow: bool, without: bool
) -> None:
    assert requirement.matches({"tier": "fast"}) is fast
    assert requirement.matches({"tier": "slow"}) is slow
    assert requirement.matches({"other": "fast"}) is without


@pytest.mark.parametrize(
    ("operator", "values"),
    [("In", ()), ("NotIn", ()), ("Exists", ("x",)), ("DoesNotExist", ("x",))],
)
def test_a_requirement_that_contradicts_itself_is_refused(
    operator: str, values: tuple[str, ...]
) -> None:
    with pytest.raises(errors.InvalidSelectorError, match="tier"):
        _requirement(operator, *values)


LABELS = strategies.dictionaries(
    strategies.sampled_from("abc"), strategies.sampled_from("xyz"), max_size=3
)
REQUIREMENTS = strategies.builds(
    lambda key, operator, values: selector.Requirement(
        key=key,
        operator=operator,
        values=frozenset(values)
        if operator in (selector.Operator.IN, selector.Operator.NOT_IN)
        else frozenset(),
    ),
    strategies.sampled_from("abc"),
    strategies.sampled_from(selector.Operator),
    strategies.sets(strategies.sampled_from("xyz"), min_size=1),
)


@hypothesis.given(LABELS, LABELS, strategies.lists(REQUIREMENTS, max_size=3))
def test_more_conditions_never_match_more(
    labels: dict[str, str], wanted: dict[str, str], requirements: list[selector.Requirement]
) -> None:
    whole = selector.Selector(match_labels=wanted, requirements=tuple(requirements))
    if whole.matches(labels):
        assert selector.Selector(match_labels=wanted).matches(labels)
        assert all(requirement.matches(labels) for requirement in requirements)
    assert selector.Selector().matches(labels)


@hypothesis.given(LABELS, REQUIREMENTS)
def test_in_and_exists_have_their_opposites(
    labels: dict[str, str], requirement: selector.Requirement
) -> None:
    opposites = {
        selector.Operator.IN: selector.Operator.NOT_IN,
        selector.Operator.EXISTS: selector.Operator.DOES_NOT_EXIST,
    }
    opposites |= {value: key for key, value in opposites.items()}
    opposite = selector.Requirement(
        key=requirement.key, operator=opposites[requirement.operator], values=requirement.values
    )
    assert requirement.matches(labels) is not opposite.matches(labels)
