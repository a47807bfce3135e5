"""Keeps what a run of ceph/s3-tests said: ``python -m tests.compatibility.take_result``.

Its input is lines of JSON, one for each test: ``cat``, ``name``, ``outcome`` and ``msg``. Several
files are taken together; of a test that is in more than one the last counts, so that categories can
be run with options of their own.
"""

from __future__ import annotations

import argparse
import datetime
import json
import pathlib
from typing import Any

from tests.compatibility import suite


def main() -> None:
    """Read, condense, keep."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("lines", nargs="+", type=pathlib.Path)
    parser.add_argument("--revision", required=True, help="of the suite")
    parser.add_argument("--commits", required=True, help="of the node")
    parser.add_argument("--options", required=True, help="how the node was started, for readers")
    told = parser.parse_args()
    tests: dict[str, dict[str, Any]] = {}
    for path in told.lines:
        for line in path.read_text().splitlines():
            found = json.loads(line)
            tests[found["nodeid"]] = found
    categories: dict[str, dict[str, Any]] = {}
    for found in sorted(tests.values(), key=lambda each: (each["cat"], each["name"])):
        category = categories.setdefault(found["cat"], {"passed": 0, "total": 0, "failed": {}})
        if found["outcome"] == "skipped":
            continue
        category["total"] += 1
        if found["outcome"] == "passed":
            category["passed"] += 1
            continue
        category["failed"][found["name"]] = suite.reason(found["name"])
    document = {
        "revision": told.revision,
        "commits": told.commits,
        "taken_on": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "options": told.options,
        "categories": dict(sorted(categories.items())),
    }
    suite.RESULT.write_text(json.dumps(document, indent=1) + "\n")
    unexplained = [
        name for each in categories.values() for name, why in each["failed"].items() if not why
    ]
    if unexplained:
        print("no reason is known for:", *sorted(unexplained), sep="\n  ")


if __name__ == "__main__":
    main()
