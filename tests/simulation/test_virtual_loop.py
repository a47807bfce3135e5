"""The loop's order and time follow from its seed alone."""

from __future__ import annotations

import asyncio

import pytest
from tests.simulation import virtual_loop


def make_loop(seed: str) -> virtual_loop.VirtualLoop:
    return virtual_loop.VirtualLoop(seed)  # type: ignore[abstract]


async def racers() -> list[int]:
    finished: list[int] = []

    async def racer(number: int) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        finished.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(6):
            group.create_task(racer(number))
    return finished


def run(seed: str) -> list[int]:
    return make_loop(seed).run(racers(), interrupted=lambda: False)


def test_the_same_seed_gives_the_same_order_and_others_give_others() -> None:
    orders = [run(f"{seed}") for seed in range(20)]
    assert [run(f"{seed}") for seed in range(20)] == orders
    assert len({tuple(order) for order in orders}) > 10


def test_a_timer_fires_at_its_time_without_waiting() -> None:
    loop = make_loop("timers")

    async def sleeper() -> float:
        await asyncio.sleep(3600.0)
        return asyncio.get_running_loop().time()

    assert 3600.0 <= loop.run(sleeper(), interrupted=lambda: False) < 3601.0


def test_a_deadlock_is_reported() -> None:
    loop = make_loop("deadlock")

    async def waits() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(virtual_loop.DeadlockError):
        loop.run(waits(), interrupted=lambda: False)
    loop.abandon()


def test_an_interruption_leaves_everything_as_it_stands() -> None:
    loop = make_loop("interruption")
    steps: list[int] = []

    async def counts() -> None:
        while True:
            steps.append(1)
            await asyncio.sleep(0)

    with pytest.raises(virtual_loop.InterruptedLoop):
        loop.run(counts(), interrupted=lambda: len(steps) == 5)
    assert len(steps) == 5
    loop.abandon()
    assert len(steps) == 5
