"""One pass over the shards of a group: every member's header, every shard, and the parity.

A few runs of stripes are read and verified at the same time, all members of each at once, so that
devices and codec threads are busy together.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final, NamedTuple

from couchestor_daemon.formats import media_records
from couchestor_daemon.services import (
    group_walk,
    group_zones,
    repair_tools,
    run_plan,
    run_shards,
    shard_check,
)
from couchestor_domain import errors, geometry, units

RUN_BYTES: Final = units.MIB
"""Read of each member in one go, unless a single stripe is longer."""
RUNS_AT_ONCE: Final = 3
STEP_BYTES: Final = 64 * units.MIB

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
        self._plan = run_plan.RunPlan(tools.media, record, end_bytes=end_bytes, run_bytes=RUN_BYTES)
        self._planned: list[group_walk.FoundStripe] = []
        self._headers_are_checked = False
        self.ended = False

    async def advance(self) -> list[Suspect]:
        """Some of it; what is suspect there. ``ended`` tells when nothing is left.

        Raises:
            OverloadedError: the pool lends no memory now; it can go on later.
        """
        suspects: list[Suspect] = []
        if not self._headers_are_checked:
            suspects += await self._check_headers()
            self._headers_are_checked = True
        before = self.read_bytes
        while not self.ended and self.read_bytes - before < STEP_BYTES:
            for found in await self._next_batch():
                suspects += found
        return suspects

    async def _check_headers(self) -> list[Suspect]:
        suspects = []
        for index, zone in enumerate(self._zones):
            if not shard_check.in_service(self._tools.media, zone.device_id):
                continue
            formatted = False
            with contextlib.suppress(errors.DeviceError):
                formatted = await group_zones.is_formatted(
                    self._tools.media, self.record, zone, position=index
                )
            if not formatted:
                suspects.append(Suspect(shard_check.ZONE_HEADER_OFFSET, index, NO_HEADER))
        return suspects

    async def _next_batch(self) -> list[list[Suspect]]:
        with contextlib.ExitStack() as lent:
            chosen: list[tuple[list[group_walk.FoundStripe], memoryview]] = []
            while len(chosen) < RUNS_AT_ONCE:
                if not self._planned:
                    self._planned = await self._plan.next_run()
                    if not self._planned:
                        self.ended = True
                        break
                longest = max(found.location.chunk_bytes for found in self._planned)
                wanted_bytes = (
                    run_shards.length_bytes(self._planned) * len(self._zones)
                    + longest * self.record.parity_shards
                )
                buffer = (
                    self._tools.pool.try_acquire(wanted_bytes)
                    if chosen
                    else self._tools.acquire(wanted_bytes)
                )
                if buffer is None:
                    break
                lent.enter_context(buffer)
                chosen.append((self._planned, buffer.view))
                self._planned = []
            ended = await asyncio.gather(
                *(self._verify(stripes, memory) for stripes, memory in chosen),
                return_exceptions=True,
            )
        results = []
        for (stripes, _), outcome in zip(chosen, ended, strict=True):
            if isinstance(outcome, BaseException):
                raise outcome
            self.found += stripes
            results.append(outcome)
        return results

    async def _verify(
        self, stripes: list[group_walk.FoundStripe], memory: memoryview
    ) -> list[Suspect]:
        length = run_shards.length_bytes(stripes)
        shards = run_shards.RunShards(
            self._tools, self.record, stripes, memory=memory[: length * len(self._zones)]
        )
        here = [
            index
            for index, zone in enumerate(self._zones)
            if shard_check.in_service(self._tools.media, zone.device_id)
        ]
        await shards.read(here)
        wrong = await self._tools.run_codec(
            shards.parity_misfits, self._codec, memory[length * len(self._zones) :]
        )
        self.read_bytes += len(here) * length
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
