"""What rebuild and scrub work with, built once by the wiring."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from couchestor_daemon import buffers
from couchestor_daemon.ports import codec as codec_port
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.ports import media as media_port
from couchestor_domain import geometry

RunBlocking = Callable[..., Awaitable[Any]]
Pace = Callable[[int], Awaitable[None]]
Codecs = Callable[[geometry.StripeGeometry, int], codec_port.EcCodec]
"""Codec of a geometry and codec id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """Ports, memory and threads of the maintenance process."""

    index: index_port.IndexStore
    media: media_port.Media
    pool: buffers.BufferPool
    codecs: Codecs
    run_codec: RunBlocking
    """Runs CPU-heavy work on the codec pool."""
    run_blocking: RunBlocking
    """Runs device commands that are not in the media port."""
    pace: Pace
    """Awaited with the number of bytes before as many are read or written."""

    def acquire(self, size_bytes: int) -> buffers.AlignedBuffer:
        """Memory from the pool; of its own for a stripe longer than settings make them now.

        Raises:
            OverloadedError: the pool's limit is reached.
        """
        class_bytes = buffers.size_class_bytes(size_bytes)
        if class_bytes > self.pool.limit_bytes:
            return buffers.BufferPool(class_bytes).acquire(size_bytes)
        return self.pool.acquire(size_bytes)

    def acquire_beside(self, size_bytes: int, *, first_bytes: int) -> buffers.AlignedBuffer | None:
        """Memory for a piece of work that need not begin yet, because others of its kind are under
        way; None unless somebody else can still ``acquire`` ``first_bytes``.

        So the works that share the pool never keep one another from going on: each takes memory for
        its first piece when it holds none, waits for none while it holds some, and takes what it
        could do without only while that leaves room for the first piece of another.
        """
        return self.pool.try_acquire(size_bytes, leave_bytes=buffers.size_class_bytes(first_bytes))
