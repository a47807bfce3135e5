"""Work sent to threads: results, errors, cancellation and the end."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from couchestor_daemon.adapters import blocking_threads, worker_threads


async def test_results_and_errors_come_back_in_order() -> None:
    threads = worker_threads.WorkerThreads(2, "t")

    def fail() -> None:
        raise ValueError("no")

    assert await threads.run(divmod, 7, 2) == (3, 1)
    with pytest.raises(ValueError, match="no"):
        await threads.run(fail)
    first, second, third = await threads.run_all([lambda: 1, fail, lambda: 3])
    assert (first, third) == (1, 3)
    assert isinstance(second, ValueError)
    assert await threads.run_all([]) == []
    await asyncio.to_thread(threads.close)


async def test_commands_of_one_call_run_at_the_same_time() -> None:
    threads = worker_threads.WorkerThreads(3, "t")
    barrier = threading.Barrier(3, timeout=5)
    outcomes = await threads.run_all([barrier.wait] * 3)
    assert sorted(str(outcome) for outcome in outcomes) == ["0", "1", "2"]
    await asyncio.to_thread(threads.close)


async def test_a_cancelled_call_ends_with_what_started_and_drops_the_rest() -> None:
    threads = worker_threads.WorkerThreads(1, "t")
    started, gate = threading.Event(), threading.Event()
    ran: list[str] = []

    def slow() -> None:
        started.set()
        assert gate.wait(5)
        ran.append("slow")

    call = asyncio.create_task(threads.run_all([slow, lambda: ran.append("never")]))
    assert await asyncio.to_thread(started.wait, 5)
    call.cancel()
    await asyncio.sleep(0.01)
    assert not call.done()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await threads.run(lambda: "free") == "free"
    assert ran == ["slow"]
    await asyncio.to_thread(threads.close)


async def test_what_was_sent_is_done_before_the_end_and_nothing_is_taken_after() -> None:
    threads = worker_threads.WorkerThreads(1, "t")
    done: list[int] = []
    calls = [asyncio.create_task(threads.run(done.append, number)) for number in range(5)]
    await asyncio.sleep(0)
    await asyncio.to_thread(threads.close)
    await asyncio.gather(*calls)
    assert done == [0, 1, 2, 3, 4]
    with pytest.raises(worker_threads.ThreadsClosedError):
        await threads.run(done.append, 5)
    threads.close()


async def test_a_command_that_takes_too_long_is_left_behind_and_its_thread_replaced() -> None:
    threads = worker_threads.WorkerThreads(1, "t", seconds_max=0.05)
    gate, ended = threading.Event(), threading.Event()

    def hang() -> str:
        assert gate.wait(20)
        ended.set()
        return "late"

    hung = asyncio.create_task(threads.run(hang))
    behind = asyncio.create_task(threads.run(lambda: "behind it"))
    with pytest.raises(worker_threads.OverdueError):
        await hung
    assert await behind == "behind it"
    # One thread is stuck and one works: the end waits for neither.
    await asyncio.to_thread(threads.close)
    assert not ended.is_set()
    gate.set()
    assert await asyncio.to_thread(ended.wait, 20)


async def test_a_cancelled_caller_waits_no_longer_than_a_command_may_take() -> None:
    threads = worker_threads.WorkerThreads(2, "t", seconds_max=0.05)
    gate, started = threading.Event(), threading.Event()
    left_behind: list[int] = []

    def hang() -> None:
        started.set()
        gate.wait(20)

    def note(index: int) -> BaseException:
        left_behind.append(index)
        return worker_threads.OverdueError()

    call = asyncio.create_task(threads.run_all([lambda: None, hang], on_overdue=note))
    assert await asyncio.to_thread(started.wait, 5)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(call, 5)
    assert left_behind == [1]
    gate.set()
    await asyncio.to_thread(threads.close)


async def test_the_limit_counts_from_the_start_of_a_command_not_from_its_sending() -> None:
    threads = worker_threads.WorkerThreads(1, "t", seconds_max=0.4)
    # Together they take longer than the limit, each alone does not.
    outcomes = await threads.run_all([lambda: time.sleep(0.15)] * 4)
    assert outcomes == [None] * 4
    await asyncio.to_thread(threads.close)


def test_blocking_threads_run_commands_at_the_same_time_and_give_every_outcome() -> None:
    threads = blocking_threads.BlockingThreads("t")
    barrier = threading.Barrier(3, timeout=5)

    def fail() -> None:
        raise OSError("one of them")

    outcomes = threads.run_all([barrier.wait] * 3, seconds_max=5)
    assert sorted(str(outcome) for outcome in outcomes) == ["0", "1", "2"]
    first, second, third = threads.run_all([lambda: 1, fail, lambda: 3], seconds_max=5)
    assert (first, third) == (1, 3)
    assert isinstance(second, OSError)
    threads.close()
    threads.close()
    with pytest.raises(worker_threads.ThreadsClosedError):
        threads.run_all([lambda: None], seconds_max=5)


def test_blocking_threads_leave_behind_what_takes_too_long() -> None:
    threads = blocking_threads.BlockingThreads("t")
    gate, ended = threading.Event(), threading.Event()

    def hang() -> None:
        gate.wait(20)
        ended.set()

    quick, stuck = threads.run_all([lambda: "quick", hang], seconds_max=0.05)
    assert quick == "quick"
    assert isinstance(stuck, worker_threads.OverdueError)
    assert threads.run_all([lambda: 1, lambda: 2], seconds_max=5) == [1, 2]
    threads.close()
    assert not ended.is_set()
    gate.set()
    assert ended.wait(20)
