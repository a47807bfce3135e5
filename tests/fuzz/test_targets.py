"""Every parser over inputs that Hypothesis makes of good ones, and how its costs grow.

What these find, and how the same targets run for longer, stands in docs/TESTING.md.
"""

from __future__ import annotations

import gc
import itertools
import os
import time
import tracemalloc
from typing import Final

import hypothesis
import pytest
from hypothesis import strategies as st
from tests.fuzz import catalogue, target

from couchestor_domain import units

EXAMPLES_COUNT: Final = int(os.environ.get("COUCHESTOR_FUZZ_EXAMPLES", "120"))
BYTES_MAX: Final = 4 * units.KIB
_LENGTHS_BYTES: Final = (2 * units.KIB, 16 * units.KIB, 128 * units.KIB)
"""Most parsers take no more than one of these, and refuse the others at once."""
_LENGTHS_RATIO: Final = 8
_GROWTH_MAX: Final = 2.5 * _LENGTHS_RATIO
"""Of the time from one length to the next; with the square it would be sixty-four times as long."""
_PLACES: Final = (0.5, 0.8, 1.0)
_NEGLIGIBLE_SECONDS: Final = 0.005
_TURNS: Final = 5
_PEAK_BYTES_MAX: Final = 2 * units.MIB
_PEAK_BYTES_PER_BYTE_MAX: Final = 256


def _spliced(base: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    """Each edit puts bytes at a place and takes some away; by a negative one some comes twice."""
    for place, length, added in edits:
        at = int(place * len(base))
        if length >= 0:
            base = base[:at] + added + base[at + length :]
        else:
            base = base[:at] + added + base[max(0, at + length) :]
    return base[:BYTES_MAX]


def _inputs(fuzzed: target.Target) -> st.SearchStrategy[bytes]:
    bases = st.sampled_from([*fuzzed.seeds, b""])
    words = st.sampled_from([b"", *fuzzed.tokens]) | st.binary(max_size=8)
    edit = st.tuples(st.floats(0, 1), st.integers(-40, 40), words)
    return st.builds(_spliced, bases, st.lists(edit, max_size=8))


@pytest.mark.parametrize("name", catalogue.TARGETS)
def test_only_typed_errors_come_out(name: str) -> None:
    fuzzed = catalogue.TARGETS[name]
    for seed in fuzzed.seeds:
        fuzzed.run(seed)
        for end in range(min(len(seed), 64)):
            fuzzed.run(seed[:end])

    @hypothesis.settings(
        max_examples=EXAMPLES_COUNT,
        deadline=None,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
    @hypothesis.given(data=_inputs(fuzzed))
    def run(data: bytes) -> None:
        fuzzed.run(data)

    run()


def _seconds(fuzzed: target.Target, data: bytes, *, enough_seconds: float) -> float:
    """Processor time of this thread, the least of a few turns; of one if that is little enough."""
    least = float("inf")
    # A collection walks over everything that thousands of other tests have left.
    gc.disable()
    try:
        for _ in range(_TURNS):
            started = time.thread_time()
            fuzzed.run(data)
            least = min(least, time.thread_time() - started)
            if least < enough_seconds:
                break
    finally:
        gc.enable()
    return least


def _with_filling(fuzzed: target.Target, word: bytes, place: float, length: int) -> bytes:
    """A good input with one word again and again at a place."""
    seed = fuzzed.seeds[0]
    at = int(place * len(seed))
    return seed[:at] + word * (length // len(word)) + seed[at:]


def _require_growth(fuzzed: target.Target) -> None:
    for word, place in itertools.product(fuzzed.tokens, _PLACES):
        before = 0.0
        for length in _LENGTHS_BYTES:
            data = _with_filling(fuzzed, word, place, length)
            allowed = _GROWTH_MAX * max(before, _NEGLIGIBLE_SECONDS / _LENGTHS_RATIO)
            before = _seconds(fuzzed, data, enough_seconds=allowed)
            assert before < allowed, (
                f"{word!r} at {place}, {length} bytes: too slow ({before:.4f} s)"
            )


def _require_proportion(fuzzed: target.Target) -> None:
    for word in fuzzed.tokens:
        data = _with_filling(fuzzed, word, _PLACES[0], _LENGTHS_BYTES[1])
        tracemalloc.start()
        try:
            fuzzed.run(data)
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        most = _PEAK_BYTES_MAX + _PEAK_BYTES_PER_BYTE_MAX * len(data)
        assert peak_bytes < most, f"{word!r}: too much memory"


@pytest.mark.parametrize("name", catalogue.TARGETS)
def test_time_grows_with_the_input_and_not_faster(name: str) -> None:
    _require_growth(catalogue.TARGETS[name])


@pytest.mark.parametrize("name", catalogue.TARGETS)
def test_memory_stays_in_proportion(name: str) -> None:
    _require_proportion(catalogue.TARGETS[name])


def _looks_ahead(data: bytes) -> None:
    for at in range(0, len(data), 4):
        data.find(b"never", at)


def _keeps_all(data: bytes) -> None:
    assert [bytes(data[at:]) for at in range(0, len(data), 16)]


def test_a_parser_whose_costs_grow_faster_is_noticed() -> None:
    slow = target.Target(name="slow", run=_looks_ahead, seeds=(b"ab",), tokens=(b"a",))
    with pytest.raises(AssertionError, match="too slow"):
        _require_growth(slow)
    large = target.Target(name="large", run=_keeps_all, seeds=(b"ab",), tokens=(b"a",))
    with pytest.raises(AssertionError, match="too much memory"):
        _require_proportion(large)
