from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from couchestor_domain import errors, geometry, units

shards = st.tuples(st.integers(1, 20), st.integers(1, 12))


@given(shards, st.integers(0, 1 << 24))
def test_chunks_hold_the_data_and_are_aligned(shape: tuple[int, int], data_bytes: int) -> None:
    found = geometry.StripeGeometry(*shape)
    chunk_bytes = found.chunk_bytes(data_bytes)
    assert chunk_bytes % units.BLOCK_BYTES == 0
    assert chunk_bytes * found.data_shards >= data_bytes
    assert (chunk_bytes - units.BLOCK_BYTES) * found.data_shards < max(data_bytes, 1)


@given(shards, st.integers(1, 64), st.data())
def test_chunk_ranges_cover_exactly_the_range(
    shape: tuple[int, int], chunk_blocks: int, data: st.DataObject
) -> None:
    found = geometry.StripeGeometry(*shape)
    chunk_bytes = chunk_blocks * units.BLOCK_BYTES
    total = chunk_bytes * found.data_shards
    start = data.draw(st.integers(0, total))
    length = data.draw(st.integers(0, total - start))
    position = start
    for piece in found.chunk_ranges(
        chunk_bytes=chunk_bytes, start_bytes=start, length_bytes=length
    ):
        assert piece.shard_index * chunk_bytes + piece.start_bytes == position
        assert 0 < piece.length_bytes <= chunk_bytes - piece.start_bytes
        position += piece.length_bytes
    assert position == start + length


@pytest.mark.parametrize("shape", [(0, 2), (4, 0), (30, 3), (-1, 2)])
def test_impossible_geometries_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(errors.InvalidEcConfigurationError, match="not a usable coding"):
        geometry.StripeGeometry(*shape)


@pytest.mark.parametrize(
    ("healthy", "expected"),
    [(6, "4+2"), (7, "4+2"), (5, "3+2"), (4, "2+2"), (3, "1+2"), (2, None), (0, None)],
)
def test_fewer_devices_give_up_data_shards_never_parity(healthy: int, expected: str | None) -> None:
    found = geometry.shrink_to_healthy(geometry.StripeGeometry(4, 2), healthy)
    assert (None if found is None else str(found)) == expected
