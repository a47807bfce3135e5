"""Reed-Solomon by Intel ISA-L, called in place on the caller's buffers.

The library is the one inside the pyeclib wheel. The generator is ISA-L's Cauchy matrix, the same
as liberasurecode's ``isa_l_rs_cauchy``: row i of parity, column j is 1 / ((k + i) xor j) in
GF(2^8) with the polynomial 0x11d. Any k rows of it are invertible.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import pathlib
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from couchestor_domain import errors, geometry

CODEC_ID: Final = 1
"""Reed-Solomon, ISA-L Cauchy generator."""

BUFFER_ALIGNMENT_BYTES: Final = 64
TABLE_BYTES_PER_COEFFICIENT: Final = 32
DECODERS_KEPT_MAX: Final = 1024

_Bytes = ctypes.Array[ctypes.c_ubyte]


@functools.cache
def load_library() -> ctypes.CDLL:
    """The ``libisal`` that ships beside pyeclib.

    ``CDLL`` releases the GIL for the length of each call.

    Raises:
        IsalEncodingError: it is not there or does not load on this processor.
    """
    spec = importlib.util.find_spec("pyeclib")
    if spec is None or spec.origin is None:
        raise errors.IsalEncodingError("pyeclib, which carries ISA-L, is not installed")
    folder = pathlib.Path(spec.origin).parent.parent / "pyeclib.libs"
    candidates = sorted(folder.glob("libisal*"))
    if not candidates:
        raise errors.IsalEncodingError(f"no libisal in {folder}: this pyeclib has none bundled")
    try:
        library = ctypes.CDLL(str(candidates[0]))
        pointer, integer = ctypes.c_void_p, ctypes.c_int
        library.gf_gen_cauchy1_matrix.argtypes = [pointer, integer, integer]
        library.gf_gen_cauchy1_matrix.restype = None
        library.gf_invert_matrix.argtypes = [pointer, pointer, integer]
        library.gf_invert_matrix.restype = integer
        library.gf_mul.argtypes = [ctypes.c_ubyte, ctypes.c_ubyte]
        library.gf_mul.restype = ctypes.c_ubyte
        library.ec_init_tables.argtypes = [integer, integer, pointer, pointer]
        library.ec_init_tables.restype = None
        library.ec_encode_data.argtypes = [integer, integer, integer, pointer, pointer, pointer]
        library.ec_encode_data.restype = None
    except (OSError, AttributeError) as exc:
        raise errors.IsalEncodingError(f"{candidates[0]} cannot be used: {exc}") from exc
    return library


class IsalCodec:
    """``ports.codec.EcCodec`` over ISA-L. Raises IsalEncodingError, IsalMatrixError."""

    def __init__(self, shape: geometry.StripeGeometry) -> None:
        self._library = load_library()
        self._geometry = shape
        k, total = shape.data_shards, shape.shards_count
        self._matrix: _Bytes = (ctypes.c_ubyte * (total * k))()
        self._library.gf_gen_cauchy1_matrix(self._matrix, total, k)
        self._encode_tables = self._tables(bytes(self._matrix[k * k :]), shape.parity_shards)
        self._lock = threading.Lock()
        self._decoders: OrderedDict[tuple[tuple[int, ...], tuple[int, ...]], _Bytes] = OrderedDict()

    @property
    def codec_id(self) -> int:
        return CODEC_ID

    @property
    def geometry(self) -> geometry.StripeGeometry:
        return self._geometry

    def encode(self, data: Sequence[memoryview], parity: Sequence[memoryview]) -> None:
        shape = self._geometry
        if len(data) != shape.data_shards or len(parity) != shape.parity_shards:
            raise errors.IsalEncodingError(
                f"a {shape} stripe was given {len(data)} data and {len(parity)} parity buffers"
            )
        self._apply(self._encode_tables, data, parity)

    def reconstruct(
        self, available: Mapping[int, memoryview], missing: Mapping[int, memoryview]
    ) -> None:
        if not missing:
            return
        k, total = self._geometry.data_shards, self._geometry.shards_count
        # Lowest indexes first: surviving data rows are unit rows, so the work stays small.
        used = tuple(sorted(available.keys() - missing.keys()))[:k]
        lost = tuple(sorted(missing))
        if len(used) < k:
            raise errors.InsufficientShardsError(
                f"{len(used)} shards of a {self._geometry} stripe are not enough, {k} are needed",
                available=used,
            )
        if min(used[0], lost[0]) < 0 or max(used[-1], lost[-1]) >= total:
            raise errors.IsalMatrixError(
                f"shards {used} and {lost} are not all of a {self._geometry} stripe"
            )
        tables = self._decoder(used, lost)
        self._apply(tables, [available[i] for i in used], [missing[i] for i in lost])

    def _decoder(self, used: tuple[int, ...], lost: tuple[int, ...]) -> _Bytes:
        key = (used, lost)
        with self._lock:
            found = self._decoders.get(key)
            if found is not None:
                self._decoders.move_to_end(key)
                return found
        tables = self._tables(self._decode_rows(used, lost), len(lost))
        with self._lock:
            self._decoders[key] = tables
            if len(self._decoders) > DECODERS_KEPT_MAX:
                self._decoders.popitem(last=False)
        return tables

    def _decode_rows(self, used: tuple[int, ...], lost: tuple[int, ...]) -> bytes:
        """Coefficients of each lost shard in terms of the used ones, (lost, k) row by row."""
        k = self._geometry.data_shards
        matrix = bytes(self._matrix)
        chosen = b"".join(matrix[i * k : (i + 1) * k] for i in used)
        work = (ctypes.c_ubyte * (k * k)).from_buffer_copy(chosen)
        inverse = (ctypes.c_ubyte * (k * k))()
        if self._library.gf_invert_matrix(work, inverse, k) != 0:
            raise errors.IsalMatrixError(
                f"the {self._geometry} matrix of shards {used} has no inverse", used=used
            )
        rows = bytearray()
        multiply = self._library.gf_mul
        for index in lost:
            # A lost data shard is a row of the inverse; a parity shard its generator row times it.
            row = matrix[index * k : (index + 1) * k]
            for column in range(k):
                total = 0
                for inner, factor in enumerate(row):
                    if factor:
                        total ^= multiply(factor, inverse[inner * k + column])
                rows.append(total)
        return bytes(rows)

    def _tables(self, rows: bytes, rows_count: int) -> _Bytes:
        k = self._geometry.data_shards
        source = (ctypes.c_ubyte * len(rows)).from_buffer_copy(rows)
        tables: _Bytes = (ctypes.c_ubyte * (TABLE_BYTES_PER_COEFFICIENT * k * rows_count))()
        self._library.ec_init_tables(k, rows_count, source, tables)
        return tables

    def _apply(
        self, tables: _Bytes, sources: Sequence[memoryview], targets: Sequence[memoryview]
    ) -> None:
        length = sources[0].nbytes
        if length == 0 or length % BUFFER_ALIGNMENT_BYTES or length >= 1 << 31:
            raise errors.IsalEncodingError(
                f"chunks of {length} bytes cannot be coded: the length must be a multiple of "
                f"{BUFFER_ALIGNMENT_BYTES}, above 0 and below 2 GiB"
            )
        # ISA-L writes through bare pointers, so nothing may be shorter or read-only.
        for view in (*sources, *targets):
            if view.nbytes != length or not view.c_contiguous:
                raise errors.IsalEncodingError(
                    f"buffers of one stripe differ: {view.nbytes} bytes beside {length}"
                )
        for view in targets:
            if view.readonly:
                raise errors.IsalEncodingError("a buffer to be filled is read-only")
        self._library.ec_encode_data(
            length,
            len(sources),
            len(targets),
            tables,
            _pointers(sources),
            _pointers(targets),
        )


def _pointers(views: Sequence[memoryview]) -> ctypes.Array[ctypes.c_void_p]:
    # No copy is made; the caller holds the views for the length of the call.
    return (ctypes.c_void_p * len(views))(*[_address(view) for view in views])


def _address(view: memoryview) -> int:
    # ctypes' from_buffer takes a tenth of numpy's time but refuses read-only memory.
    if view.readonly:
        return int(np.frombuffer(view, np.uint8).__array_interface__["data"][0])
    return ctypes.addressof(ctypes.c_char.from_buffer(view))
