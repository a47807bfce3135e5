"""Where notices go."""

from __future__ import annotations

from typing import Protocol


class NoticeTarget(Protocol):
    """Something that takes notices."""

    async def deliver(self, message: bytes) -> str:
        """Hand a message over.

        Cancellation: at any time; the target may have taken the message nevertheless.

        Returns:
            Empty once the target has answered that it has the message; else why it has not, in
            words for people that tell no secrets of the target's address.
        """
        ...
