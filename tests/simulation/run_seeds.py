"""Any number of seeds of every simulation: ``make simulate SEEDS=n``."""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import pathlib
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from tests.simulation import node_lives, test_log_simulation

SEEDS_FILE: Final = pathlib.Path(__file__).with_name("seeds.txt")
SIMULATIONS: Final[Mapping[str, Callable[[int], object]]] = {
    "log": test_log_simulation.run,
    "node": node_lives.run,
}
PROGRESS_SECONDS: Final = 60.0


def kept_seeds() -> list[int]:
    """Seeds of the node simulation that once failed."""
    lines = SEEDS_FILE.read_text("utf-8").splitlines()
    return [int(line.split()[0]) for line in lines if line and not line.startswith("#")]


class Failure(NamedTuple):
    """A seed that did not pass."""

    simulation: str
    seed: int
    traceback: str

    def again(self) -> str:
        """The command that runs it alone."""
        return f"make simulate ONLY={self.simulation} FIRST={self.seed} SEEDS=1"


def main() -> int:
    """Run seeds and print one line; at a failure also how to run it again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="seeds of each simulation")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--only", choices=sorted(SIMULATIONS), help="one simulation")
    parser.add_argument("--jobs", type=int, default=1, help="processes that share the seeds")
    told = parser.parse_args()
    started = time.monotonic()
    pairs = [
        (name, seed)
        for name in SIMULATIONS
        if told.only in (None, name)
        for seed in range(told.first, told.first + told.seeds)
    ]
    failures = _run(pairs, jobs=told.jobs)
    for failure in failures:
        print(f"failed; again with: {failure.again()}", file=sys.stderr)
    seconds = time.monotonic() - started
    print(
        f"simulated {told.seeds} seeds from {told.first}: {len(failures)} failed, {seconds:.1f} s"
    )
    return 1 if failures else 0


def _run(pairs: Sequence[tuple[str, int]], *, jobs: int) -> list[Failure]:
    """All of them; tells of each failure at once, and from time to time how far it has come."""
    failures: list[Failure] = []
    told_at = time.monotonic()
    # A process of its own even for one job: what is printed does not depend on how many there are.
    with multiprocessing.get_context("spawn").Pool(jobs, _be_quiet) as pool:
        for count, failure in enumerate(pool.imap_unordered(_run_one, pairs, chunksize=4), 1):
            if failure is not None:
                failures.append(failure)
                print(f"{failure.traceback}\n{failure.again()}", file=sys.stderr, flush=True)
            if time.monotonic() - told_at >= PROGRESS_SECONDS:
                told_at = time.monotonic()
                print(f"{count} of {len(pairs)} runs, {len(failures)} failed", flush=True)
    return failures


def _be_quiet() -> None:
    logging.disable(logging.CRITICAL)


def _run_one(pair: tuple[str, int]) -> Failure | None:
    name, seed = pair
    try:
        SIMULATIONS[name](seed)
    except Exception:
        return Failure(name, seed, traceback.format_exc())
    return None


if __name__ == "__main__":
    sys.exit(main())
