"""Start-up self-test: a codec that computes anything else than it once did must not serve.

Two checks: the parity of a fixed input against golden checksums (a changed library or generator
matrix would make old stripes unreadable), and an erase-and-rebuild round trip of every shard.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import xxhash

from couchestor_daemon.adapters import pyeclib_codec
from couchestor_daemon.ports import codec as codec_port
from couchestor_domain import errors

CHUNK_BYTES: Final = 4160
"""Not a power of two, so that the vector code's tail is run too."""

GOLDEN_PARITY: Final[dict[tuple[int, int, int], int]] = {
    # (codec id, k, m): XXH3-64 of the m parity chunks of ``golden_data``
    (1, 1, 1): 0x4B40350CDACA85D3,
    (1, 1, 2): 0xEBB3B2EB010C6373,
    (1, 1, 3): 0x30360573EF66F66D,
    (1, 2, 1): 0x7DC24FCB76473EB4,
    (1, 2, 2): 0x14C262A83F62EB56,
    (1, 3, 1): 0xA9EAFD9482034313,
    (1, 3, 2): 0x6B64AC71621D7481,
    (1, 4, 1): 0x09C76F1E95AFA417,
    (1, 4, 2): 0xFEA3F293EFADDCEC,
    (1, 4, 3): 0x37E13620853CCCB9,
    (1, 5, 2): 0xC7226E83771FDA1D,
    (1, 5, 3): 0x7AAB42D0F22C1577,
    (1, 6, 2): 0x0A1D624C37228394,
    (1, 6, 3): 0x726467C3A3EB1A4C,
    (1, 7, 3): 0x25FB7938A84AB95C,
    (1, 8, 2): 0x71EE95303FDBB9B6,
    (1, 8, 3): 0x4F12E89278D11F06,
    (1, 8, 4): 0x342F955D6948B2AE,
    (1, 10, 4): 0xA63224E6ACC234E0,
    (1, 12, 4): 0xFC635E3E9F89B21D,
    (2, 1, 1): 0x4B40350CDACA85D3,
    (2, 1, 2): 0x691757496A6BE4FE,
    (2, 1, 3): 0x14AAE6020F11F1EE,
    (2, 2, 1): 0xC35DD34740CD9680,
    (2, 2, 2): 0x537F2D7ADB339461,
    (2, 3, 1): 0x21E185E53532E96A,
    (2, 3, 2): 0x0849F2FD04B23EDF,
    (2, 4, 1): 0x190C5CD1DFA726E5,
    (2, 4, 2): 0xC484A4B1F89ABEA6,
    (2, 4, 3): 0x34C73C07A4049847,
    (2, 5, 2): 0x97A314F0527D8DE5,
    (2, 5, 3): 0xC3A4CF809FD03A08,
    (2, 6, 2): 0x6837A37B2778BEE4,
    (2, 6, 3): 0x86B95F2DF3AC9C66,
    (2, 7, 3): 0xFC6439B6EA4D5E20,
    (2, 8, 2): 0xDD64065CB004A0C9,
    (2, 8, 3): 0x7F6019A776AFA362,
    (2, 8, 4): 0xABAD736E1ECB07B7,
    (2, 10, 4): 0xFEC3E54F280F9920,
    (2, 12, 4): 0x488FE86D5F0EC557,
    (3, 2, 1): 0x5C3CB78ABDA3D656,
    (3, 2, 2): 0x69987752FDB61FCC,
    (3, 3, 1): 0xE7BBBBAA72D0772C,
    (3, 3, 2): 0xD7FAC1DE928DF550,
    (3, 4, 1): 0x15ECA65B7AD8719A,
    (3, 4, 2): 0x004D5D4BA260E3A1,
    (3, 4, 3): 0xFE06D584594B7CDF,
    (3, 5, 2): 0xB431B3E7287BB8C6,
    (3, 5, 3): 0xC20FA9BA8966C8D4,
    (3, 6, 2): 0x61B335804188F1A1,
    (3, 6, 3): 0xC0D4D66685E52746,
    (3, 7, 3): 0x12797F847CE31FC0,
    (3, 8, 2): 0x569BE7A554D0D1D0,
    (3, 8, 3): 0x9E3DC6D1985A772D,
    (3, 8, 4): 0x8DD1E17D05CF4E95,
    (3, 10, 4): 0x1EF9FD90664EF6CC,
    (3, 12, 4): 0x1BE93D3A4F0679EA,
}


def golden_data(data_shards: int) -> list[bytes]:
    """The fixed input: chunks that differ from each other and have no short period."""
    return [
        bytes((i * 131 + (i >> 8) * 29 + index * 71 + 7) & 0xFF for i in range(CHUNK_BYTES))
        for index in range(data_shards)
    ]


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
    expected = GOLDEN_PARITY.get(key)
    found = xxhash.xxh3_64_intdigest(b"".join(parity))
    if expected is not None and found != expected:
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
