"""MD5 of one to eight messages at once, and by OpenSSL: ``python -m couchestor_bench.md5``.

The figure is bytes hashed per second on one core; the two alternate, so that a slow moment of the
machine hits both.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from couchestor_bench import results
from couchestor_daemon.adapters import machine_code, md5_code, md5_lanes
from couchestor_domain import units

MESSAGE_BYTES: Final = units.MIB
LANES: Final = md5_code.LANES_COUNT


def variants() -> dict[str, md5_lanes.Kernel]:
    """The functions that this processor runs, by the instructions that they use."""
    features = machine_code.processor_features()
    found = {}
    if "avx2" in features:
        found["AVX2"] = md5_lanes.loaded(with_avx512=False)
    if features >= md5_lanes.AVX512_FEATURES:
        found["AVX-512VL"] = md5_lanes.loaded(with_avx512=True)
    return found


def hashing(
    function: md5_lanes.Kernel, messages: Sequence[npt.NDArray[np.uint8]]
) -> Callable[[], None]:
    """One call over whole messages, each in a lane; lanes that are left work for nothing."""
    frame = np.zeros(md5_code.FRAME_BYTES + 32, np.uint8)
    start = -frame.ctypes.data % 32
    constants = np.frombuffer(md5_code.frame_start(), np.uint8)
    frame[start : start + len(constants)] = constants
    state = (ctypes.c_uint32 * (4 * LANES))()
    addresses = [message.ctypes.data for message in messages]
    pointers = (ctypes.c_uint64 * LANES)(*(addresses + addresses[:1] * (LANES - len(messages))))
    blocks = MESSAGE_BYTES // md5_code.BLOCK_BYTES

    def run() -> None:
        function(
            ctypes.addressof(state), ctypes.addressof(pointers), blocks, frame.ctypes.data + start
        )

    return run


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--rounds", type=int, default=50, help="runs of each (default 50)")
    rounds = parser.parse_args().rounds
    generator = np.random.default_rng(1)
    messages = [generator.integers(0, 256, MESSAGE_BYTES, np.uint8) for _ in range(LANES)]
    runs: dict[str, tuple[int, Callable[[], object]]] = {
        "OpenSSL, 1 message": (1, lambda: hashlib.md5(messages[0].data, usedforsecurity=False))
    }
    for name, function in variants().items():
        for count in (1, 2, 4, 8):
            runs[f"{name}, {count} at once"] = (count, hashing(function, messages[:count]))
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, (_, run) in runs.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    speeds = {
        name: count * MESSAGE_BYTES / statistics.median(seconds[name])
        for name, (count, _) in runs.items()
    }
    for name, speed in speeds.items():
        print(f"{name:24} {speed / 1e9:5.2f} GB/s")
    path = results.write("md5", {"bytes_per_second": speeds, "message_bytes": MESSAGE_BYTES})
    print(f"raw: {path}")


if __name__ == "__main__":
    main()
