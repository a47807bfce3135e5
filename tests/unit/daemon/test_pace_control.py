"""The pace of background work against models of a node under load."""

from __future__ import annotations

import random

import pytest

from couchestor_daemon.services import pace_control
from couchestor_domain import units

FLOOR = 4.0 * units.MIB
CEILING = 4.0 * units.GIB
WINDOW_SECONDS = 0.5


def controller() -> pace_control.PaceController:
    return pace_control.PaceController(
        floor_bytes_per_second=FLOOR, ceiling_bytes_per_second=CEILING, tolerated_ratio=1.5
    )


class Node:
    """A node whose latency follows an M/M/1 queue: it grows as the devices get busy.

    Args:
        device_bytes_per_second: What the devices can do.
        foreground_share: Part of that which requests take.
        idle_latency_seconds: Latency with the devices idle.
    """

    def __init__(
        self,
        foreground_share: float,
        *,
        device_bytes_per_second: float = 500.0 * units.MIB,
        idle_latency_seconds: float = 2e-3,
        noise: float = 0.1,
    ) -> None:
        self.foreground_share = foreground_share
        self._device_bytes_per_second = device_bytes_per_second
        self._idle_latency_seconds = idle_latency_seconds
        self._noise = noise
        self._rng = random.Random(1)

    def latency_seconds(self, background: float) -> float:
        busy = min(0.99, self.foreground_share + background / self._device_bytes_per_second)
        noise = self._rng.uniform(1 - self._noise, 1 + self._noise)
        return self._idle_latency_seconds / (1 - busy) * noise

    def window(self, background: float) -> pace_control.Window:
        count = int(1000 * self.foreground_share)
        return pace_control.Window(WINDOW_SECONDS, count, self.latency_seconds(background))


def run(pace: pace_control.PaceController, node: Node, seconds: float) -> list[float]:
    rates = []
    for _ in range(int(seconds / WINDOW_SECONDS)):
        rates.append(pace.bytes_per_second)
        pace.observe(node.window(rates[-1]))
    return rates


def test_an_idle_node_is_used_to_the_full_within_seconds() -> None:
    rates = run(controller(), Node(0.0), 5)
    assert rates[0] == FLOOR
    assert rates[-1] == CEILING


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6])
def test_requests_take_little_longer_and_the_work_goes_on(share: float) -> None:
    node = Node(share)
    pace = controller()
    run(pace, node, 60)
    settled = run(pace, node, 120)
    quiet = Node(share, noise=0.0).latency_seconds(0)
    beside = sorted(Node(share, noise=0.0).latency_seconds(rate) for rate in settled)
    assert beside[len(beside) // 2] < 1.6 * quiet
    assert beside[int(len(beside) * 0.95)] < 2 * quiet
    # Room for it: what brings the queue to one and a half times the quiet latency, at least half.
    room = 500.0 * units.MIB * (1 - share) / 3
    assert sum(settled) / len(settled) > room / 2


def test_a_saturated_node_gets_the_floor_and_the_work_still_ends() -> None:
    pace = controller()
    run(pace, Node(0.3), 30)
    # Requests now take all there is; what that costs them is not the background's doing, but
    # whatever is added on top is.
    rates = run(pace, Node(0.985), 10)
    assert min(rates) == FLOOR
    assert sorted(rates)[len(rates) // 2] < 20 * units.MIB


def test_load_that_comes_on_an_idle_node_is_answered_at_once() -> None:
    pace = controller()
    run(pace, Node(0.0), 20)
    rates = run(pace, Node(0.5), 10)
    # The first window of load is the last at full speed.
    assert rates[0] == CEILING
    assert rates[1:3] == [FLOOR, FLOOR]
    assert max(rates[1:]) < 200.0 * units.MIB


def test_a_load_that_slows_down_by_itself_is_not_blamed_on_the_background_for_long() -> None:
    pace = controller()
    run(pace, Node(0.3), 30)
    slower = Node(0.3, idle_latency_seconds=8e-3)
    run(pace, slower, 2 * pace_control.BASELINE_SECONDS)
    settled = run(pace, slower, 60)
    assert sum(settled) / len(settled) > 10 * FLOOR


def test_a_few_requests_do_not_stop_the_work() -> None:
    pace = controller()
    for _ in range(40):
        pace.observe(pace_control.Window(WINDOW_SECONDS, 3, 10.0))
    assert pace.bytes_per_second == CEILING
