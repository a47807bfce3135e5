"""What the maintenance process does beside the requests: works that are called again and again."""

from __future__ import annotations

from typing import Protocol


class BackgroundWork(Protocol):
    """One kind of background work.

    It runs on the event loop beside the others, so it neither blocks nor keeps threads of its own.
    """

    @property
    def name(self) -> str:
        """For logs and metrics, e.g. ``release``."""
        ...

    async def step(self) -> float:
        """Do a bounded amount of work: a few stripes, a few seconds at most.

        Cancellation: at any await, and leaves nothing wrong.

        Returns:
            Seconds until it is worth calling again; 0.0: there is more to do now.

        Raises:
            CouchestorError: it cannot go on now; called again after a while.
        """
        ...
