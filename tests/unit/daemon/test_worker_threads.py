"""Work sent to threads: results, errors, cancellation and the end."""

from __future__ import annotations

import asyncio
import threading

import pytest

from couchestor_daemon.adapters import worker_threads


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


def test_a_fan_out_ends_only_when_all_have_and_raises_a_failure() -> None:
    fan_out = worker_threads.FanOut(2, "t")
    barrier = threading.Barrier(3, timeout=5)
    done: list[str] = []

    def fail() -> None:
        raise OSError("one of them")

    def late() -> None:
        barrier.wait()
        done.append("late")

    fan_out([barrier.wait, barrier.wait, late])
    with pytest.raises(OSError, match="one of them"):
        fan_out([fail, lambda: done.append("b"), lambda: done.append("c")])
    with pytest.raises(OSError, match="one of them"):
        fan_out([lambda: None, fail, lambda: None])
    fan_out([lambda: done.append("alone")])
    assert sorted(done) == ["alone", "b", "c", "late"]
    fan_out.close()
    fan_out.close()
