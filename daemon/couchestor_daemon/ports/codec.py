"""Erasure codecs over caller-owned buffers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from couchestor_domain import geometry


class EcCodec(Protocol):
    """A systematic code for one geometry. Thread-safe; releases the GIL for the arithmetic.

    Every buffer of a call has the same length (a multiple of 64 bytes). Coding goes along the
    chunks: the parity of a slice of each of them, from the same multiple of 64 bytes on, is that
    slice of the parity.
    """

    @property
    def codec_id(self) -> int:
        """Recorded in every shard header: codecs with the same id decode each other's shards."""
        ...

    @property
    def geometry(self) -> geometry.StripeGeometry: ...

    def encode(self, data: Sequence[memoryview], parity: Sequence[memoryview]) -> None:
        """Compute the m parity chunks in place from the k data chunks. Raises EcEncodingError."""
        ...

    def reconstruct(
        self, available: Mapping[int, memoryview], missing: Mapping[int, memoryview]
    ) -> None:
        """Fill ``missing`` shards (index -> buffer) from any k of ``available``.

        Raises:
            InsufficientShardsError: fewer shards than the code needs.
            EcReconstructionError: the codec failed.
        """
        ...
