"""Work in flight is taken in order, and leaves neither threads nor memory behind."""

from __future__ import annotations

import asyncio

import pytest

from couchestor_daemon import buffers
from couchestor_daemon.services import in_flight
from couchestor_domain import units


class Bench:
    """Pieces that end when told, each with memory of one pool."""

    def __init__(self) -> None:
        self.pool = buffers.BufferPool(units.MIB)
        self.gates = [asyncio.Event() for _ in range(3)]
        self.ended: list[int] = []
        self.lent_bytes: list[int] = []
        """When pieces that were cancelled ended."""

    def memory(self) -> buffers.AlignedBuffer:
        return self.pool.acquire(units.BLOCK_BYTES)

    async def piece(self, number: int) -> int:
        try:
            await self.gates[number].wait()
        except asyncio.CancelledError:
            # As a command does that has been started: it is waited for.
            await asyncio.sleep(0)
            self.lent_bytes.append(self.pool.lent_bytes)
            raise
        finally:
            self.ended.append(number)
        return number

    def begin_all(self, flight: in_flight.InFlight[int]) -> None:
        for number in range(len(self.gates)):
            flight.begin(self.piece(number), self.memory())


async def test_pieces_are_taken_in_the_order_they_began() -> None:
    bench = Bench()
    async with in_flight.InFlight[int]() as flight:
        bench.begin_all(flight)
        for gate in reversed(bench.gates):
            gate.set()
        found = []
        while flight:
            found.append(await flight.first())
            flight.take()
        assert found == [0, 1, 2]
        assert bench.pool.lent_bytes == 0


async def test_a_piece_that_fails_ends_the_others_before_their_memory_is_lent_again() -> None:
    bench = Bench()

    async def fails() -> int:
        raise ValueError("as told")

    async def work() -> None:
        async with in_flight.InFlight[int]() as flight:
            bench.begin_all(flight)
            for number in range(len(bench.gates)):
                bench.gates[number].set()
                await flight.first()
                flight.take()
            bench.gates = [asyncio.Event() for _ in bench.gates]
            flight.begin(fails(), bench.memory())
            flight.begin(bench.piece(0), bench.memory())
            flight.begin(bench.piece(1), bench.memory())
            await flight.first()

    with pytest.raises(ValueError, match="as told"):
        await asyncio.wait_for(work(), 1)
    assert bench.ended == [0, 1, 2, 0, 1]
    # That of the one that failed, too.
    assert bench.lent_bytes == [3 * units.BLOCK_BYTES] * 2
    assert bench.pool.lent_bytes == 0


async def test_a_cancelled_caller_waits_for_what_is_under_way() -> None:
    bench = Bench()

    async def work() -> None:
        async with in_flight.InFlight[int]() as flight:
            bench.begin_all(flight)
            await flight.first()

    task = asyncio.ensure_future(work())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()  # And again, while it waits.
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(bench.ended) == [0, 1, 2]
    assert bench.lent_bytes == [3 * units.BLOCK_BYTES] * 3
    assert bench.pool.lent_bytes == 0


async def test_a_piece_that_never_began_gives_its_memory_back() -> None:
    bench = Bench()

    async def work() -> None:
        async with in_flight.InFlight[int]() as flight:
            bench.begin_all(flight)
            raise LookupError

    with pytest.raises(LookupError):
        await work()
    assert bench.ended == []
    assert bench.pool.lent_bytes == 0
