"""docs/S3_COMPATIBILITY.md, from what is served and what the suite said.

``python -m tests.compatibility.page`` writes it.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Final

from tests.compatibility import operations, suite

PAGE: Final = pathlib.Path(__file__).resolve().parents[2] / "docs" / "S3_COMPATIBILITY.md"

INTRODUCTION: Final = """\
# S3 compatibility

Made by `python -m tests.compatibility.page` from the routing table, the model of AWS's SDK, and the
kept result of a run of the suite; a test holds this page to them. What an operation cannot do is
refused with an error that names it, never ignored: sub-resources and headers that change what a
request means are known and answered `NotImplemented`.
"""

BESIDE: Final = (
    (
        "Signature Version 4: headers, presigned URLs, all `STREAMING-*` bodies",
        "test_hostile_bodies.py",
    ),
    ("Signature Version 2, where the node is told to take it", "test_signature_v2.py"),
    ("uploads by HTML forms, signed by version 4 or 2", "test_posted_forms.py"),
    ("CORS: preflight requests, headers of answers", "test_cors.py"),
    ("anonymous requests, as ACLs and policies allow", "test_access.py"),
    ("virtual-hosted and path-style addresses", "test_virtual_hosts.py"),
)
"""What is no operation of its own, and the test of it."""

_NAMED_MAX: Final = 8
"""Of tests that fail for one reason; all are in ``s3-tests.json``."""


def text() -> str:
    """The whole page."""
    return "\n".join((INTRODUCTION, *_operations(), *_beside(), *_suite()))


def _operations() -> Iterator[str]:
    lines = operations.lines()
    counts = {verdict: 0 for verdict in ("yes", "partial", "no")}
    for line in lines:
        counts[line.verdict] += 1
    yield "## Operations"
    yield ""
    yield (
        f"Of {len(lines)} operations that the SDK knows {counts['yes']} are served whole,"
        f" {counts['partial']} in part. The tests are those below `tests/functional` that call the"
        " operation on the real daemon, two of them at most."
    )
    yield ""
    yield "| operation | served | but | tested by |"
    yield "|---|---|---|---|"
    for line in lines:
        if line.verdict != "no":
            tests = ", ".join(f"`{each}`" for each in line.tests[:2])
            yield f"| {line.name} | {line.verdict} | {line.note} | {tests} |"
    yield ""
    yield "Not served: " + ", ".join(line.name for line in lines if line.verdict == "no") + "."
    yield ""


def _beside() -> Iterator[str]:
    yield "| beside operations | tested by |"
    yield "|---|---|"
    for what, test in BESIDE:
        yield f"| {what} | `{test}` |"
    yield ""


def _suite() -> Iterator[str]:
    result = suite.load()
    passed = sum(each.passed_count for each in result.categories)
    total = sum(each.total_count for each in result.categories)
    yield "## ceph/s3-tests"
    yield ""
    yield (
        f"Revision {result.revision}, run on {result.taken_on} over {result.commits},"
        f" {result.options}: {passed} of {total} tests passed. Tests of what only Ceph has"
        " are not run."
    )
    yield ""
    yield "| category | passed | of |"
    yield "|---|---|---|"
    for each in result.categories:
        yield f"| {each.name} | {each.passed_count} | {each.total_count} |"
    yield ""
    yield "Those that fail, and why:"
    yield ""
    yield "| why | tests | which |"
    yield "|---|---|---|"
    by_reason: dict[str, list[str]] = {}
    for each in result.categories:
        for test, why in each.failed.items():
            by_reason.setdefault(why, []).append(f"`{test}`")
    for why, tests in sorted(by_reason.items(), key=lambda found: -len(found[1])):
        more = ", ..." if len(tests) > _NAMED_MAX else ""
        yield f"| {why} | {len(tests)} | {', '.join(tests[:_NAMED_MAX])}{more} |"
    yield ""


if __name__ == "__main__":
    PAGE.write_text(text())
