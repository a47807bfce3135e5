"""Portable codecs by pyeclib (liberasurecode).

A liberasurecode fragment is an 80-byte header and the chunk. On media only the chunk is stored
(our shard header says more and is checksummed); for decoding the fragment headers, which depend
on nothing but the codec, k, m, the index and the length, are made again from an empty stripe.
"""

from __future__ import annotations

import enum
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final

from pyeclib import ec_iface

from couchestor_daemon.adapters import local_parity
from couchestor_domain import errors, geometry

FRAGMENT_HEADER_BYTES: Final = 80
TEMPLATES_KEPT_MAX: Final = 64
BUFFER_ALIGNMENT_BYTES: Final = 64


class CodecKind(enum.IntEnum):
    """Codec ids as recorded on media; shards of equal ids are interchangeable."""

    RS_CAUCHY = 1
    """Byte for byte what ``isal_codec.IsalCodec`` writes."""
    RS_VAND = 2
    """Runs on any processor."""
    LRC = 3
    """Local parity per half of the data shards, the rest global."""


_EC_TYPES: Final = {
    CodecKind.RS_CAUCHY: "isa_l_rs_cauchy",
    CodecKind.RS_VAND: "liberasurecode_rs_vand",
    CodecKind.LRC: "isa_l_rs_lrc",
}


def is_available(kind: CodecKind) -> bool:
    """Whether the installed liberasurecode has the backend."""
    return _EC_TYPES[kind] in ec_iface.VALID_EC_TYPES


def failures_tolerated(codec_id: int, shape: geometry.StripeGeometry) -> int:
    """Shards of which *any* choice may be lost. Reed-Solomon: m. LRC trades for cheap repairs."""
    if codec_id != CodecKind.LRC:
        return shape.parity_shards
    return local_parity.failures_tolerated(shape)


class PyeclibCodec:
    """``ports.codec.EcCodec`` over an ``ECDriver``. Copies; the hot path is ``IsalCodec``.

    Raises:
        InvalidEcConfigurationError: the backend is missing or refuses the geometry.
    """

    def __init__(self, kind: CodecKind, shape: geometry.StripeGeometry) -> None:
        self._kind = kind
        self._geometry = shape
        try:
            self._driver = ec_iface.ECDriver(
                ec_type=_EC_TYPES[kind],
                k=shape.data_shards,
                m=shape.parity_shards,
                local_parity=local_parity.local_count(shape) if kind is CodecKind.LRC else 0,
            )
        except ec_iface.ECDriverError as exc:
            raise errors.InvalidEcConfigurationError(
                f"pyeclib has no {_EC_TYPES[kind]} for {shape}: {exc}"
            ) from exc
        # One driver call at a time: liberasurecode does not promise more for one descriptor.
        self._lock = threading.Lock()
        self._templates: OrderedDict[int, tuple[bytes, ...]] = OrderedDict()

    @property
    def codec_id(self) -> int:
        return int(self._kind)

    @property
    def geometry(self) -> geometry.StripeGeometry:
        return self._geometry

    def encode(self, data: Sequence[memoryview], parity: Sequence[memoryview]) -> None:
        shape = self._geometry
        if len(data) != shape.data_shards or len(parity) != shape.parity_shards:
            raise errors.EcEncodingError(
                f"a {shape} stripe was given {len(data)} data and {len(parity)} parity buffers"
            )
        length = _common_length([*data, *parity])
        with self._lock:
            fragments = self._encode(b"".join(data), length)
        for view, fragment in zip(parity, fragments[shape.data_shards :], strict=True):
            view[:] = memoryview(fragment)[FRAGMENT_HEADER_BYTES:]

    def reconstruct(
        self, available: Mapping[int, memoryview], missing: Mapping[int, memoryview]
    ) -> None:
        if not missing:
            return
        used = sorted(available.keys() - missing.keys())
        lost = sorted(missing)
        length = _common_length([*available.values(), *missing.values()])
        if min(*used, *lost, 0) < 0 or max(*used, *lost, 0) >= self._geometry.shards_count:
            raise errors.EcReconstructionError(
                f"shards {used} and {lost} are not all of a {self._geometry} stripe"
            )
        # Only LRC can do with fewer than k: a single loss is mended inside its local group.
        if len(used) < self._geometry.data_shards and self._kind is not CodecKind.LRC:
            raise errors.InsufficientShardsError(
                f"{len(used)} shards of a {self._geometry} stripe are not enough, "
                f"{self._geometry.data_shards} are needed",
                available=tuple(used),
            )
        try:
            with self._lock:
                headers = self._headers(length)
                found = self._driver.reconstruct(
                    [headers[index] + bytes(available[index]) for index in used], lost
                )
        except ec_iface.ECInsufficientFragments as exc:
            raise errors.InsufficientShardsError(
                f"shards {used} of a {self._geometry} stripe cannot give shards {lost}",
                available=tuple(used),
            ) from exc
        except ec_iface.ECDriverError as exc:
            raise errors.EcReconstructionError(
                f"pyeclib could not rebuild shards {lost} from {used}: {exc}"
            ) from exc
        for index, fragment in zip(lost, found, strict=True):
            missing[index][:] = memoryview(fragment)[FRAGMENT_HEADER_BYTES:]

    def _encode(self, data: bytes, length: int) -> list[bytes]:
        try:
            fragments: list[bytes] = self._driver.encode(data)
        except ec_iface.ECDriverError as exc:
            raise errors.EcEncodingError(f"pyeclib could not encode: {exc}") from exc
        for fragment in fragments:
            if len(fragment) != FRAGMENT_HEADER_BYTES + length:
                raise errors.EcEncodingError(
                    f"pyeclib made a fragment of {len(fragment)} bytes of chunks of {length}"
                )
        return fragments

    def _headers(self, length: int) -> tuple[bytes, ...]:
        found = self._templates.get(length)
        if found is None:
            fragments = self._encode(bytes(length * self._geometry.data_shards), length)
            found = tuple(fragment[:FRAGMENT_HEADER_BYTES] for fragment in fragments)
            self._templates[length] = found
            if len(self._templates) > TEMPLATES_KEPT_MAX:
                self._templates.popitem(last=False)
        return found


def _common_length(views: Sequence[memoryview]) -> int:
    lengths = {view.nbytes for view in views}
    length = max(lengths)
    if len(lengths) != 1 or length == 0 or length % BUFFER_ALIGNMENT_BYTES:
        raise errors.EcEncodingError(
            f"buffers of one stripe must have one length, a multiple of "
            f"{BUFFER_ALIGNMENT_BYTES}, not {sorted(lengths)}"
        )
    return length
