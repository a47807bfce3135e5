"""Codecs against each other, against the mathematics, and on their own."""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Iterator, Sequence

import pytest
import xxhash

from couchestor_daemon.adapters import (
    codec_choice,
    codec_selftest,
    isal_codec,
    local_parity,
    pyeclib_codec,
)
from couchestor_daemon.ports import codec as codec_port
from couchestor_domain import errors, geometry

CHUNK_BYTES = 192
Kind = pyeclib_codec.CodecKind


def shape_of(k: int, m: int) -> geometry.StripeGeometry:
    return geometry.StripeGeometry(k, m)


def random_chunks(count: int, length: int = CHUNK_BYTES) -> list[bytes]:
    rng = random.Random(count * length)
    return [rng.randbytes(length) for _ in range(count)]


def encoded(codec: codec_port.EcCodec, data: Sequence[bytes]) -> list[bytes]:
    parity = [bytearray(len(data[0])) for _ in range(codec.geometry.parity_shards)]
    codec.encode([memoryview(c) for c in data], [memoryview(c) for c in parity])
    return [*data, *(bytes(c) for c in parity)]


def rebuilt(
    codec: codec_port.EcCodec, shards: Sequence[bytes], lost: tuple[int, ...]
) -> list[bytes]:
    found = {i: bytearray(len(shards[0])) for i in lost}
    codec.reconstruct(
        {i: memoryview(s) for i, s in enumerate(shards) if i not in lost},
        {i: memoryview(c) for i, c in found.items()},
    )
    return [bytes(found[i]) for i in lost]


def erasures(shape: geometry.StripeGeometry, most: int) -> Iterator[tuple[int, ...]]:
    for count in range(1, most + 1):
        yield from itertools.combinations(range(shape.shards_count), count)


@pytest.mark.parametrize(("k", "m"), [(4, 2), (8, 3), (1, 2), (2, 2), (1, 1), (3, 1)])
def test_isal_and_pyeclib_decode_each_others_shards_for_every_erasure(k: int, m: int) -> None:
    isal = isal_codec.IsalCodec(shape_of(k, m))
    portable = pyeclib_codec.PyeclibCodec(Kind.RS_CAUCHY, shape_of(k, m))
    assert isal.codec_id == portable.codec_id
    shards = encoded(isal, random_chunks(k))
    assert encoded(portable, shards[:k]) == shards
    for lost in erasures(shape_of(k, m), m):
        expected = [shards[i] for i in lost]
        assert rebuilt(isal, shards, lost) == expected, lost
        assert rebuilt(portable, shards, lost) == expected, lost


@pytest.mark.parametrize(("k", "m"), [(10, 4), (12, 4), (20, 6), (28, 4), (16, 16)])
def test_wide_codes_interchange_for_random_erasures(k: int, m: int) -> None:
    rng = random.Random(k * 100 + m)
    isal = isal_codec.IsalCodec(shape_of(k, m))
    portable = pyeclib_codec.PyeclibCodec(Kind.RS_CAUCHY, shape_of(k, m))
    shards = encoded(portable, random_chunks(k))
    assert encoded(isal, shards[:k]) == shards
    for _ in range(25):
        lost = tuple(sorted(rng.sample(range(k + m), rng.randint(1, m))))
        expected = [shards[i] for i in lost]
        assert rebuilt(isal, shards, lost) == expected, lost
        assert rebuilt(portable, shards, lost) == expected, lost


@pytest.mark.parametrize(
    ("kind", "k", "m"),
    [(Kind.RS_VAND, 4, 2), (Kind.RS_VAND, 2, 2), (Kind.LRC, 4, 2), (Kind.LRC, 8, 3)],
)
def test_other_codecs_rebuild_what_they_promise(kind: Kind, k: int, m: int) -> None:
    codec = pyeclib_codec.PyeclibCodec(kind, shape_of(k, m))
    tolerated = pyeclib_codec.failures_tolerated(codec.codec_id, codec.geometry)
    shards = encoded(codec, random_chunks(k))
    for lost in erasures(codec.geometry, tolerated):
        assert rebuilt(codec, shards, lost) == [shards[i] for i in lost], lost


@pytest.mark.parametrize(("k", "m"), [(2, 2), (3, 2), (4, 2), (5, 1), (4, 3), (6, 3)])
def test_what_lrc_tolerates_is_neither_more_nor_less(k: int, m: int) -> None:
    """The configuration relies on this figure: with more than two parities it is below m."""
    codec = pyeclib_codec.PyeclibCodec(Kind.LRC, shape_of(k, m))
    tolerated = pyeclib_codec.failures_tolerated(codec.codec_id, codec.geometry)
    assert tolerated == (m if m <= 2 else m - 1)
    shards = encoded(codec, random_chunks(k))
    together = list(itertools.combinations(range(k + m), tolerated))
    assert all(rebuilt(codec, shards, lost) == [shards[i] for i in lost] for lost in together)
    if tolerated < m:
        # Two data shards of one half and its local parity: one global parity is left for two.
        with pytest.raises(errors.InsufficientShardsError):
            rebuilt(codec, shards, (0, 1, k + m - 2))


def test_lrc_mends_one_loss_from_its_local_group_alone() -> None:
    codec = pyeclib_codec.PyeclibCodec(Kind.LRC, shape_of(8, 3))
    shards = encoded(codec, random_chunks(8))
    found = bytearray(CHUNK_BYTES)
    # Data 0-3 and local parity 9 form a group: four reads instead of eight.
    codec.reconstruct({i: memoryview(shards[i]) for i in (1, 2, 3, 9)}, {0: memoryview(found)})
    assert found == shards[0]


def test_vandermonde_parity_differs_and_so_has_its_own_id() -> None:
    vand = pyeclib_codec.PyeclibCodec(Kind.RS_VAND, shape_of(4, 2))
    cauchy = isal_codec.IsalCodec(shape_of(4, 2))
    data = random_chunks(4)
    assert encoded(vand, data) != encoded(cauchy, data)
    assert vand.codec_id != cauchy.codec_id


def multiply(left: int, right: int) -> int:
    product = 0
    while right:
        if right & 1:
            product ^= left
        left = (left << 1) ^ (0x11D if left & 0x80 else 0)
        right >>= 1
    return product


def test_parity_is_the_cauchy_code_over_gf256() -> None:
    k, m = 4, 2
    data = random_chunks(k, 64)
    inverse = {a: b for a in range(1, 256) for b in range(1, 256) if multiply(a, b) == 1}
    shards = encoded(isal_codec.IsalCodec(shape_of(k, m)), data)
    for row in range(m):
        factors = [inverse[(k + row) ^ column] for column in range(k)]
        for place in range(64):
            expected = 0
            for factor, chunk in zip(factors, data, strict=True):
                expected ^= multiply(factor, chunk[place])
            assert shards[k + row][place] == expected, (row, place)


@pytest.mark.parametrize("kind", [None, Kind.RS_CAUCHY, Kind.RS_VAND, Kind.LRC])
def test_the_parity_of_a_slice_is_the_slice_of_the_parity(kind: Kind | None) -> None:
    shape = shape_of(4, 2)
    codec: codec_port.EcCodec = (
        isal_codec.IsalCodec(shape) if kind is None else pyeclib_codec.PyeclibCodec(kind, shape)
    )
    shards = encoded(codec, random_chunks(4, 16 * 64))
    for start, end in ((0, 64), (64, 512), (512, 16 * 64)):
        sliced = encoded(codec, [chunk[start:end] for chunk in shards[:4]])
        assert sliced == [chunk[start:end] for chunk in shards], (start, end)


@pytest.mark.parametrize("kind", [None, Kind.RS_CAUCHY, Kind.RS_VAND, Kind.LRC])
def test_too_few_shards_is_said_so(kind: Kind | None) -> None:
    shape = shape_of(4, 2)
    codec: codec_port.EcCodec = (
        isal_codec.IsalCodec(shape) if kind is None else pyeclib_codec.PyeclibCodec(kind, shape)
    )
    shards = encoded(codec, random_chunks(4))
    with pytest.raises(errors.InsufficientShardsError):
        rebuilt(codec, shards, (0, 1, 5))


@pytest.mark.parametrize("portable", [False, True])
def test_wrong_buffers_are_refused(portable: bool) -> None:
    shape = shape_of(2, 1)
    codec: codec_port.EcCodec = (
        pyeclib_codec.PyeclibCodec(Kind.RS_CAUCHY, shape)
        if portable
        else isal_codec.IsalCodec(shape)
    )
    whole, short = memoryview(bytes(128)), memoryview(bytes(64))
    for data, parity in (
        ([whole], [memoryview(bytearray(128))]),
        ([whole, short], [memoryview(bytearray(128))]),
        ([whole, whole], [memoryview(bytearray(64))]),
        ([whole[:65], whole[:65]], [memoryview(bytearray(65))]),
        ([whole[:0], whole[:0]], [memoryview(bytearray(0))]),
    ):
        with pytest.raises(errors.EcEncodingError):
            codec.encode(data, parity)


def test_isal_never_writes_to_read_only_memory() -> None:
    codec = isal_codec.IsalCodec(shape_of(2, 1))
    chunk = memoryview(bytes(64))
    with pytest.raises(errors.IsalEncodingError, match="read-only"):
        codec.encode([chunk, chunk], [chunk])


def test_isal_refuses_shards_of_no_stripe() -> None:
    codec = isal_codec.IsalCodec(shape_of(1, 1))
    with pytest.raises(errors.IsalMatrixError):
        codec.reconstruct({7: memoryview(bytes(64))}, {0: memoryview(bytearray(64))})


def test_choice_is_cached_and_matches_its_id() -> None:
    shape = shape_of(8, 3)
    for policy in ("rs", "lrc"):
        codec = codec_choice.choose(policy, shape)
        assert codec_choice.choose(policy, shape) is codec
        assert codec_choice.by_id(shape, codec.codec_id).codec_id == codec.codec_id
    assert isinstance(codec_choice.choose("rs", shape), isal_codec.IsalCodec)
    with pytest.raises(errors.EcPolicyNotFoundError):
        codec_choice.choose("raid5", shape)
    with pytest.raises(errors.InvalidEcConfigurationError):
        codec_choice.by_id(shape, 99)


def test_a_shape_lrc_cannot_have_is_coded_with_reed_solomon(
    caplog: pytest.LogCaptureFixture,
) -> None:
    codec_choice.choose.cache_clear()
    assert codec_choice.choose("lrc", shape_of(1, 2)).codec_id == isal_codec.CODEC_ID
    assert "1+2" in caplog.text


def test_without_isal_pyeclib_serves_and_one_warning_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise errors.IsalEncodingError("no such instruction")

    caches = (codec_choice.choose, codec_choice.by_id, codec_choice._isal_loads)
    monkeypatch.setattr(isal_codec, "load_library", broken)
    for cache in caches:
        cache.cache_clear()
    try:
        with caplog.at_level(logging.WARNING):
            for k in (2, 3, 4):
                codec = codec_choice.choose("rs", shape_of(k, 2))
                assert isinstance(codec, pyeclib_codec.PyeclibCodec)
                assert codec.codec_id == isal_codec.CODEC_ID
                assert codec_choice.by_id(shape_of(k, 2), 1).codec_id == 1
        assert len(caplog.records) == 1
        monkeypatch.setattr(pyeclib_codec, "is_available", lambda kind: kind is Kind.RS_VAND)
        assert codec_choice.choose("rs", shape_of(5, 2)).codec_id == Kind.RS_VAND
    finally:
        for cache in caches:
            cache.cache_clear()


@pytest.mark.parametrize(
    ("policy", "k", "m"),
    [("rs", 1, 2), ("rs", 4, 2), ("rs", 9, 5), ("rs", 16, 16), ("lrc", 8, 3), ("lrc", 3, 2)],
)
def test_self_test_passes(policy: str, k: int, m: int) -> None:
    codec_selftest.run(codec_choice.choose(policy, shape_of(k, m)))


ALLOWED = [
    shape_of(k, m)
    for k in range(1, geometry.SHARDS_COUNT_MAX)
    for m in range(1, 17)
    if k + m <= geometry.SHARDS_COUNT_MAX
]


def test_every_geometry_that_may_be_configured_has_golden_parity() -> None:
    vectors = codec_selftest.golden_parity()
    for shape in ALLOWED:
        for codec_id in (isal_codec.CODEC_ID, Kind.RS_VAND):
            assert (codec_id, shape.data_shards, shape.parity_shards) in vectors, shape
        if shape.data_shards > 1 and local_parity.failures_tolerated(shape) == shape.parity_shards:
            assert (Kind.LRC, shape.data_shards, shape.parity_shards) in vectors, shape
    # As they were when the first stripes were written.
    assert vectors[1, 4, 2] == 0xFEA3F293EFADDCEC
    assert vectors[2, 4, 2] == 0xC484A4B1F89ABEA6
    assert vectors[3, 4, 2] == 0x004D5D4BA260E3A1


def test_isal_computes_the_golden_parity_of_every_geometry() -> None:
    """The vectors are those of pyeclib."""
    for shape in ALLOWED:
        parity = [bytearray(codec_selftest.CHUNK_BYTES) for _ in range(shape.parity_shards)]
        isal_codec.IsalCodec(shape).encode(
            [memoryview(chunk) for chunk in codec_selftest.golden_data(shape.data_shards)],
            [memoryview(chunk) for chunk in parity],
        )
        key = (isal_codec.CODEC_ID, shape.data_shards, shape.parity_shards)
        found = xxhash.xxh3_64_intdigest(b"".join(parity))
        assert found == codec_selftest.golden_parity()[key], shape


def test_a_geometry_without_a_golden_vector_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec_selftest, "golden_parity", dict)
    with pytest.raises(errors.CodecSelfTestError, match="no golden vector in golden_parity"):
        codec_selftest.run(isal_codec.IsalCodec(shape_of(4, 2)))


class FlippingCodec(isal_codec.IsalCodec):
    """Wrong in one bit, when encoding or when rebuilding shard ``broken_rebuild``."""

    broken_rebuild: int | None = None

    def encode(self, data: Sequence[memoryview], parity: Sequence[memoryview]) -> None:
        super().encode(data, parity)
        if self.broken_rebuild is None:
            parity[-1][-1] ^= 1

    def reconstruct(self, available: object, missing: object) -> None:
        assert isinstance(available, dict)
        assert isinstance(missing, dict)
        super().reconstruct(available, missing)
        if self.broken_rebuild in missing:
            missing[self.broken_rebuild][0] ^= 1


def test_self_test_refuses_a_codec_that_encodes_otherwise() -> None:
    with pytest.raises(errors.CodecSelfTestError, match="computes parity"):
        codec_selftest.run(FlippingCodec(shape_of(4, 2)))


@pytest.mark.parametrize("shard_index", [0, 5])
def test_self_test_refuses_a_codec_that_rebuilds_wrongly(shard_index: int) -> None:
    codec = FlippingCodec(shape_of(4, 2))
    codec.broken_rebuild = shard_index
    with pytest.raises(errors.CodecSelfTestError, match=f"rebuilds shard {shard_index}"):
        codec_selftest.run(codec)
