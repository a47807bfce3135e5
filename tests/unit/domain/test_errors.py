from __future__ import annotations

import inspect

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
LEAVES = [kind for kind in ALL if not kind.__subclasses__()]


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda kind: kind.__name__)
def test_a_leaf_says_what_its_caller_can_do_and_where_it_comes_from(
    leaf: type[errors.CouchestorError],
) -> None:
    if leaf is errors.ZoneStateError:
        return  # a programming fault: no caller can do anything about it
    assert issubclass(leaf, CATEGORIES), leaf
    assert leaf.subsystem != "couchestor", leaf


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda kind: kind.__name__)
def test_the_drawn_tree_names_every_leaf(leaf: type[errors.CouchestorError]) -> None:
    drawing = errors.__doc__
    assert drawing is not None
    assert leaf.__name__.removesuffix("Error") in drawing.split()


def test_there_are_at_least_thirty_kinds() -> None:
    assert len(LEAVES) >= 30


def test_context_and_message_are_kept() -> None:
    error = errors.OverloadedError("busy", retry_after_seconds=2.5, queue="commit")
    assert str(error) == "busy"
    assert error.retry_after_seconds == 2.5
    assert error.context == {"queue": "commit"}
