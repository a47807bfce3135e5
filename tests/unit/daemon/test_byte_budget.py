"""Memory shared by bodies in flight: bounded, in order, and given back whatever happens."""

from __future__ import annotations

import asyncio

import pytest

from couchestor_daemon.services import byte_budget
from couchestor_domain import errors


class Holder:
    """Borrows until told to let go."""

    def __init__(self, budget: byte_budget.ByteBudget, size_bytes: int) -> None:
        self.has_it = False
        self.let_go = asyncio.Event()
        self.task = asyncio.create_task(self._hold(budget, size_bytes))

    async def _hold(self, budget: byte_budget.ByteBudget, size_bytes: int) -> None:
        async with budget.borrowed(size_bytes):
            self.has_it = True
            await self.let_go.wait()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_many_small_ones_fit_where_few_large_ones_do() -> None:
    budget = byte_budget.ByteBudget(8)
    holders = [Holder(budget, 1) for _ in range(9)]
    await settle()
    assert [holder.has_it for holder in holders] == [True] * 8 + [False]
    holders[3].let_go.set()
    await settle()
    assert holders[8].has_it
    for holder in holders:
        holder.let_go.set()
    await asyncio.gather(*(holder.task for holder in holders))


async def test_a_large_one_is_not_overtaken_and_more_than_all_is_all() -> None:
    budget = byte_budget.ByteBudget(8)
    first, large, small = Holder(budget, 6), Holder(budget, 100), Holder(budget, 1)
    await settle()
    assert (first.has_it, large.has_it, small.has_it) == (True, False, False)
    first.let_go.set()
    await settle()
    assert (large.has_it, small.has_it) == (True, False)
    large.let_go.set()
    small.let_go.set()
    await asyncio.gather(first.task, large.task, small.task)


@pytest.mark.parametrize("when", ["before its turn", "just before", "just after"])
async def test_a_cancelled_one_leaves_nothing_taken(when: str) -> None:
    budget = byte_budget.ByteBudget(8)
    async with budget.borrowed(8):
        doomed, last = Holder(budget, 8), Holder(budget, 8)
        await settle()
        if when != "just after":
            doomed.task.cancel()
        if when == "before its turn":
            await settle()
    if when == "just after":
        doomed.task.cancel()
    await settle()
    assert (doomed.has_it, last.has_it) == (False, True)
    last.let_go.set()
    await last.task
    assert doomed.task.cancelled()


async def test_those_who_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_budget, "WAITING_MAX", 2)
    budget = byte_budget.ByteBudget(1)
    holders = [Holder(budget, 1) for _ in range(3)]
    await settle()
    with pytest.raises(errors.OverloadedError, match="2 uploads are waiting"):
        async with budget.borrowed(1):
            pass
    for holder in holders:
        holder.let_go.set()
    await asyncio.gather(*(holder.task for holder in holders))
