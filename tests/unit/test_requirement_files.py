"""Lists of pinned packages beside each other: what runs a node is in each that runs one."""

from __future__ import annotations

import pathlib
import re

import pytest

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "requirements"


def pinned(name: str) -> dict[str, str]:
    """Package -> version, of one list."""
    text = (FOLDER / f"{name}.txt").read_text()
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", text, re.MULTILINE))


@pytest.mark.parametrize("name", ["dev", "clients"])
def test_whoever_runs_a_node_has_what_it_needs(name: str) -> None:
    needed = pinned("daemon")
    assert {package: pinned(name).get(package) for package in needed} == needed, "run: make lock"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.txt")), ids=lambda path: path.name)
def test_no_list_says_where_packages_come_from(path: pathlib.Path) -> None:
    assert not re.search(r"://|--(extra-)?index-url|--find-links", path.read_text())
