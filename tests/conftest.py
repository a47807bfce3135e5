"""What holds for every test: no blocking call on an event loop, and no flaky deadline."""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis
import pytest
from blockbuster import blockbuster_ctx

# Deadlines measure the machine, not the code: pytest-timeout ends what hangs.
hypothesis.settings.register_profile("couchestor", deadline=None)
hypothesis.settings.load_profile("couchestor")


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
