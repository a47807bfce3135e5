"""What holds for every test: no blocking call on an event loop, and no flaky deadline."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Final

import hypothesis
import pytest
from blockbuster import blockbuster_ctx

# Deadlines measure the machine, not the code: pytest-timeout ends what hangs.
hypothesis.settings.register_profile("couchestor", deadline=None)
hypothesis.settings.load_profile("couchestor")


_SLOWEST_FOLDERS: Final = ("crash", "simulation", "functional")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that none of them is left alone at the end.

    pytest-xdist would begin with those of most tests (``--no-loadscope-reorder`` stops that).
    """
    here = pathlib.Path(__file__).parent

    def rank(item: pytest.Item) -> int:
        folder = item.path.relative_to(here).parts[0]
        return _SLOWEST_FOLDERS.index(folder) if folder in _SLOWEST_FOLDERS else 9

    items.sort(key=rank)


@pytest.fixture(autouse=True)
def _no_blocking_call_on_the_loop(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test in which our own code blocks a running event loop.

    Only calls made by the product count: a test may read a file between two awaits.
    ``@pytest.mark.may_block`` turns it off where blocking on the loop is what a test is about.
    """
    if request.node.get_closest_marker("may_block") is not None:
        yield
        return
    with blockbuster_ctx(["couchestor_daemon", "couchestor_gateway", "couchestor_operator"]):
        yield
