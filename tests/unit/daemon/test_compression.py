"""What is stored compressed, and that it reads back."""

from __future__ import annotations

import json
import random

import pytest
import space_node
from hypothesis import given
from hypothesis import strategies as st

from couchestor_daemon.formats import l2p_record
from couchestor_daemon.services import compression, group_source
from couchestor_domain import errors, ids, objects

RNG = random.Random(1)


def text(size_bytes: int) -> bytes:
    """Like a log in JSON."""
    lines: list[bytes] = []
    while sum(map(len, lines)) < size_bytes:
        lines.append(json.dumps({"at": RNG.random(), "level": "info", "said": "hello"}).encode())
    return b"\n".join(lines)[:size_bytes]


def policy(saving_percent: int = 30) -> compression.Compression:
    return compression.Compression(saving_percent=saving_percent)


@pytest.mark.parametrize("size_bytes", [256, 1000, 4096, 100_000, 256 * 1024])
def test_what_saves_is_kept_and_reads_back(size_bytes: int) -> None:
    found = policy()
    payload = text(size_bytes)
    block = found.compressed(memoryview(payload))
    assert block is not None
    assert len(block) <= 0.7 * size_bytes
    assert compression.decompressed(memoryview(block), length_bytes=size_bytes) == payload
    assert found.counters == compression.CompressionCounters(
        tried_count=1, kept_count=1, saved_bytes=size_bytes - len(block)
    )


@pytest.mark.parametrize(
    "payload",
    [RNG.randbytes(16 * 1024), RNG.randbytes(99_999), b"a" * 255, b"a" * (256 * 1024 + 1), b"x"],
    ids=["random", "long-random", "short", "long", "one"],
)
def test_what_promises_nothing_is_not_tried(payload: bytes) -> None:
    found = policy()
    assert found.compressed(memoryview(payload)) is None
    assert found.counters == compression.CompressionCounters(skipped_count=1)


def test_what_saves_too_little_is_not_kept() -> None:
    found = policy(50)
    payload = text(1200) + RNG.randbytes(2800)
    assert found.compressed(memoryview(payload)) is None
    assert found.compressed(memoryview(RNG.randbytes(4096))) is None
    assert found.counters == compression.CompressionCounters(tried_count=2)
    assert policy(5).compressed(memoryview(payload)) is not None
    assert policy(101).compressed(memoryview(text(4096))) is None


def test_the_entropy_of_samples() -> None:
    assert compression.entropy_bits(memoryview(b"a" * 1024)) == 0
    assert compression.entropy_bits(memoryview(bytes(range(256)))) > 8
    assert 7.8 < compression.entropy_bits(memoryview(RNG.randbytes(1024))) < 8.2
    assert 7.5 < compression.entropy_bits(memoryview(RNG.randbytes(256))) < 8.7
    assert 3 < compression.entropy_bits(memoryview(text(1024))) < 6


@given(st.binary(max_size=200), st.integers(1, 5000))
def test_what_is_no_block_of_that_length_is_refused(block: bytes, length_bytes: int) -> None:
    try:
        found = compression.decompressed(memoryview(block), length_bytes=length_bytes)
    except errors.DecompressionError:
        return
    assert len(found) == length_bytes


async def loaded() -> tuple[space_node.SpaceNode, dict[str, bytes]]:
    node = space_node.SpaceNode()
    await node.create_bucket()
    expected = {
        f"k{number:03}": RNG.choice([text, RNG.randbytes])(RNG.choice([100, 4096, 30_000]))
        for number in range(80)
    }
    for key, data in expected.items():
        await node.put(key, data)
    return node, expected


async def move_all(node: space_node.SpaceNode) -> None:
    left = node.entries()
    while left:
        left = left[(await node.relocation.move(left)).taken_count :]


async def check(node: space_node.SpaceNode, expected: dict[str, bytes]) -> None:
    for key, data in expected.items():
        assert await node.get(key) == data
        record = await node.store.get_object(bucket=space_node.BUCKET, key=key)
        start = RNG.randrange(len(data))
        length = RNG.randrange(1, len(data) - start + 1)
        part = await node.store.fetch(record, start_bytes=start, length_bytes=length)
        assert part == data[start : start + length]
    node.check_live_bytes()
    assert node.pool.lent_bytes == 0


def blocks(node: space_node.SpaceNode) -> dict[int, l2p_record.Lz4Location]:
    return {
        address: location
        for address, location in node.entries()
        if isinstance(location, l2p_record.Lz4Location)
    }


async def test_compressed_objects_are_read_whole_and_in_parts_and_move_as_they_are() -> None:
    node, expected = await loaded()
    await move_all(node)
    counters = node.compression.counters
    assert counters.kept_count == len(blocks(node)) > 20
    assert counters.skipped_count > 20
    assert counters.tried_count > counters.kept_count
    stored = sum(found.stored_bytes for found in blocks(node).values())
    assert sum(found.length_bytes for found in blocks(node).values()) - stored == (
        counters.saved_bytes
    )
    await check(node, expected)
    first = blocks(node)
    kept_count = counters.kept_count
    await move_all(node)
    second = blocks(node)
    assert second.keys() == first.keys()
    assert all(
        second[address] != found and second[address].stored_bytes == found.stored_bytes
        for address, found in first.items()
    )
    assert counters.kept_count == kept_count
    await check(node, expected)
    for number in (0, 3):
        node.media.remove(ids.DeviceId(f"{number:032x}"))
    await check(node, expected)


async def test_a_walk_of_the_group_finds_compressed_extents() -> None:
    node, expected = await loaded()
    await move_all(node)
    found = []
    for record in node.group_records():
        source = group_source.GroupSource(
            record,
            index=node.index,
            media=node.media,
            stripes=node.stripes,
            run_blocking=node.run,
            pace=node.pace,
        )
        found += [entry async for entries in source.entries() for entry in entries]
    assert sorted(found) == sorted(node.entries())
    for key in expected:
        await node.delete(key)
    node.check_live_bytes()
    assert all(node.live_bytes(record.group_id) == 0 for record in node.group_records())


async def test_one_compressed_extent_alone_is_found_by_its_table_too() -> None:
    node = space_node.SpaceNode()
    await node.create_bucket()
    body = text(20_000)
    await node.put("alone", body)
    await move_all(node)
    (location,) = blocks(node).values()
    assert location.start_bytes == 4096
    await check(node, {"alone": body})
    (record,) = node.group_records()
    source = group_source.GroupSource(
        record,
        index=node.index,
        media=node.media,
        stripes=node.stripes,
        run_blocking=node.run,
        pace=node.pace,
    )
    assert [entries async for entries in source.entries()] == [node.entries()]


async def test_a_block_that_does_not_decompress_is_an_error_of_integrity() -> None:
    node = space_node.SpaceNode()
    await node.create_bucket()
    await node.put("k", text(20_000))
    await move_all(node)
    ((address, location),) = blocks(node).items()
    with node.index.write() as txn:
        wrong = location._replace(stored_bytes=location.stored_bytes - 8)
        txn.put(l2p_record.key(ids.ExtentAddress(address)), l2p_record.pack(wrong))
        txn.commit()
    record = await node.store.get_object(bucket=space_node.BUCKET, key="k")
    assert isinstance(record, objects.ObjectRecord)
    with pytest.raises(errors.DecompressionError):
        await node.store.fetch(record, start_bytes=0, length_bytes=1)
