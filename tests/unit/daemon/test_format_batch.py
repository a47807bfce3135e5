from __future__ import annotations

import xxhash
from hypothesis import given
from hypothesis import strategies as st

from couchestor_daemon.formats import batch, frame, zone_header
from couchestor_domain import ids

SEED = 0x1234_5678_9ABC_DEF0
OFFSET = 8192
mutations = st.lists(
    st.tuples(st.binary(min_size=1, max_size=40), st.none() | st.binary(max_size=300)), max_size=20
)


def packed(
    payloads: list[bytes], found: list[batch.Mutation], *, sequence: int = 5
) -> tuple[memoryview, int]:
    encoded = batch.pack_mutations(found)
    out = memoryview(bytearray(batch.total_bytes(sum(map(len, payloads)), len(encoded))))
    total = batch.pack_into(
        out,
        segment_id=3,
        sequence=sequence,
        previous=4,
        payloads=payloads,
        mutations=encoded,
        seed=SEED,
        offset_bytes=OFFSET,
    )
    return out, total


@given(st.lists(st.binary(max_size=9000), max_size=4), mutations)
def test_a_batch_reads_back_as_written(payloads: list[bytes], found: list[batch.Mutation]) -> None:
    out, total = packed(payloads, found)
    assert total == len(out)
    assert total % 4096 == 0
    header = batch.unpack_header(out, seed=SEED, offset_bytes=OFFSET)
    assert header is not None
    assert (header.segment_id, header.sequence, header.previous) == (3, 5, 4)
    assert batch.body_verifies(header, out, seed=SEED)
    assert list(batch.unpack_mutations(batch.mutations_of(header, out))) == found
    assert bytes(out[64 : 64 + header.payload_bytes]) == b"".join(payloads)


@given(st.integers(0, 8191), st.integers(1, 255))
def test_any_changed_byte_is_noticed_or_is_padding(position: int, flip: int) -> None:
    out, _ = packed([b"p" * 5000], [(b"key", b"value")])
    end = batch.HEADER_BYTES + 5000 + batch.MUTATION.size + len(b"keyvalue")
    out[position] ^= flip
    header = batch.unpack_header(out, seed=SEED, offset_bytes=OFFSET)
    intact = header is not None and batch.body_verifies(header, out, seed=SEED)
    assert intact == (position >= end)


def test_a_batch_of_another_segment_does_not_verify() -> None:
    out, _ = packed([b""], [(b"k", b"v")])
    assert batch.unpack_header(out, seed=SEED + 1, offset_bytes=OFFSET) is None


def test_a_batch_in_another_place_of_its_segment_does_not_verify() -> None:
    out, _ = packed([b""], [(b"k", b"v")])
    assert batch.unpack_header(out, seed=SEED, offset_bytes=OFFSET + 4096) is None


def test_a_batch_of_version_1_is_read_wherever_it_stands() -> None:
    out, _ = packed([b"payload"], [(b"k", b"v")])
    out[8] = 1
    signed = xxhash.xxh3_64_intdigest(out[: batch.UNSIGNED_BYTES], seed=SEED)
    out[batch.UNSIGNED_BYTES : batch.HEADER_BYTES] = signed.to_bytes(8, "little")
    header = batch.unpack_header(out, seed=SEED, offset_bytes=OFFSET)
    assert header is not None
    assert batch.body_verifies(header, out, seed=SEED)


@given(st.integers(0, 4096))
def test_a_torn_batch_does_not_verify(kept: int) -> None:
    out, _ = packed([b"x" * 4000], [(b"k", b"v" * 60)])
    torn = memoryview(bytearray(len(out)))
    torn[:kept] = out[:kept]
    header = batch.unpack_header(torn, seed=SEED, offset_bytes=OFFSET)
    assert header is None or not batch.body_verifies(header, torn, seed=SEED)


def test_golden_batch_header() -> None:
    out, _ = packed([b"payload"], [(b"key", b"value"), (b"gone", None)])
    assert bytes(out[:48]).hex() == (
        "4353544241544348"  # magic
        "0200" "0000" "00100000"
        "0300000000000000" "0500000000000000" "0400000000000000"
        "07000000" "1a000000"
    )  # fmt: skip


def test_zone_header_round_trip_and_damage() -> None:
    members = tuple(
        ids.ZoneAddress(ids.DeviceId(f"{number:032x}"), ids.ZoneIndex(number))
        for number in range(6)
    )
    header = zone_header.ZoneHeader(zone_header.ZoneRole.GROUP, 2, 4, 2, 77, SEED, members)
    block = zone_header.pack(header)
    assert len(block) == zone_header.ZONE_HEADER_BYTES
    assert zone_header.unpack(memoryview(block)) == header
    damaged = bytearray(block)
    damaged[40] ^= 1
    assert zone_header.unpack(memoryview(damaged)) is None
    assert zone_header.unpack(memoryview(bytes(4096))) is None


@given(st.binary(max_size=200))
def test_random_bytes_are_never_a_frame(data: bytes) -> None:
    assert frame.unpack(b"CSTZONE\0", memoryview(data)) is None


@given(st.binary(max_size=500), st.integers(0, 65535), st.integers(0, 2**64 - 1))
def test_frame_round_trip(payload: bytes, flags: int, seed: int) -> None:
    data = memoryview(frame.pack(b"MAGIC123", version=9, payload=payload, flags=flags, seed=seed))
    found = frame.unpack(b"MAGIC123", data, seed=seed)
    assert found is not None
    assert (found.version, found.flags, bytes(found.payload)) == (9, flags, payload)
    assert frame.announced_bytes(b"MAGIC123", data) == found.total_bytes == len(data)
