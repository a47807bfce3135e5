"""Any number of seeds of every simulation: ``make simulate SEEDS=n``."""

from __future__ import annotations

import argparse
import logging
import pathlib
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Final

from tests.simulation import node_lives, test_log_simulation

SEEDS_FILE: Final = pathlib.Path(__file__).with_name("seeds.txt")
SIMULATIONS: Final[Mapping[str, Callable[[int], object]]] = {
    "log": test_log_simulation.run,
    "node": node_lives.run,
}


def kept_seeds() -> list[int]:
    """Seeds of the node simulation that once failed."""
    lines = SEEDS_FILE.read_text("utf-8").splitlines()
    return [int(line.split()[0]) for line in lines if line and not line.startswith("#")]


def main() -> int:
    """Run seeds and print one line; at a failure also how to run it again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="seeds of each simulation")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--only", choices=sorted(SIMULATIONS), help="one simulation")
    told = parser.parse_args()
    logging.disable(logging.CRITICAL)
    started = time.monotonic()
    failed: list[str] = []
    for name, run in SIMULATIONS.items():
        if told.only not in (None, name):
            continue
        for seed in range(told.first, told.first + told.seeds):
            try:
                run(seed)
            except Exception:
                traceback.print_exc()
                failed.append(f"make simulate ONLY={name} FIRST={seed} SEEDS=1")
    for again in failed:
        print(f"failed; again with: {again}", file=sys.stderr)
    seconds = time.monotonic() - started
    print(f"simulated {told.seeds} seeds from {told.first}: {len(failed)} failed, {seconds:.1f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
