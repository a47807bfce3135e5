"""docs/S3_COMPATIBILITY.md says what is, and each line that says yes is held by a test."""

from __future__ import annotations

import pytest
from tests.compatibility import operations, page, suite

SERVED = [line for line in operations.lines() if line.verdict != "no"]


def test_the_page_is_what_the_code_and_the_suite_say() -> None:
    assert page.PAGE.read_text() == page.text(), "run: python -m tests.compatibility.page"


@pytest.mark.parametrize("line", SERVED, ids=lambda line: line.name)
def test_what_is_served_is_tested_over_http(line: operations.Line) -> None:
    assert line.tests, f"no test below tests/functional calls {line.name}"
    assert [name for name in line.tests if not (operations.FUNCTIONAL / name).exists()] == []


def test_what_is_said_beside_operations_is_tested() -> None:
    missing = [name for _, name in page.BESIDE if not (operations.FUNCTIONAL / name).exists()]
    assert missing == []


def test_notes_are_of_operations_that_are_served() -> None:
    names = {line.name for line in SERVED}
    assert set(operations.PARTIAL) <= names
    assert set(operations.HELD_BY_HAND) <= names


def test_a_reason_is_given_for_every_failure_of_the_suite() -> None:
    for category in suite.load().categories:
        assert category.passed_count + len(category.failed) == category.total_count
        assert [test for test, why in category.failed.items() if not why] == []
