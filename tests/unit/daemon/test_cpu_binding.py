"""Threads on one CPU, and those that they start."""

from __future__ import annotations

import asyncio
import os

import pytest

from couchestor_daemon.adapters import blocking_threads, cpu_binding, worker_threads

ALLOWED = sorted(os.sched_getaffinity(0))


def _mine() -> set[int]:
    return set(os.sched_getaffinity(0))


@pytest.mark.parametrize("index", range(5))
async def test_a_pool_and_the_threads_that_it_waits_for_share_a_cpu_of_this_process(
    index: int,
) -> None:
    committing = worker_threads.WorkerThreads(1, "t", on_start=cpu_binding.binder(index))
    free = worker_threads.WorkerThreads(1, "free")
    waited_for = blocking_threads.BlockingThreads("b")
    try:
        home = {ALLOWED[index % len(ALLOWED)]}
        assert await committing.run(_mine) == home
        seen = await committing.run(lambda: waited_for.run_all([_mine] * 3, seconds_max=10))
        assert seen == [home] * 3
        assert await free.run(_mine) == set(ALLOWED)
        assert _mine() == set(ALLOWED)
    finally:
        await asyncio.to_thread(committing.close)
        await asyncio.to_thread(free.close)
        await asyncio.to_thread(waited_for.close)


async def test_where_nothing_can_be_bound_threads_work_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(pid: int, cpus: object) -> None:
        raise PermissionError("not here")

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    threads = worker_threads.WorkerThreads(1, "t", on_start=cpu_binding.binder(0))
    assert await threads.run(lambda: "done") == "done"
    monkeypatch.delattr(os, "sched_getaffinity")
    elsewhere = worker_threads.WorkerThreads(1, "t", on_start=cpu_binding.binder(0))
    assert await elsewhere.run(lambda: "done") == "done"
    for each in (threads, elsewhere):
        await asyncio.to_thread(each.close)
