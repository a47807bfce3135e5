"""Whom the watch suspects: the decision by itself, over windows of figures."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from couchestor_daemon.ports import drive_figures
from couchestor_daemon.services import drive_comparison, drive_suspicion
from couchestor_domain import ids

DEVICES = [ids.DeviceId(f"{number:032x}") for number in range(6)]
LIMITS = drive_comparison.Limits(ratio=4.0, floor_seconds=0.01, window_seconds=10.0, slow_max=2)
SMALL_READS = drive_figures.slot(drive_figures.Command.READ, drive_figures.Size.SMALL)
FLUSHES = drive_figures.slot(drive_figures.Command.FLUSH, drive_figures.Size.SMALL)
N = drive_suspicion.WINDOWS_TO_SUSPECT

Draw = Callable[[random.Random], float]


def figures(
    durations: list[float], *, slot: int = SMALL_READS, failed: int = 0, wrong: int = 0
) -> drive_figures.Figures:
    counts = [0] * len(drive_figures.NOTHING.counts)
    for seconds in durations:
        counts[slot * drive_figures.BUCKETS_COUNT + drive_figures.bucket(seconds)] += 1
    return drive_figures.Figures(tuple(counts), failed, wrong)


def window(
    seconds: Mapping[int, float], *, count: int = 20, usual: float = 5e-3
) -> dict[ids.DeviceId, drive_figures.Figures]:
    return {
        device_id: figures([seconds.get(number, usual)] * count)
        for number, device_id in enumerate(DEVICES)
    }


def observed(
    suspicion: drive_suspicion.DriveSuspicion,
    windows: list[dict[ids.DeviceId, drive_figures.Figures]],
    *,
    now: float = 0.0,
) -> dict[ids.DeviceId, drive_suspicion.Suspicion]:
    found: dict[ids.DeviceId, drive_suspicion.Suspicion] = {}
    for each in windows:
        found |= suspicion.observe(each, exempt=(), now_seconds=now)
    return found


def test_one_that_is_ten_times_slower_is_suspected_after_so_many_windows_and_no_sooner() -> None:
    suspicion = drive_suspicion.DriveSuspicion(LIMITS)
    slow = window({3: 50e-3})
    assert observed(suspicion, [slow] * (N - 1)) == {}
    found = observed(suspicion, [slow])
    assert list(found) == [DEVICES[3]]
    assert "small reads took" in found[DEVICES[3]].reason
    assert found[DEVICES[3]].severity == pytest.approx(10, rel=0.3)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32), victim=st.integers(0, 5), base=st.floats(2e-3, 0.1))
def test_a_noisy_device_that_is_ten_times_slower_is_found(
    seed: int, victim: int, base: float
) -> None:
    rng = random.Random(seed)
    suspicion = drive_suspicion.DriveSuspicion(LIMITS)
    windows = [
        {
            device_id: figures(
                [rng.lognormvariate(0, 0.5) * base * (10 if i == victim else 1) for _ in range(40)]
            )
            for i, device_id in enumerate(DEVICES)
        }
        for _ in range(2 * N)
    ]
    assert list(observed(suspicion, windows)) == [DEVICES[victim]]


def _exponential(rng: random.Random) -> float:
    return rng.expovariate(1 / 0.05)


def _with_long_tail(rng: random.Random) -> float:
    return rng.lognormvariate(-3.5, 1.5)


def _now_and_then_in_its_own_affairs(rng: random.Random) -> float:
    return 0.2 if rng.random() < 0.1 else 5e-3


@pytest.mark.parametrize("draw", [_exponential, _with_long_tail, _now_and_then_in_its_own_affairs])
@pytest.mark.parametrize("samples_count", [3, 16, 40])
def test_devices_that_are_alike_are_left_alone(draw: Draw, samples_count: int) -> None:
    # The rate that is promised: less than one suspicion in a thousand windows of six devices.
    rng = random.Random(f"{draw.__name__} {samples_count}")
    suspicion = drive_suspicion.DriveSuspicion(LIMITS)
    suspicions_count = 0
    for _ in range(1000):
        seen = {
            device_id: figures([draw(rng) for _ in range(samples_count)]) for device_id in DEVICES
        }
        for device_id in suspicion.observe(seen, exempt=(), now_seconds=0.0):
            suspicions_count += 1
            suspicion.forget(device_id)
    assert suspicions_count < 1


def test_nobody_is_suspected_while_the_node_is_slow_as_a_whole() -> None:
    suspicion = drive_suspicion.DriveSuspicion(LIMITS)
    assert observed(suspicion, [window({}, usual=2.0)] * 3 * N) == {}
    assert observed(suspicion, [window({0: 1.0, 1: 1.0, 2: 1.0})] * 3 * N) == {}


def test_two_of_six_may_be_slow_together() -> None:
    suspicion = drive_suspicion.DriveSuspicion(LIMITS)
    assert set(observed(suspicion, [window({0: 1.0, 4: 0.5})] * N)) == {DEVICES[0], DEVICES[4]}


def test_more_than_may_be_lost_are_not_suspected_together() -> None:
    suspicion = drive_suspicion.DriveSuspicion(LIMITS._replace(slow_max=1))
    assert observed(suspicion, [window({0: 1.0, 4: 0.5})] * 3 * N) == {}


def test_of_two_devices_none_can_be_told_to_be_the_slow_one() -> None:
    suspicion = drive_suspicion.DriveSuspicion(LIMITS)
    two = {key: value for key, value in window({0: 1.0}).items() if key in DEVICES[:2]}
    assert observed(suspicion, [two] * 3 * N) == {}


def test_what_is_fast_enough_for_anybody_is_not_slow() -> None:
    suspicion = drive_suspicion.DriveSuspicion(LIMITS)
    assert observed(suspicion, [window({0: 5e-3}, usual=2e-4)] * 3 * N) == {}


def test_now_and_then_is_not_again_and_again() -> None:
    suspicion = drive_suspicion.DriveSuspicion(LIMITS)
    assert observed(suspicion, [window({0: 1.0}), window({})] * 10 * N) == {}
    # Windows in which too little was done say nothing either way.
    windows = [window({0: 1.0}), window({0: 1e-3}, count=2)] * N
    assert list(observed(suspicion, windows)) == [DEVICES[0]]


def test_a_device_that_is_too_slow_to_do_much_is_found_all_the_same() -> None:
    suspicion = drive_suspicion.DriveSuspicion(LIMITS)
    waiting = {key: figures([2e-3] * 4, slot=FLUSHES) for key in DEVICES}
    waiting[DEVICES[5]] = figures([1.5] * 4, slot=FLUSHES)
    assert list(observed(suspicion, [waiting] * N)) == [DEVICES[5]]


def test_longer_commands_are_not_compared_with_shorter_ones() -> None:
    suspicion = drive_suspicion.DriveSuspicion(LIMITS)
    large = drive_figures.slot(drive_figures.Command.READ, drive_figures.Size.LARGE)
    mixed = window({})
    mixed[DEVICES[0]] = figures([0.2] * 40, slot=large)
    assert observed(suspicion, [mixed] * 3 * N) == {}


def test_errors_that_pile_up_are_a_suspicion_of_their_own() -> None:
    suspicion = drive_suspicion.DriveSuspicion(LIMITS)
    some = {key: figures([5e-3] * 20) for key in DEVICES}
    wrong = {**some, DEVICES[2]: figures([5e-3] * 20, wrong=5, failed=1)}
    found = observed(suspicion, [wrong, some, wrong, some])
    assert found == {}
    found = observed(suspicion, [wrong])
    assert found[DEVICES[2]].is_for_errors
    assert "3 reads failed and 15 places were not as written" in found[DEVICES[2]].reason


def test_errors_on_all_devices_are_not_the_devices() -> None:
    suspicion = drive_suspicion.DriveSuspicion(LIMITS)
    wrong = {key: figures([5e-3] * 20, wrong=20) for key in DEVICES}
    assert observed(suspicion, [wrong] * N) == {}
    half = {key: figures([5e-3], wrong=20 * (i < 3)) for i, key in enumerate(DEVICES)}
    assert observed(drive_suspicion.DriveSuspicion(LIMITS), [half] * N) == {}


def test_old_errors_are_forgotten() -> None:
    suspicion = drive_suspicion.DriveSuspicion(LIMITS)
    some = {key: figures([5e-3] * 20) for key in DEVICES}
    wrong = {**some, DEVICES[2]: figures([], wrong=15)}
    observed(suspicion, [wrong] + [some] * drive_suspicion.ERROR_WINDOWS)
    assert observed(suspicion, [wrong]) == {}


def test_one_that_was_cleared_is_left_alone_for_a_while_unless_it_is_worse() -> None:
    suspicion = drive_suspicion.DriveSuspicion(LIMITS)
    slow = [window({3: 50e-3})] * N
    (first,) = observed(suspicion, slow).values()
    suspicion.clear(DEVICES[3], first, 0.0)
    before_end, after = drive_suspicion.CLEARED_SECONDS - 1, drive_suspicion.CLEARED_SECONDS + 1
    assert observed(suspicion, slow, now=before_end) == {}
    assert list(observed(suspicion, [window({3: 0.5})] * N, now=before_end)) == [DEVICES[3]]
    suspicion.forget(DEVICES[3])
    assert list(observed(suspicion, slow, now=after)) == [DEVICES[3]]
    suspicion.clear(DEVICES[3], first, after)
    # For twice as long the second time.
    assert observed(suspicion, slow, now=after + 1.5 * drive_suspicion.CLEARED_SECONDS) == {}


def test_errors_that_come_back_after_a_passed_test_are_a_relapse() -> None:
    suspicion = drive_suspicion.DriveSuspicion(LIMITS)
    wrong = {key: figures([5e-3] * 20) for key in DEVICES}
    wrong[DEVICES[2]] = figures([], wrong=40)
    (first,) = observed(suspicion, [wrong]).values()
    assert not first.is_relapse
    suspicion.clear(DEVICES[2], first, 0.0)
    later = 2 * drive_suspicion.CLEARED_SECONDS
    (second,) = observed(suspicion, [wrong], now=later).values()
    assert second.is_relapse
