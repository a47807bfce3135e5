"""The shard header."""

from __future__ import annotations

import pathlib
import struct

import pytest

from couchestor_daemon.formats import frame, shard
from couchestor_domain import units

GOLDEN = pathlib.Path(__file__).parents[2] / "golden" / "shard_header_v1.hex"
CHUNK = bytes(i * 7 % 251 for i in range(36 * units.KIB))


def sample() -> shard.ShardHeader:
    return shard.ShardHeader(
        group_id=0x0102030405060708,
        stripe_offset_bytes=0x11000,
        writer_epoch=9,
        extent_address=0xA0B0C0D0E0F0,
        data_bytes=140_000,
        chunk_bytes=len(CHUNK),
        checksum_block_bytes=shard.CHECKSUM_BLOCK_BYTES,
        shard_index=5,
        data_shards=4,
        parity_shards=2,
        codec_id=1,
        checksums=shard.checksums(memoryview(CHUNK)),
    )


def test_golden_bytes() -> None:
    packed = shard.pack(sample())
    meaningful = packed.rstrip(b"\0")
    assert meaningful.hex() == GOLDEN.read_text().replace("\n", "")
    assert shard.unpack(memoryview(packed)) == sample()


def test_header_length_is_padded_and_grows_with_the_chunk() -> None:
    assert len(shard.pack(sample())) == shard.header_bytes(len(CHUNK)) == 4096
    assert shard.header_bytes(0) == 4096
    one_block = (4096 - frame.FRAME_BYTES - shard.FIXED.size) // 8 * shard.CHECKSUM_BLOCK_BYTES
    assert shard.header_bytes(one_block) == 4096
    assert shard.header_bytes(one_block + 1) == 8192


def test_every_flipped_byte_is_noticed() -> None:
    packed = bytearray(shard.pack(sample()))
    end = len(bytes(packed).rstrip(b"\0"))
    for place in range(end):
        packed[place] ^= 0x10
        assert shard.unpack(memoryview(packed)) is None, place
        packed[place] ^= 0x10


@pytest.mark.parametrize("length", [0, 8, 23, 24, 60, 95])
def test_truncated_headers_are_none(length: int) -> None:
    assert shard.unpack(memoryview(shard.pack(sample())[:length])) is None


def test_well_framed_nonsense_is_none() -> None:
    fixed = shard.FIXED.pack(*sample()[:-1])
    three = struct.pack("<3Q", 1, 2, 3)
    for version, payload in (
        (2, fixed + three),
        (1, fixed[:-1]),
        (1, fixed + three + bytes(8)),
        (1, fixed + three[:-8]),
        (1, shard.FIXED.pack(*sample()._replace(checksum_block_bytes=0)[:-1]) + three),
    ):
        packed = frame.pack(shard.MAGIC, version=version, payload=payload)
        assert shard.unpack(memoryview(packed)) is None
    whole = frame.pack(shard.MAGIC, version=1, payload=fixed + three)
    assert shard.unpack(memoryview(whole)) is not None


def test_blocks_verify_from_any_block_and_only_whole() -> None:
    header = sample()
    view = memoryview(CHUNK)
    block = shard.CHECKSUM_BLOCK_BYTES
    assert shard.verify_blocks(header, 0, view)
    assert shard.verify_blocks(header, 1, view[block:])
    assert shard.verify_blocks(header, 1, view[block : 2 * block])
    assert shard.verify_blocks(header, 2, view[2 * block :])
    assert not shard.verify_blocks(header, 0, view[block:])
    assert not shard.verify_blocks(header, 1, view[block : block + 4096])
    assert not shard.verify_blocks(header, 3, view[:block])
    assert not shard.verify_blocks(header, 0, view[:0])
    for place in (0, block - 1, block, len(CHUNK) - 1):
        harmed = bytearray(CHUNK)
        harmed[place] ^= 1
        assert not shard.verify_blocks(header, 0, memoryview(harmed)), place
