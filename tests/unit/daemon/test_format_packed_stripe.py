"""The table of a packed stripe."""

from __future__ import annotations

import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from couchestor_daemon.formats import frame, packed_stripe
from couchestor_domain import units

GOLDEN = pathlib.Path(__file__).parents[2] / "golden" / "packed_stripe_v1.hex"
ENTRIES = (
    packed_stripe.Entry(0x0102030405060708, 4096, 4096, 4096, False),
    packed_stripe.Entry(0x0A0B0C0D, 8192, 700, 5000, True),
    packed_stripe.Entry(1 << 20, 8896, 0, 0, False),
)
DATA_BYTES = 8896


def laid_out(lengths: list[tuple[int, int, bool]]) -> tuple[tuple[packed_stripe.Entry, ...], int]:
    """Entries of these stored lengths and savings, and the data bytes of their stripe."""
    position = packed_stripe.table_bytes(len(lengths))
    entries = []
    for number, (stored, saved, is_lz4) in enumerate(lengths):
        logical = stored + saved if is_lz4 else stored
        entries.append(packed_stripe.Entry(number * 977, position, stored, logical, is_lz4))
        position += packed_stripe.payload_bytes(stored)
    return tuple(entries), position


lengths = st.lists(
    st.tuples(st.integers(1, 5000), st.integers(1, 5000), st.booleans()), min_size=1, max_size=300
)


def test_golden_bytes() -> None:
    packed = packed_stripe.pack(ENTRIES)
    assert len(packed) == units.BLOCK_BYTES
    assert packed.rstrip(b"\0").hex() == GOLDEN.read_text().replace("\n", "")
    view = memoryview(packed)
    assert packed_stripe.unpack(view, data_bytes=DATA_BYTES) == ENTRIES


@given(lengths)
def test_a_table_reads_back_as_written(found: list[tuple[int, int, bool]]) -> None:
    entries, data_bytes = laid_out(found)
    packed = memoryview(packed_stripe.pack(entries))
    assert len(packed) == packed_stripe.table_bytes(len(entries))
    assert packed_stripe.announced_bytes(packed[: units.BLOCK_BYTES]) == len(packed)
    assert packed_stripe.unpack(packed, data_bytes=data_bytes) == entries
    assert all(entry.start_bytes % packed_stripe.PAYLOAD_ALIGNMENT_BYTES == 0 for entry in entries)


@given(lengths, st.data())
def test_a_damaged_or_cut_table_is_refused(
    found: list[tuple[int, int, bool]], data: st.DataObject
) -> None:
    entries, data_bytes = laid_out(found)
    packed = bytearray(packed_stripe.pack(entries))
    meaningful = frame.FRAME_BYTES + packed_stripe.ENTRY.size * len(entries)
    cut = data.draw(st.integers(0, meaningful - 1))
    assert packed_stripe.unpack(memoryview(packed)[:cut], data_bytes=data_bytes) is None
    packed[data.draw(st.integers(0, meaningful - 1))] ^= data.draw(st.integers(1, 255))
    assert packed_stripe.unpack(memoryview(packed), data_bytes=data_bytes) is None


@pytest.mark.parametrize(
    ("number", "change"),
    [
        (0, {"start_bytes": 4088}),
        (1, {"start_bytes": 8184}),
        (1, {"stored_bytes": 705}),
        (1, {"stored_bytes": 0}),
        (1, {"stored_bytes": 5000}),
        (2, {"start_bytes": 8904}),
        (0, {"logical_bytes": 4097}),
        (0, {"logical_bytes": 4095}),
    ],
)
def test_entries_that_cannot_be_are_refused(number: int, change: dict[str, int]) -> None:
    entries = list(ENTRIES)
    entries[number] = entries[number]._replace(**change)  # type: ignore[arg-type]
    packed = memoryview(packed_stripe.pack(entries))
    assert packed_stripe.unpack(packed, data_bytes=DATA_BYTES) is None


def test_other_versions_flags_and_too_many_entries_are_refused() -> None:
    payload = bytes(packed_stripe.pack(ENTRIES))[frame.FRAME_BYTES :][:72]
    for version, flags, body in (
        (2, 0, payload),
        (1, 1, payload),
        (1, 0, payload[:-1]),
        (1, 0, b""),
        (1, 0, payload[:-4] + b"\2\0\0\0"),
        (1, 0, packed_stripe.ENTRY.pack(1, 1 << 20, 0, 0, 0) * 4097),
    ):
        packed = frame.pack(packed_stripe.MAGIC, version=version, payload=body, flags=flags)
        assert packed_stripe.unpack(memoryview(packed), data_bytes=1 << 21) is None
    huge = frame.PREFIX.pack(packed_stripe.MAGIC, 1, 0, 1 << 31).ljust(units.BLOCK_BYTES, b"\0")
    assert packed_stripe.announced_bytes(memoryview(huge)) == 0
    assert packed_stripe.announced_bytes(memoryview(bytes(4096))) == 0
