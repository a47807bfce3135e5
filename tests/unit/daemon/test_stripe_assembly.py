"""Buffers and stripes being filled."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest

from couchestor_daemon import buffers
from couchestor_daemon.adapters import isal_codec
from couchestor_daemon.formats import shard
from couchestor_daemon.services import stripe_assembly
from couchestor_domain import errors, geometry, units

SHAPE = geometry.StripeGeometry(4, 2)


class CountingCodec(isal_codec.IsalCodec):
    encodes_count = 0

    def encode(self, data: Sequence[memoryview], parity: Sequence[memoryview]) -> None:
        self.encodes_count += 1
        super().encode(data, parity)


def fill(stripe: stripe_assembly.StripeBuffer, data: bytes) -> None:
    position = 0
    for view in stripe.fill_views():
        view[:] = data[position : position + len(view)]
        position += len(view)
    assert position == len(data)


def seal(stripe: stripe_assembly.StripeBuffer, codec: isal_codec.IsalCodec, group_id: int) -> None:
    stripe.seal(
        codec,
        group_id=group_id,
        stripe_offset_bytes=4096 * group_id,
        writer_epoch=3,
        extent_address=1 << 40,
    )


def test_buffers_are_aligned_reused_and_bounded() -> None:
    pool = buffers.BufferPool(64 * units.KIB)
    first = pool.acquire(5000)
    address = np.frombuffer(first.view, np.uint8).__array_interface__["data"][0]
    assert address % units.BLOCK_BYTES == 0
    assert len(first.view) >= 5000
    second = pool.try_acquire(50_000)
    assert second is not None
    assert pool.try_acquire(5000) is None
    with pytest.raises(errors.OverloadedError):
        pool.acquire(5000)
    first.release()
    first.release()
    with pool.acquire(5000) as again:
        assert np.frombuffer(again.view, np.uint8).__array_interface__["data"][0] == address
    second.release()
    assert pool.lent_bytes == 0


def test_kept_buffers_make_room_for_other_sizes() -> None:
    pool = buffers.BufferPool(64 * units.KIB)
    for buffer in [pool.acquire(8192) for _ in range(8)]:
        buffer.release()
    with pool.acquire(64 * units.KIB):
        assert pool.lent_bytes == 64 * units.KIB


@pytest.mark.parametrize("size", [1, 4096, 4097, 40_000, 100_000, 6 * units.MIB + 24_576])
def test_size_classes_waste_little(size: int) -> None:
    found = buffers.size_class_bytes(size)
    assert found >= size
    assert found % units.BLOCK_BYTES == 0
    if size >= 32 * units.KIB:
        assert found <= size * 1.26


@pytest.mark.parametrize("data_bytes", [1, 4096, 16_385, 70_000, 300_000])
def test_sealed_shards_verify_and_hold_the_data(data_bytes: int) -> None:
    pool = buffers.BufferPool(8 * units.MIB)
    stale = pool.acquire(1 * units.MIB)
    stale.view[:] = b"\xee" * len(stale.view)
    stale.release()
    stripe = stripe_assembly.StripeBuffer(pool, SHAPE, data_bytes)
    data = random.Random(data_bytes).randbytes(data_bytes)
    fill(stripe, data)
    seal(stripe, CountingCodec(SHAPE), 7)
    chunks = []
    for index in range(SHAPE.shards_count):
        view = stripe.shard(index)
        assert len(view) == stripe.shard_bytes == shard.shard_bytes(stripe.chunk_bytes)
        header = shard.unpack(view)
        assert header is not None
        assert header[:6] == (7, 4096 * 7, 3, 1 << 40, data_bytes, stripe.chunk_bytes)
        assert header[7:11] == (index, 4, 2, isal_codec.CODEC_ID)
        assert shard.verify_blocks(header, 0, view[stripe.header_bytes :])
        chunks.append(bytes(stripe.chunk(index)))
    joined = b"".join(chunks[:4])
    assert joined[:data_bytes] == data
    assert not any(joined[data_bytes:])
    stripe.release()
    stripe.release()
    assert pool.lent_bytes == 0


def test_stale_bytes_of_a_recycled_buffer_never_reach_the_medium() -> None:
    pool = buffers.BufferPool(1 * units.MIB)
    size = stripe_assembly.StripeBuffer(pool, SHAPE, 5000)
    size._view[:] = b"\xee" * len(size._view)
    size.release()
    stripe = stripe_assembly.StripeBuffer(pool, SHAPE, 5000)
    fill(stripe, bytes(5000))
    seal(stripe, CountingCodec(SHAPE), 1)
    written = b"".join(stripe.shard(index) for index in range(SHAPE.shards_count))
    assert b"\xee\xee\xee\xee" not in written
    stripe.release()


def test_sealing_again_moves_the_stripe_without_encoding() -> None:
    pool = buffers.BufferPool(1 * units.MIB)
    codec = CountingCodec(SHAPE)
    stripe = stripe_assembly.StripeBuffer(pool, SHAPE, 50_000)
    fill(stripe, random.Random(1).randbytes(50_000))
    seal(stripe, codec, 1)
    before = [bytes(stripe.chunk(index)) for index in range(6)]
    seal(stripe, codec, 2)
    assert codec.encodes_count == 1
    assert [bytes(stripe.chunk(index)) for index in range(6)] == before
    header = shard.unpack(stripe.shard(5))
    assert header is not None
    assert (header.group_id, header.stripe_offset_bytes) == (2, 8192)
    assert shard.verify_blocks(header, 0, stripe.chunk(5))
    stripe.release()


@pytest.mark.parametrize("data_bytes", [0, -1, units.GIB])
def test_impossible_stripes_are_refused(data_bytes: int) -> None:
    pool = buffers.BufferPool(1 * units.MIB)
    with pytest.raises(errors.InvalidEcConfigurationError):
        stripe_assembly.StripeBuffer(pool, SHAPE, data_bytes)
    assert pool.lent_bytes == 0
