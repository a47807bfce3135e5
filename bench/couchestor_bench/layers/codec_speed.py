"""How fast erasure codecs are through their port: encoding, and rebuilding what is lost."""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np

from couchestor_bench import failures
from couchestor_bench.reports import histogram
from couchestor_daemon.adapters import codec_choice, isal_codec, pyeclib_codec
from couchestor_daemon.ports import codec as codec_port
from couchestor_domain import errors, geometry, units

_RUNS_COUNT_MIN: Final = 5
Row = dict[str, str | float | int]


def measure(
    shapes: Sequence[geometry.StripeGeometry],
    stripes_bytes: Sequence[int],
    *,
    seconds: float,
    progress: Callable[[str], None],
) -> Iterator[Row]:
    """One row for each codec, coding, size of stripe and kind of work, on one core.

    Args:
        stripes_bytes: User bytes of a stripe.
        seconds: Time for each row.

    Raises:
        BenchmarkError: A codec gives other bytes than were encoded.
    """
    for shape in shapes:
        for name, codec in _codecs(shape):
            for stripe_bytes in stripes_bytes:
                progress(f"{name}, {shape}, {_size(stripe_bytes)}")
                yield from _rows(name, codec, stripe_bytes, seconds)


def _codecs(shape: geometry.StripeGeometry) -> Iterator[tuple[str, codec_port.EcCodec]]:
    """What this machine has for a coding."""
    first = codec_choice.choose(codec_choice.REED_SOLOMON, shape)
    yield ("rs, ISA-L" if first.codec_id == isal_codec.CODEC_ID else "rs, pyeclib"), first
    try:
        yield "lrc, pyeclib", pyeclib_codec.PyeclibCodec(pyeclib_codec.CodecKind.LRC, shape)
    except errors.CouchestorError:
        # A coding that it cannot have, or no backend for it.
        return


def _rows(name: str, codec: codec_port.EcCodec, stripe_bytes: int, seconds: float) -> Iterator[Row]:
    shape = codec.geometry
    chunk_bytes = shape.chunk_bytes(stripe_bytes)
    memory = memoryview(mmap.mmap(-1, chunk_bytes * shape.shards_count))
    memory[:] = np.random.default_rng(1).bytes(len(memory))
    chunks = [
        memory[index * chunk_bytes : (index + 1) * chunk_bytes]
        for index in range(shape.shards_count)
    ]
    data, parity = chunks[: shape.data_shards], chunks[shape.data_shards :]
    wanted = [bytes(chunk) for chunk in data]
    yield _row(
        "encode", name, shape, stripe_bytes, _timed(lambda: codec.encode(data, parity), seconds)
    )
    lost_counts = [1] if "lrc" in name else sorted({1, shape.parity_shards})
    for lost_count in lost_counts:
        # Data shards: those of parity cost no less and nobody waits for them.
        missing = {index: data[index] for index in range(min(lost_count, len(data)))}
        present = {index: each for index, each in enumerate(chunks) if index not in missing}
        for chunk in missing.values():
            chunk[:] = bytes(chunk_bytes)
        rebuild = _Rebuild(codec, present, missing)
        taken = _timed(rebuild, seconds)
        if [bytes(chunk) for chunk in data] != wanted:
            raise failures.BenchmarkError(
                f"{name} rebuilds other bytes than were encoded ({shape}, {lost_count} lost): the "
                "figures would mean nothing"
            )
        yield _row(f"rebuild {lost_count} lost", name, shape, stripe_bytes, taken)


class _Rebuild:
    def __init__(
        self,
        codec: codec_port.EcCodec,
        present: dict[int, memoryview],
        missing: dict[int, memoryview],
    ) -> None:
        self._codec, self._present, self._missing = codec, present, missing

    def __call__(self) -> None:
        self._codec.reconstruct(self._present, self._missing)


def _timed(run: Callable[[], None], seconds: float) -> histogram.Histogram:
    """Each run's time, after one that nobody counts."""
    run()
    taken: list[float] = []
    ends = time.perf_counter() + seconds
    while True:
        begun = time.perf_counter()
        if begun >= ends and len(taken) >= _RUNS_COUNT_MIN:
            break
        run()
        taken.append(time.perf_counter() - begun)
    counted = histogram.Histogram()
    counted.record_seconds(taken)
    return counted


def _row(
    what: str,
    name: str,
    shape: geometry.StripeGeometry,
    stripe_bytes: int,
    taken: histogram.Histogram,
) -> Row:
    """Speed in user bytes of a stripe, by the median run."""
    median_ns = taken.percentile_ns(50)
    return {
        "what": what,
        "codec": name,
        "coding": str(shape),
        "stripe": _size(stripe_bytes),
        "gb_per_second": stripe_bytes / median_ns if median_ns else 0.0,
        "p50_us": median_ns / 1000,
        "p99_us": taken.percentile_ns(99) / 1000,
        "runs": taken.count,
    }


def _size(size_bytes: int) -> str:
    for unit, name in ((units.MIB, "MiB"), (units.KIB, "KiB")):
        if size_bytes % unit == 0:
            return f"{size_bytes // unit} {name}"
    return f"{size_bytes} B"
