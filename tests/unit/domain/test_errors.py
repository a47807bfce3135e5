from __future__ import annotations

import inspect
import re

import pytest

from couchestor_domain import errors

CATEGORIES = (
    errors.ClientError,
    errors.TransientError,
    errors.CapacityError,
    errors.IntegrityError,
    errors.UnavailableError,
)
ALL = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, errors.CouchestorError) and kind is not errors.CouchestorError
]
SUBSYSTEMS = [
    kind for kind in ALL if errors.CouchestorError in kind.__bases__ and kind not in CATEGORIES
]
LEAVES = [kind for kind in ALL if kind not in CATEGORIES and kind not in SUBSYSTEMS]

PROGRAMMING_FAULTS = {errors.ZoneStateError}
"""Nothing a caller could do about them, so they have no category."""


def drawn_tree() -> dict[str, set[str]]:
    """Subsystem class -> leaf names without ``Error``, as the module's docstring draws them."""
    drawing = errors.__doc__
    assert drawing is not None
    _, _, tree = drawing.partition("\nCouchestorError\n")
    tree, _, _ = tree.partition("\n\n")
    found: dict[str, set[str]] = {}
    current: set[str] = set()
    for line in tree.splitlines():
        if start := re.match(r"[|`]-- (\w+)\s+(.*)", line):
            current = found.setdefault(start[1], set())
            current.update(start[2].split())
        else:
            current.update(line.lstrip("| ").split())
    return found


def subsystem_of(leaf: type[errors.CouchestorError]) -> type[errors.CouchestorError]:
    return next(kind for kind in leaf.__mro__ if kind in SUBSYSTEMS)


@pytest.mark.parametrize(
    "leaf",
    [leaf for leaf in LEAVES if leaf not in PROGRAMMING_FAULTS],
    ids=lambda leaf: leaf.__name__,
)
def test_a_leaf_says_what_its_caller_can_do(leaf: type[errors.CouchestorError]) -> None:
    assert issubclass(leaf, CATEGORIES), leaf


def test_the_drawn_tree_is_the_tree_of_classes() -> None:
    classes: dict[str, set[str]] = {kind.__name__: set() for kind in SUBSYSTEMS}
    for leaf in LEAVES:
        classes[subsystem_of(leaf).__name__].add(leaf.__name__.removesuffix("Error"))
    # The root of compression is named apart from its leaf CompressionError.
    classes["CompressionError"] = classes.pop("CompressionFailureError")
    assert drawn_tree() == classes


def test_every_subsystem_has_its_own_name() -> None:
    names = [kind.subsystem for kind in SUBSYSTEMS]
    assert len(set(names)) == len(names)
    assert errors.CouchestorError.subsystem not in names


def test_every_error_ends_in_error_and_is_documented() -> None:
    for kind in ALL:
        assert kind.__name__.endswith("Error"), kind
        assert vars(kind).get("__doc__"), kind


def test_a_transient_error_says_when_to_come_back() -> None:
    assert errors.OverloadedError("busy").retry_after_seconds > 0


def test_context_and_message_are_kept() -> None:
    error = errors.OverloadedError("busy", retry_after_seconds=2.5, queue="commit")
    assert str(error) == "busy"
    assert error.retry_after_seconds == 2.5
    assert error.context == {"queue": "commit"}
