"""Hashing of bodies together with others that are received at the same time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol


class Ending(Protocol):
    """Of work that goes on elsewhere."""

    async def wait(self) -> None:
        """Return once it has ended, and cancelled no earlier: memory was lent to it."""
        ...


class SharedMd5(Protocol):
    """MD5 (RFC 1321) of one message. Of the calls that change it one must end before the next."""

    def begin(self, views: Sequence[memoryview]) -> Ending:
        """Take the next bytes, elsewhere; they must stay what they are until it has ended."""
        ...

    def update(self, view: bytes | memoryview, /) -> None:
        """Take the next bytes at once."""
        ...

    def digest(self) -> bytes:
        """Of all bytes so far, 16 bytes."""
        ...


NewSharedMd5 = Callable[[], SharedMd5]
