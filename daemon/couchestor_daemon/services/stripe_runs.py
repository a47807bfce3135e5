"""A sealed group as runs of stripes that lie together, the shards that are wanted in memory.

Small stripes come several at a time, as one piece to be written. A few runs are made at the same
time; the memory of each holds every member's part once, wanted or read.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from couchestor_daemon.formats import media_records
from couchestor_daemon.services import (
    group_walk,
    in_flight,
    repair_tools,
    run_plan,
    run_shards,
    shard_check,
    stripe_references,
)
from couchestor_domain import geometry, units

RUN_BYTES: Final = units.MIB
"""Of one member, unless a single stripe is longer."""


class LostStripeError(Exception):
    """Bytes that the L2P leads to cannot be had from the shards that are left."""


@dataclass(slots=True, eq=False)
class Run:
    """Stripes without a gap between them."""

    stripes: list[group_walk.FoundStripe]
    start_bytes: int
    end_bytes: int
    content: Mapping[int, memoryview]
    """Member index -> its bytes from start to end: whole shards. In memory lent to who made it."""


Making = in_flight.InFlight[Run | None]
"""Runs being made; None for one of which every stripe is lost, and nobody misses it."""


class StripeRuns:
    """The runs of one group by offset.

    Args:
        targets: Members whose shards are wanted.
        distrusted: (stripe offset, shard index) of shards that are wrong although they verify.
    """

    def __init__(
        self,
        tools: repair_tools.Tools,
        record: media_records.GroupRecord,
        targets: Sequence[int],
        *,
        distrusted: Collection[tuple[int, int]],
        end_bytes: int,
    ) -> None:
        self.ended = False
        """Whether there is no run behind those that were begun."""
        self.run_bytes = 0
        """Memory of the longest run that was planned so far."""
        self.decoded_count = 0
        """Shards so far that could not be copied."""
        self._tools = tools
        self._record = record
        self._targets = targets
        self._distrusted = frozenset(distrusted)
        self._codec = tools.codecs(
            geometry.StripeGeometry(record.data_shards, record.parity_shards), record.codec_id
        )
        self._plan = run_plan.RunPlan(tools.media, record, end_bytes=end_bytes, run_bytes=RUN_BYTES)
        self._planned: list[group_walk.FoundStripe] = []
        self._zones = media_records.zone_addresses(record.members)
        self._turns = [asyncio.Lock() for _ in self._zones]

    async def plan(self) -> None:
        """Look for the run that is begun next, unless that is known.

        Cancellation: nothing of the group can be begun any more.
        """
        if self._planned or self.ended:
            return
        self._planned = await self._plan.next_run()
        if self._planned:
            self.run_bytes = max(self.run_bytes, self._memory_bytes(self._planned))
        else:
            self.ended = True

    async def begin_next(self, making: Making, *, is_first: bool) -> bool:
        """Start to make the next run; False when there is none, or no memory for it.

        A run that is taken raises LostStripeError when a stripe that somebody misses has too few
        shards.

        Raises:
            OverloadedError: no memory, and it ``is_first``; the next call goes on.
        """
        await self.plan()
        if self.ended:
            return False
        wanted_bytes = self._memory_bytes(self._planned)
        memory = (
            self._tools.acquire(wanted_bytes)
            if is_first
            else self._tools.acquire_beside(wanted_bytes, first_bytes=wanted_bytes)
        )
        if memory is None:
            return False
        making.begin(self._make(self._planned, memory.view), memory)
        self._planned = []
        return True

    def _memory_bytes(self, planned: Sequence[group_walk.FoundStripe]) -> int:
        return run_shards.length_bytes(planned) * len(self._zones)

    async def _make(
        self, planned: Sequence[group_walk.FoundStripe], memory: memoryview
    ) -> Run | None:
        absent = [
            index
            for index, zone in enumerate(self._zones)
            if not shard_check.in_service(self._tools.media, zone.device_id)
        ]
        shards = run_shards.RunShards(
            self._tools,
            self._record,
            planned,
            memory=memory,
            absent=absent,
            distrusted=self._distrusted,
            turns=self._turns,
        )
        lost = await shards.rebuild(self._codec, self._targets, first=self._first_read(absent))
        self.decoded_count += sum(
            index not in headers
            for number, headers in enumerate(shards.headers)
            if number not in lost
            for index in self._targets
        )
        for number in lost:
            await self._check_nobody_misses(shards, number)
            for index in self._targets:
                place = shards.shard(number, index)
                place[:] = bytes(len(place))
        whole = [found for number, found in enumerate(planned) if number not in lost]
        if not whole:
            return None
        start = planned[0].location.stripe_offset_bytes
        end = start + run_shards.length_bytes(planned)
        return Run(whole, start, end, {index: shards.piece(index) for index in self._targets})

    def _first_read(self, absent: Collection[int]) -> list[int]:
        """The members to be read at once: those that are wanted, to be copied; and as many others
        as it takes to decode one that is not there."""
        found = [index for index in self._targets if index not in absent]
        if len(found) < len(self._targets):
            others = (i for i in range(len(self._zones)) if i not in absent and i not in found)
            found += itertools.islice(others, max(0, self._record.data_shards - len(found)))
        return found

    async def _check_nobody_misses(self, shards: run_shards.RunShards, number: int) -> None:
        live_bytes = await stripe_references.live_bytes_exactly(
            self._tools, self._record, shards.stripes[number]
        )
        if live_bytes:
            why = shards.insufficient(number)
            raise LostStripeError(f"{why}: {live_bytes} live bytes are lost") from why
