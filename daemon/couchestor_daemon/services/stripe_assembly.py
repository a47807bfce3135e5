"""A stripe in memory, laid out as it will lie on media: user bytes go straight into place."""

from __future__ import annotations

from couchestor_daemon import buffers
from couchestor_daemon.formats import shard
from couchestor_daemon.ports import codec as codec_port
from couchestor_domain import errors, geometry, units


def memory_bytes(shape: geometry.StripeGeometry, data_bytes: int) -> int:
    """What a stripe of ``data_bytes`` user bytes takes of a pool while it is in memory."""
    return buffers.size_class_bytes(
        shard.shard_bytes(shape.chunk_bytes(data_bytes)) * shape.shards_count
    )


class StripeBuffer:
    """k + m contiguous shards, each header and chunk, in one aligned buffer.

    Owned by one task at a time. Fill the data views, seal, write the shards, release.

    Args:
        pool: Lends the buffer until ``release``.
        shape: k and m.
        data_bytes: User bytes of the stripe, from 1.

    Raises:
        OverloadedError: the pool is exhausted.
        InvalidEcConfigurationError: the stripe is empty or its shards too long for the format.
    """

    def __init__(
        self, pool: buffers.BufferPool, shape: geometry.StripeGeometry, data_bytes: int
    ) -> None:
        if not 0 < data_bytes < units.GIB:
            raise errors.InvalidEcConfigurationError(
                f"a stripe of {data_bytes} bytes cannot be: from 1 byte to below 1 GiB"
            )
        self.geometry = shape
        self.data_bytes = data_bytes
        self.chunk_bytes = shape.chunk_bytes(data_bytes)
        self.header_bytes = shard.header_bytes(self.chunk_bytes)
        self.shard_bytes = self.header_bytes + self.chunk_bytes
        self._buffer = pool.acquire(self.shard_bytes * shape.shards_count)
        self._view = self._buffer.view
        self._checksums: tuple[tuple[int, ...], ...] = ()
        self._codec_id = 0

    def shard(self, index: int) -> memoryview:
        """Shard ``index``, ``shard_bytes`` long, aligned for direct I/O. Whole after ``seal``."""
        return self._view[index * self.shard_bytes : (index + 1) * self.shard_bytes]

    def chunk(self, index: int) -> memoryview:
        """The chunk of shard ``index``, ``chunk_bytes`` long."""
        return self.shard(index)[self.header_bytes :]

    def fill_views(self) -> tuple[memoryview, ...]:
        """The k data chunks in user-byte order, cut to ``data_bytes`` in all; the last ones may be
        empty. Write them before the first ``seal``, only read them afterwards.
        """
        views = []
        left = self.data_bytes
        for index in range(self.geometry.data_shards):
            taken = min(left, self.chunk_bytes)
            views.append(self.chunk(index)[:taken])
            left -= taken
        return tuple(views)

    def seal(
        self,
        codec: codec_port.EcCodec,
        *,
        group_id: int,
        stripe_offset_bytes: int,
        writer_epoch: int,
        extent_address: int,
    ) -> None:
        """Pad, encode, checksum and write the headers. CPU only: run it on the codec pool.

        Sealing again, for another group or offset, rewrites only the headers.

        Raises:
            EcEncodingError: the codec failed; nothing is sealed.
        """
        assert codec.geometry == self.geometry, (codec.geometry, self.geometry)
        if self._codec_id != codec.codec_id:
            self._encode(codec)
        for index, block_checksums in enumerate(self._checksums):
            self.shard(index)[: self.header_bytes] = shard.pack(
                shard.ShardHeader(
                    group_id=group_id,
                    stripe_offset_bytes=stripe_offset_bytes,
                    writer_epoch=writer_epoch,
                    extent_address=extent_address,
                    data_bytes=self.data_bytes,
                    chunk_bytes=self.chunk_bytes,
                    checksum_block_bytes=shard.CHECKSUM_BLOCK_BYTES,
                    shard_index=index,
                    data_shards=self.geometry.data_shards,
                    parity_shards=self.geometry.parity_shards,
                    codec_id=codec.codec_id,
                    checksums=block_checksums,
                )
            )

    def _encode(self, codec: codec_port.EcCodec) -> None:
        chunks = [self.chunk(index) for index in range(self.geometry.shards_count)]
        data_shards = self.geometry.data_shards
        for chunk, filled in zip(chunks[:data_shards], self.fill_views(), strict=True):
            # The buffer is recycled: what another request left must not reach the medium.
            if len(filled) < len(chunk):
                chunk[len(filled) :] = bytes(len(chunk) - len(filled))
        codec.encode(chunks[:data_shards], chunks[data_shards:])
        self._checksums = tuple(shard.checksums(chunk) for chunk in chunks)
        self._codec_id = codec.codec_id

    def release(self) -> None:
        """Give the buffer back; idempotent. No view of it may be used afterwards."""
        self._view = memoryview(b"")
        self._buffer.release()
