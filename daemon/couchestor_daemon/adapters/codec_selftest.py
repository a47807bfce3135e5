"""Start-up self-test: a codec that computes anything else than it once did must not serve.

Two checks: the parity of a fixed input against golden checksums (a changed library or generator
matrix would make old stripes unreadable), and an erase-and-rebuild round trip of every shard.
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Final

import xxhash

from couchestor_daemon.adapters import pyeclib_codec
from couchestor_daemon.ports import codec as codec_port
from couchestor_domain import errors

CHUNK_BYTES: Final = 4160
"""Not a power of two, so that the vector code's tail is run too."""

GOLDEN_PATH: Final = pathlib.Path(__file__).with_name("golden_parity.txt")
"""A vector for every geometry that each codec can have. A line that changes is a format that
changes: give such a codec an id of its own."""


@functools.cache
def golden_parity() -> Mapping[tuple[int, int, int], int]:
    """(codec id, k, m): XXH3-64 of the m parity chunks of ``golden_data``."""
    found: dict[tuple[int, int, int], int] = {}
    for line in GOLDEN_PATH.read_text("ascii").splitlines():
        if line.startswith("#"):
            continue
        codec_id, data_shards, *digests = line.split()
        for parity_shards, digest in enumerate(digests, 1):
            found[int(codec_id), int(data_shards), parity_shards] = int(digest, 16)
    return found


def golden_data(data_shards: int) -> list[bytes]:
    """The fixed input: chunks that differ from each other and have no short period."""
    return [_golden_chunk(index) for index in range(data_shards)]


@functools.cache
def _golden_chunk(index: int) -> bytes:
    return bytes((i * 131 + (i >> 8) * 29 + index * 71 + 7) & 0xFF for i in range(CHUNK_BYTES))


def run(codec: codec_port.EcCodec) -> None:
    """Test one codec.

    Raises:
        CodecSelfTestError: refuse to serve.
    """
    shape = codec.geometry
    name = f"codec {codec.codec_id} for {shape}"
    data = golden_data(shape.data_shards)
    parity = [bytearray(CHUNK_BYTES) for _ in range(shape.parity_shards)]
    try:
        codec.encode([memoryview(c) for c in data], [memoryview(c) for c in parity])
        _check_golden(name, (codec.codec_id, shape.data_shards, shape.parity_shards), parity)
        shards: list[bytes | bytearray] = [*data, *parity]
        total = shape.shards_count
        tolerated = pyeclib_codec.failures_tolerated(codec.codec_id, shape)
        for index in range(total):
            _check_rebuild(name, codec, shards, (index,))
            # As many together as may be lost, each shard in turn leading.
            together = {(index + step) % total for step in range(tolerated)}
            _check_rebuild(name, codec, shards, tuple(sorted(together)))
    except errors.CodecSelfTestError:
        raise
    except errors.CouchestorError as exc:
        raise errors.CodecSelfTestError(f"{name} failed its self-test: {exc}") from exc


def _check_golden(name: str, key: tuple[int, int, int], parity: Sequence[bytearray]) -> None:
    expected = golden_parity().get(key)
    if expected is None:
        raise errors.CodecSelfTestError(
            f"{name} has no golden vector in {GOLDEN_PATH.name}, so nothing tells whether it "
            "computes what other nodes can read: choose another geometry or codec"
        )
    found = xxhash.xxh3_64_intdigest(b"".join(parity))
    if found != expected:
        raise errors.CodecSelfTestError(
            f"{name} computes parity {found:016x} where {expected:016x} is right: stripes it "
            "wrote could not be read by a healthy node; check the pyeclib installation and memory",
            found=found,
            expected=expected,
        )


def _check_rebuild(
    name: str,
    codec: codec_port.EcCodec,
    shards: Sequence[bytes | bytearray],
    lost: tuple[int, ...],
) -> None:
    available = {i: memoryview(shard) for i, shard in enumerate(shards) if i not in lost}
    rebuilt = {i: bytearray(CHUNK_BYTES) for i in lost}
    codec.reconstruct(available, {i: memoryview(chunk) for i, chunk in rebuilt.items()})
    for index, chunk in rebuilt.items():
        if chunk != shards[index]:
            raise errors.CodecSelfTestError(
                f"{name} rebuilds shard {index} wrongly after the loss of shards {lost}: check "
                "the pyeclib installation and memory",
                lost=lost,
            )
