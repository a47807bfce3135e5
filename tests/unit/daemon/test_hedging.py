"""When a read stops waiting for a device: the policy by itself."""

from __future__ import annotations

import pytest

from couchestor_daemon.services import hedging
from couchestor_domain import ids

DEVICES = [ids.DeviceId(f"{number:032x}") for number in range(6)]


class Clock:
    """A clock that a test moves."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def measure(policy: hedging.Hedging, rounds: int, seconds: dict[ids.DeviceId, float]) -> None:
    for _ in range(rounds):
        for device in DEVICES:
            policy.measured(device, seconds.get(device, 5e-3))


def test_nothing_is_slow_before_enough_is_known() -> None:
    policy = hedging.Hedging(Clock())
    assert policy.patience_seconds() is None
    measure(policy, hedging.SAMPLES_MIN // 2, {})
    assert policy.patience_seconds() is None
    measure(policy, hedging.SAMPLES_MIN, {})
    assert policy.patience_seconds() == pytest.approx(5e-3)


@pytest.mark.parametrize("slow_count", [1, 2])
def test_slow_devices_do_not_make_slowness_usual(slow_count: int) -> None:
    policy = hedging.Hedging(Clock())
    measure(policy, 200, dict.fromkeys(DEVICES[:slow_count], 1.0))
    assert policy.patience_seconds() == pytest.approx(5e-3)


def test_a_node_that_is_slow_as_a_whole_waits() -> None:
    policy = hedging.Hedging(Clock())
    measure(policy, 200, {})
    measure(policy, 200, dict.fromkeys(DEVICES, 0.2))
    assert policy.patience_seconds() == pytest.approx(0.2)


def test_memory_fast_reads_do_not_make_the_wait_shorter_than_threads_need() -> None:
    policy = hedging.Hedging(Clock())
    measure(policy, 200, dict.fromkeys(DEVICES, 1e-5))
    assert policy.patience_seconds() == hedging.PATIENCE_SECONDS_MIN


def test_hedges_are_a_small_share_of_the_reads() -> None:
    policy = hedging.Hedging(Clock())
    while policy.take():
        pass
    assert policy.hedges_count == hedging.HEDGES_SAVED_MAX
    measure(policy, 200, {})
    policy.hedges_count = 0
    for _ in range(1000):
        for device in DEVICES[:1]:
            policy.measured(device, 5e-3)
        policy.take()
    share = (policy.hedges_count - hedging.HEDGES_SAVED_MAX) / 1000
    assert share == pytest.approx(hedging.HEDGES_PER_READ, abs=0.005)


def test_a_device_that_loses_again_and_again_is_avoided_and_tried_again() -> None:
    clock = Clock()
    policy = hedging.Hedging(clock)
    measure(policy, 50, {})
    victim = DEVICES[2]
    for _ in range(hedging.STRIKES_MAX - 1):
        policy.lost(victim)
        assert not policy.is_avoided(victim)
    policy.lost(victim)
    assert policy.is_avoided(victim)
    assert not policy.is_avoided(DEVICES[1])
    clock.seconds += hedging.AVOID_SECONDS
    assert not policy.is_avoided(victim)
    # Still slow: avoided at once, and for longer.
    policy.lost(victim)
    clock.seconds += hedging.AVOID_SECONDS
    assert policy.is_avoided(victim)
    clock.seconds += hedging.AVOID_SECONDS
    assert not policy.is_avoided(victim)
    # Well again: what was is forgotten.
    policy.measured(victim, 1e-3)
    policy.lost(victim)
    assert not policy.is_avoided(victim)


def test_a_suspect_is_avoided_at_once_and_for_as_long_as_it_is_one() -> None:
    suspects: set[ids.DeviceId] = set()
    policy = hedging.Hedging(Clock(), suspects=lambda: suspects)
    assert policy.patience_seconds() is None
    suspects.add(DEVICES[2])
    assert policy.is_avoided(DEVICES[2])
    assert not policy.is_avoided(DEVICES[1])
    # Also while nothing is known of what reads take.
    assert policy.patience_seconds() == hedging.PATIENCE_UNKNOWN_SECONDS
    suspects.clear()
    assert not policy.is_avoided(DEVICES[2])
