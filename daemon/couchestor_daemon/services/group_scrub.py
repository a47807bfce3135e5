"""One pass over the shards of a group: every member's header, every shard, and the parity.

A few runs of stripes are read and verified at the same time, all members of each at once; when one
is done the next begins, so that devices and codec threads are busy together.
"""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

from couchestor_daemon.formats import media_records
from couchestor_daemon.services import (
    group_walk,
    group_zones,
    in_flight,
    repair_tools,
    run_plan,
    run_shards,
    shard_check,
)
from couchestor_domain import errors, geometry, units

RUN_BYTES: Final = units.MIB
"""Read of each member in one go, unless a single stripe is longer."""
RUNS_AT_ONCE: Final = 3
STEP_SECONDS: Final = 1.0
"""Runs are begun for so long in one step: at its end nothing is read ahead any more."""

MISSING: Final = "does not verify"
WRONG_PARITY: Final = "is not the parity of its data"
NO_HEADER: Final = "has lost the header of its zone"


class Suspect(NamedTuple):
    """A shard that was not as it should be when it was read."""

    offset_bytes: int
    shard_index: int
    reason: str


class GroupScrub:
    """The shards of one group, from its first stripe to the last."""

    def __init__(
        self, tools: repair_tools.Tools, record: media_records.GroupRecord, *, end_bytes: int
    ) -> None:
        self.record = record
        self.found: list[group_walk.FoundStripe] = []
        """Stripes seen so far."""
        self.read_bytes = 0
        self.shards_count = 0
        """Shards that verified so far."""
        self._tools = tools
        self._zones = media_records.zone_addresses(record.members)
        self._codec = tools.codecs(
            geometry.StripeGeometry(record.data_shards, record.parity_shards), record.codec_id
        )
        self._plan = run_plan.RunPlan(
            tools.media, record, end_bytes=end_bytes, run_bytes=RUN_BYTES, past_cache=True
        )
        self._turns = [asyncio.Lock() for _ in self._zones]
        self._planned: list[group_walk.FoundStripe] = []
        self._suspects: list[Suspect] = []
        """Kept for the next call when this one is refused memory."""
        self._headers_are_checked = False
        self.ended = False

    async def advance(self) -> list[Suspect]:
        """Some of it; what is suspect there. ``ended`` tells when nothing is left.

        Raises:
            OverloadedError: the pool lends no memory now; it can go on later.
        """
        if not self._headers_are_checked:
            self._suspects += await self._check_headers()
            self._headers_are_checked = True
        now_seconds = asyncio.get_running_loop().time
        until = now_seconds() + STEP_SECONDS
        before_bytes = self.read_bytes
        async with in_flight.InFlight[list[Suspect]]() as verifying:
            while True:
                while len(verifying) < RUNS_AT_ONCE and now_seconds() < until:
                    is_first = not verifying and self.read_bytes == before_bytes
                    if not await self._begin_next(verifying, is_first=is_first):
                        break
                if not verifying:
                    break
                self._suspects += await verifying.first()
                verifying.take()
        suspects, self._suspects = self._suspects, []
        return suspects

    async def _check_headers(self) -> list[Suspect]:
        here = self._in_service()
        formatted = await asyncio.gather(*(self._is_formatted(index) for index in here))
        return [
            Suspect(shard_check.ZONE_HEADER_OFFSET, index, NO_HEADER)
            for index, is_formatted in zip(here, formatted, strict=True)
            if not is_formatted
        ]

    async def _is_formatted(self, index: int) -> bool:
        try:
            return await group_zones.is_formatted(
                self._tools.media, self.record, self._zones[index], position=index
            )
        except errors.DeviceError:
            return False

    def _in_service(self) -> list[int]:
        return [
            index
            for index, zone in enumerate(self._zones)
            if shard_check.in_service(self._tools.media, zone.device_id)
        ]

    async def _begin_next(
        self, verifying: in_flight.InFlight[list[Suspect]], *, is_first: bool
    ) -> bool:
        """Start on the next run; False when there is none, or no memory for it.

        Raises:
            OverloadedError: no memory, and it ``is_first``: what a call has found is told first.
        """
        if not self._planned:
            self._planned = await self._plan.next_run()
            if not self._planned:
                self.ended = True
                return False
        scratch_bytes = run_shards.scratch_bytes(self._planned, self.record)
        wanted_bytes = run_shards.length_bytes(self._planned) * len(self._zones) + scratch_bytes
        memory = (
            self._tools.acquire(wanted_bytes)
            if is_first
            else self._tools.acquire_beside(wanted_bytes, first_bytes=wanted_bytes)
        )
        if memory is None:
            return False
        shards = run_shards.RunShards(
            self._tools,
            self.record,
            self._planned,
            memory=memory.view[: wanted_bytes - scratch_bytes],
            turns=self._turns,
            past_cache=True,
        )
        start_bytes = self._planned[0].location.stripe_offset_bytes
        for index, zone in enumerate(self._zones):
            if self._plan.fill(zone, start_bytes, shards.piece(index)):
                shards.has_been_read(index)
        scratch = memory.view[wanted_bytes - scratch_bytes : wanted_bytes]
        verifying.begin(self._verify(self._planned, shards, scratch), memory)
        self._planned = []
        return True

    async def _verify(
        self,
        stripes: list[group_walk.FoundStripe],
        shards: run_shards.RunShards,
        scratch: memoryview,
    ) -> list[Suspect]:
        here = self._in_service()
        await shards.fetch(here)
        wrong = await self._tools.run_codec(self._verdict, shards, here, scratch)
        self.found += stripes
        self.read_bytes += len(here) * run_shards.length_bytes(stripes)
        suspects = []
        for number, found in enumerate(stripes):
            headers, offset = shards.headers[number], found.location.stripe_offset_bytes
            self.shards_count += len(headers)
            suspects += [Suspect(offset, index, MISSING) for index in here if index not in headers]
        suspects += [
            Suspect(stripes[number].location.stripe_offset_bytes, index, WRONG_PARITY)
            for number, index in wrong
        ]
        return suspects

    def _verdict(
        self, shards: run_shards.RunShards, here: list[int], scratch: memoryview
    ) -> list[tuple[int, int]]:
        """Both in one hop to a thread."""
        shards.verify(here)
        return shards.parity_misfits(self._codec, scratch)
