"""Several stripes moved at once, and what is kept of those that were not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from couchestor_daemon.formats import l2p_record
from couchestor_daemon.services import evacuation, relocation
from couchestor_daemon.services.catalogue import l2p
from couchestor_domain import errors, ids

ENTRIES_PER_STRIPE = 3
ENTRY_BYTES = 100
STRIPE_BYTES = ENTRIES_PER_STRIPE * ENTRY_BYTES


def entry(number: int) -> l2p.Entry:
    address = ids.ExtentAddress(number * ENTRY_BYTES)
    return l2p.Entry(address, l2p_record.JournalLocation(1, 0, ENTRY_BYTES, 0))


class Stripes:
    """Stands for ``Relocation``: takes three entries a stripe, and fails as it is told."""

    stripes_count = 4

    def __init__(self) -> None:
        self.moved: list[int] = []
        self.at_once_max = 0
        self.failing: set[int] = set()
        """Numbers of entries whose stripe fails once."""
        self._under_way = 0

    def fitting_count(self, entries: Sequence[l2p.Entry]) -> int:
        return min(len(entries), ENTRIES_PER_STRIPE)

    async def move(self, entries: Sequence[l2p.Entry]) -> relocation.Moved:
        self._under_way += 1
        self.at_once_max = max(self.at_once_max, self._under_way)
        await asyncio.sleep(0)
        self._under_way -= 1
        numbers = [each.address // ENTRY_BYTES for each in entries]
        if failing := self.failing & set(numbers):
            self.failing -= failing
            raise errors.StoreFullError("no zone is free")
        self.moved += numbers
        return relocation.Moved(taken_count=len(entries), switched_count=len(entries))


class Source:
    """Finds entries two by two."""

    def __init__(self, numbers: range) -> None:
        self._numbers = numbers

    async def entries(self) -> AsyncIterator[list[l2p.Entry]]:
        for first in range(self._numbers.start, self._numbers.stop, 2):
            yield [entry(each) for each in self._numbers[first - self._numbers.start :][:2]]


def emptying(stripes: Stripes) -> evacuation.Evacuation:
    return evacuation.Evacuation(stripes, stripe_bytes=STRIPE_BYTES)  # type: ignore[arg-type]


async def test_stripes_are_moved_together_and_every_entry_once() -> None:
    stripes, sources = Stripes(), iter([Source(range(10)), Source(range(10, 31))])
    worker = emptying(stripes)
    counts = []
    while (moved := await worker.step(lambda: next(sources, None))) is not None:
        counts.append(moved.taken_count)
    assert sorted(stripes.moved) == list(range(31))
    assert stripes.at_once_max == 4
    assert counts[0] == 12


async def test_what_failed_is_tried_again_and_nothing_else() -> None:
    stripes, sources = Stripes(), iter([Source(range(12))])
    stripes.failing = {4}
    worker = emptying(stripes)
    with pytest.raises(errors.StoreFullError):
        await worker.step(lambda: next(sources, None))
    assert sorted(stripes.moved) == [0, 1, 2, *range(6, 12)]
    await worker.step(lambda: next(sources, None))
    assert sorted(stripes.moved) == list(range(12))
    assert await worker.step(lambda: next(sources, None)) is None


async def test_the_rest_of_a_walk_waits_until_it_fills_a_stripe() -> None:
    stripes = Stripes()
    stripes.stripes_count = 2
    sources = iter([Source(range(16))])
    worker = emptying(stripes)
    sizes = []
    while (moved := await worker.step(lambda: next(sources, None))) is not None:
        sizes.append(moved.taken_count)
    assert sizes == [6, 6, 4]
    assert sorted(stripes.moved) == list(range(16))
