"""Operators that compete for a Lease in virtual time, over a network that delays, loses and lies.

No two may act at one moment, whatever happens; and when all is well again, one does.
"""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import memory_leases
import pytest
from tests.simulation import virtual_loop

from couchestor_domain import errors
from couchestor_operator.control import election
from couchestor_operator.services import leadership

T = TypeVar("T")
TERMS = election.Terms()
SEEDS_COUNT = 60
TROUBLE_SECONDS = 300.0


class Network:
    """Calls take time; in times of trouble some have no answer, and some of those come late."""

    def __init__(self, leases: memory_leases.MemoryLeases, rng: random.Random) -> None:
        self._leases = leases
        self._rng = rng
        self.is_cut = False
        self.is_troubled = True

    async def read(self) -> election.Lease | None:
        """As the inner one."""
        return await self._call(self._leases.read)

    async def write(self, lease: election.Lease) -> election.Lease:
        """As the inner one."""
        return await self._call(lambda: self._leases.write(lease))

    async def _call(self, do: Callable[[], Awaitable[T]]) -> T:
        if not self.is_troubled:
            await asyncio.sleep(self._rng.uniform(0.001, 0.1))
            return await do()
        fate = self._rng.random()
        if self.is_cut or fate < 0.1:
            await asyncio.sleep(self._rng.choice([0.01, 60.0]))
            raise errors.KubernetesApiError("the API server cannot be reached")
        if fate < 0.25:
            # It leaves, and arrives whatever becomes of the caller.
            asyncio.get_running_loop().create_task(self._late(do))
            await asyncio.sleep(self._rng.choice([0.01, 60.0]))
            raise errors.KubernetesApiError("no answer came in time")
        await asyncio.sleep(self._rng.choice([0.01, 1.0, 5.0]))
        answer = await do()
        await asyncio.sleep(self._rng.choice([0.01, 1.0, 5.0]))
        return answer

    async def _late(self, do: Callable[[], Awaitable[object]]) -> None:
        await asyncio.sleep(self._rng.choice([0.0, 1.0, 12.0, 40.0]))
        try:
            await do()
        except errors.VersionConflictError:
            return


class Clocks:
    """Those of one machine: as fast as they please within what is allowed, from any start."""

    def __init__(self, rng: random.Random) -> None:
        half = election.CLOCK_DRIFT_RATIO_MAX / 2
        self._rate = 1 + rng.uniform(-half, half)
        self._start_seconds = rng.uniform(0, 1e6)
        self._wall_offset_seconds = rng.uniform(-1e6, 1e6)

    def monotonic_seconds(self) -> float:
        """Since the boot of the machine."""
        return self._start_seconds + asyncio.get_running_loop().time() * self._rate

    def now_seconds(self) -> float:
        """Wrong by days."""
        return self._wall_offset_seconds + asyncio.get_running_loop().time()


class Race:
    """Three operators and the Lease they want."""

    def __init__(self, seed: str, *, terms: election.Terms = TERMS) -> None:
        self.rng = random.Random(seed)
        self.leases = memory_leases.MemoryLeases()
        self.networks = [Network(self.leases, self.rng) for _ in range(3)]
        self.operators = [
            leadership.Leadership(
                identity=f"operator-{number}",
                terms=terms,
                leases=network,
                since_boot=(clocks := Clocks(self.rng)),
                time=clocks,
            )
            for number, network in enumerate(self.networks)
        ]
        self.working = [False] * 3
        self.terms_of_office: list[int] = []

    def acts_twice(self) -> bool:
        """Asked after each step of the loop."""
        return sum(each.is_held() for each in self.operators) > 1

    def check(self) -> bool:
        """At most one acts. Returns: that the run goes on."""
        assert not self.acts_twice(), [each.is_held() for each in self.operators]
        return False

    async def work(self, number: int) -> None:
        """Until it is cancelled."""
        self.terms_of_office.append(number)
        self.working[number] = True
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.working[number] = False

    async def run(self) -> None:
        """Trouble, and then peace."""
        async with asyncio.TaskGroup() as group:
            runs = [
                group.create_task(each.run(functools.partial(self.work, number)))
                for number, each in enumerate(self.operators)
            ]
            loop = asyncio.get_running_loop()
            while loop.time() < TROUBLE_SECONDS:
                await asyncio.sleep(self.rng.uniform(5.0, 40.0))
                for network in self.networks:
                    network.is_cut = self.rng.random() < 0.3
                if self.rng.random() < 0.1:
                    self.leases.delete()
            for network in self.networks:
                network.is_cut = network.is_troubled = False
            # Calls of before may take a minute, and land 40 s later; then one lease.
            await asyncio.sleep(120.0 + TERMS.lease_seconds)
            assert sum(self.working) == sum(each.is_held() for each in self.operators) == 1
            for run in runs:
                run.cancel()


def _run(race: Race, seed: str) -> None:
    loop = virtual_loop.VirtualLoop(seed)  # type: ignore[abstract]
    loop.run(race.run(), interrupted=race.check)
    assert loop.problems == []


@pytest.mark.parametrize("first", range(0, SEEDS_COUNT, 10))
def test_no_two_act_at_one_moment_and_in_peace_one_does(first: int) -> None:
    transitions_count = 0
    for number in range(first, first + 10):
        race = Race(f"election {number}")
        _run(race, f"election {number}")
        transitions_count += len(race.terms_of_office)
    assert transitions_count > 30


def test_one_that_acts_as_long_as_its_lease_is_found_out() -> None:
    """The promise would not hold without the gap: so the test can fail."""
    careless = election.Terms()
    object.__setattr__(careless, "act_seconds", 30.0)

    def is_found_out(seed: str) -> bool:
        race = Race(seed, terms=careless)
        loop = virtual_loop.VirtualLoop(seed)  # type: ignore[abstract]
        try:
            loop.run(race.run(), interrupted=race.acts_twice)
        except virtual_loop.InterruptedLoop:
            loop.abandon()
            return True
        return False

    assert any(is_found_out(f"careless {number}") for number in range(SEEDS_COUNT))


def _peaceful(main: Callable[[Race], Awaitable[None]]) -> Race:
    race = Race("peace")
    for network in race.networks:
        network.is_troubled = False

    async def started() -> None:
        await main(race)

    loop = virtual_loop.VirtualLoop("peace")  # type: ignore[abstract]
    loop.run(started(), interrupted=race.check)
    assert loop.problems == []
    return race


def test_a_lease_that_is_given_back_is_taken_at_the_next_look() -> None:
    async def main(race: Race) -> None:
        loop = asyncio.get_running_loop()
        first = loop.create_task(race.operators[0].run(lambda: race.work(0)))
        await asyncio.sleep(TERMS.lease_seconds + 5.0)
        second = loop.create_task(race.operators[1].run(lambda: race.work(1)))
        await asyncio.sleep(60.0)
        assert race.working == [True, False, False]
        first.cancel()
        await asyncio.wait([first])
        assert race.leases.lease is not None
        assert race.leases.lease.holder == ""
        await asyncio.sleep(TERMS.renew_seconds + 0.5)
        assert race.working == [False, True, False]
        second.cancel()
        await asyncio.wait([second])

    race = _peaceful(main)
    assert race.terms_of_office == [0, 1]
    assert race.leases.lease is not None
    assert race.leases.lease.transitions_count == 1


def test_one_that_is_cut_off_stops_before_another_begins_and_does_not_come_back_by_itself() -> None:
    async def main(race: Race) -> None:
        loop = asyncio.get_running_loop()
        runs = [loop.create_task(race.operators[0].run(lambda: race.work(0)))]
        await asyncio.sleep(TERMS.lease_seconds + 5.0)
        runs.append(loop.create_task(race.operators[1].run(lambda: race.work(1))))
        await asyncio.sleep(5.0)
        race.networks[0].is_cut = race.networks[0].is_troubled = True
        await asyncio.sleep(TERMS.act_seconds + 0.5)
        assert race.working == [False, False, False]
        await asyncio.sleep(TERMS.lease_seconds)
        assert race.working == [False, True, False]
        race.networks[0].is_cut = race.networks[0].is_troubled = False
        await asyncio.sleep(100.0)
        assert race.working == [False, True, False]
        for run in runs:
            run.cancel()
        await asyncio.wait(runs)

    assert _peaceful(main).terms_of_office == [0, 1]


def test_work_that_ends_by_itself_ends_the_run_and_what_it_raises_is_raised() -> None:
    async def main(race: Race) -> None:
        async def fails() -> None:
            await asyncio.sleep(3.0)
            raise errors.ConfigurationError("no such thing")

        with pytest.raises(errors.ConfigurationError):
            await race.operators[0].run(fails)
        assert race.leases.lease is not None
        assert race.leases.lease.holder == ""
        assert not race.operators[0].is_held()

    _peaceful(main)


@pytest.mark.parametrize(
    ("lease_seconds", "act_seconds", "renew_seconds"),
    [(15, 14.9, 2.0), (15, 10.0, 10.0), (15, 10.0, 0.0), (10, 10.0, 2.0)],
)
def test_terms_that_leave_no_gap_are_refused(
    lease_seconds: int, act_seconds: float, renew_seconds: float
) -> None:
    with pytest.raises(errors.ConfigurationError, match="an election needs"):
        election.Terms(
            lease_seconds=lease_seconds, act_seconds=act_seconds, renew_seconds=renew_seconds
        )
