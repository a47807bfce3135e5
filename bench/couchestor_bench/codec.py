"""What the codec port costs over ISA-L itself: ``python -m couchestor_bench.codec``.

Both sides encode the same stripe in the same memory; runs alternate, so that a slow moment of the
machine hits both. The figure is user bytes encoded per second on one core.
"""

from __future__ import annotations

import argparse
import ctypes
import mmap
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from couchestor_bench import results
from couchestor_daemon.adapters import isal_codec
from couchestor_domain import geometry, units

SHAPES = (geometry.StripeGeometry(4, 2), geometry.StripeGeometry(8, 3))
NS_PER_SECOND = units.NS_PER_SECOND


class Comparison(NamedTuple):
    """Median speeds of one geometry."""

    shape: geometry.StripeGeometry
    bare_bytes_per_second: float
    port_bytes_per_second: float

    @property
    def ratio(self) -> float:
        """Port over bare; 1 is no overhead."""
        return self.port_bytes_per_second / self.bare_bytes_per_second


def bare_encode(
    shape: geometry.StripeGeometry, chunks: Sequence[memoryview], chunk_bytes: int
) -> Callable[[], None]:
    """``ec_encode_data`` with everything prepared beforehand."""
    library = isal_codec.load_library()
    k, m = shape.data_shards, shape.parity_shards
    matrix = (ctypes.c_ubyte * ((k + m) * k))()
    library.gf_gen_cauchy1_matrix(matrix, k + m, k)
    tables = (ctypes.c_ubyte * (32 * k * m))()
    library.ec_init_tables(k, m, ctypes.byref(matrix, k * k), tables)
    addresses = [np.frombuffer(c, np.uint8).__array_interface__["data"][0] for c in chunks]
    sources = (ctypes.c_void_p * k)(*addresses[:k])
    targets = (ctypes.c_void_p * m)(*addresses[k:])
    encode = library.ec_encode_data
    return lambda: encode(chunk_bytes, k, m, tables, sources, targets)


def compare(shape: geometry.StripeGeometry, *, stripe_bytes: int, rounds_count: int) -> Comparison:
    """Alternate the two over one stripe."""
    chunk_bytes = shape.chunk_bytes(stripe_bytes)
    memory = memoryview(mmap.mmap(-1, chunk_bytes * shape.shards_count))
    memory[:] = np.random.default_rng(1).bytes(len(memory))
    chunks = [
        memory[index * chunk_bytes : (index + 1) * chunk_bytes]
        for index in range(shape.shards_count)
    ]
    data, parity = chunks[: shape.data_shards], chunks[shape.data_shards :]
    bare = bare_encode(shape, chunks, chunk_bytes)
    codec = isal_codec.IsalCodec(shape)
    bare()
    expected = [bytes(chunk) for chunk in parity]
    codec.encode(data, parity)
    if [bytes(chunk) for chunk in parity] != expected:
        raise SystemExit(f"{shape}: the port and ISA-L disagree; the figures would mean nothing")
    bare_ns: list[int] = []
    port_ns: list[int] = []
    sides = [(bare, bare_ns), (lambda: codec.encode(data, parity), port_ns)]
    for _ in range(rounds_count):
        for run, taken_ns in sides:
            started = time.perf_counter_ns()
            run()
            taken_ns.append(time.perf_counter_ns() - started)
        # Neither side always finds the caches as the other left them.
        sides.reverse()
    user_bytes = chunk_bytes * shape.data_shards
    return Comparison(
        shape,
        user_bytes * NS_PER_SECOND / statistics.median(bare_ns),
        user_bytes * NS_PER_SECOND / statistics.median(port_ns),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write the figures, print a table."""
    parser = argparse.ArgumentParser(prog="couchestor_bench.codec", description=__doc__)
    parser.add_argument("--stripe-mib", type=int, default=4, help="user MiB per stripe")
    parser.add_argument("--rounds", type=int, default=2000, help="runs of each side")
    told = parser.parse_args(arguments)
    print(f"encode, {told.stripe_mib} MiB stripes, median of {told.rounds} alternating runs")
    print(f"{'coding':>8} {'ISA-L GB/s':>12} {'port GB/s':>12} {'port/ISA-L':>12}")
    rows: list[dict[str, object]] = []
    for shape in SHAPES:
        found = compare(shape, stripe_bytes=told.stripe_mib * units.MIB, rounds_count=told.rounds)
        print(
            f"{found.shape!s:>8} {found.bare_bytes_per_second / 1e9:12.2f} "
            f"{found.port_bytes_per_second / 1e9:12.2f} {found.ratio:12.3f}"
        )
        rows.append({**found._asdict(), "shape": str(shape), "ratio": found.ratio})
    path = results.write("codec", {"stripe_mib": told.stripe_mib, "encode": rows})
    print(f"\nraw: {path}")


if __name__ == "__main__":
    main()
