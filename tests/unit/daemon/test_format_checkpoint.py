"""Blocks of a checkpoint image."""

from __future__ import annotations

import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from couchestor_daemon.formats import checkpoint, zone_header
from couchestor_domain import ids, units

GOLDEN = pathlib.Path(__file__).parents[2] / "golden" / "checkpoint_v1.hex"
SEED = 0x1122334455667788
HEADER = checkpoint.BlockHeader(0x0102030405060708, 0x0A0B0C0D, 3, 1)


def packed(content: bytes, *, is_end: bool = False) -> memoryview:
    out = memoryview(bytearray(b"\xee" * checkpoint.BLOCK_BYTES_MAX))
    total = checkpoint.pack_into(out, HEADER, content, seed=SEED, is_end=is_end)
    return out[:total]


def test_golden_bytes() -> None:
    entries = packed(checkpoint.pack_entry(b"key", b"value") + checkpoint.pack_entry(b"k2", b""))
    end = packed(checkpoint.TOTALS.pack(2, 22, 0x99), is_end=True)
    lines = [bytes(block).rstrip(b"\0").hex() for block in (entries, end)]
    assert lines == GOLDEN.read_text().split()
    for block, is_end in ((entries, False), (end, True)):
        assert len(block) == units.BLOCK_BYTES
        found = checkpoint.unpack(block, seed=SEED)
        assert found is not None
        assert (found.header, found.is_end, found.total_bytes) == (HEADER, is_end, 4096)
    found = checkpoint.unpack(end, seed=SEED)
    assert found is not None
    assert checkpoint.unpack_totals(found.content) == (2, 22, 0x99)


@pytest.mark.parametrize("offset", [0, 8, 10, 16, 24, 40, 44, 48, 55])
def test_a_changed_byte_or_another_seed_is_no_block(offset: int) -> None:
    block = packed(checkpoint.pack_entry(b"key", b"value"))
    assert checkpoint.unpack(block, seed=SEED + 1) is None
    block[offset] ^= 1
    assert checkpoint.unpack(block, seed=SEED) is None


@given(
    st.lists(st.tuples(st.binary(min_size=1, max_size=40), st.binary(max_size=90))),
    st.integers(1, 50),
)
def test_entries_survive_any_cut(entries: list[tuple[bytes, bytes]], piece_bytes: int) -> None:
    stream = b"".join(checkpoint.pack_entry(key, value) for key, value in entries)
    parser = checkpoint.EntryParser()
    found = [
        entry
        for start in range(0, len(stream), piece_bytes)
        for entry in parser.feed(memoryview(stream)[start : start + piece_bytes])
    ]
    assert found == entries
    assert parser.rest_bytes == 0


def test_a_zone_of_a_role_this_version_does_not_know_is_not_read() -> None:
    member = ids.ZoneAddress(ids.DeviceId("0" * 32), ids.ZoneIndex(1))
    header = zone_header.ZoneHeader(zone_header.ZoneRole.CHECKPOINT, 0, 0, 0, 7, SEED, (member,))
    assert zone_header.unpack(memoryview(zone_header.pack(header))) == header
    later = header._replace(role=9)  # type: ignore[arg-type]
    assert zone_header.unpack(memoryview(zone_header.pack(later))) is None
    left = header._replace(role=int(zone_header.ZoneRole.LEFT))  # type: ignore[arg-type]
    assert zone_header.unpack(memoryview(zone_header.pack(left))) is None
