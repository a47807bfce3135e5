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
