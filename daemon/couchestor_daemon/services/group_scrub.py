"""One pass over the shards of a group: every member's header, every shard, and the parity.

A few stripes are read and verified at the same time, all members of each at once, so that devices
and codec threads are busy together.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

from couchestor_daemon.formats import media_records
from couchestor_daemon.services import (
    group_walk,
    group_zones,
    repair_tools,
    shard_check,
    stripe_shards,
)
from couchestor_domain import errors, geometry, units

STRIPES_AT_ONCE_MAX: Final = 8
BYTES_AT_ONCE: Final = 16 * units.MIB
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
        self._walk: AsyncIterator[group_walk.FoundStripe] = group_walk.stripes(
            tools.media, record, end_bytes=end_bytes
        )
        self._next: group_walk.FoundStripe | None = None
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
            chosen: list[tuple[group_walk.FoundStripe, memoryview]] = []
            total_bytes = 0
            while len(chosen) < STRIPES_AT_ONCE_MAX and total_bytes < BYTES_AT_ONCE:
                if self._next is None:
                    self._next = await anext(self._walk, None)
                    if self._next is None:
                        self.ended = True
                        break
                found = self._next
                wanted_bytes = stripe_shards.memory_bytes(self.record, found) + (
                    self.record.parity_shards * found.location.chunk_bytes
                )
                buffer = (
                    self._tools.pool.try_acquire(wanted_bytes)
                    if chosen
                    else self._tools.pool.acquire(wanted_bytes)
                )
                if buffer is None:
                    break
                lent.enter_context(buffer)
                chosen.append((found, buffer.view))
                total_bytes += wanted_bytes
                self._next = None
            ended = await asyncio.gather(
                *(self._verify(found, memory) for found, memory in chosen), return_exceptions=True
            )
        results = []
        for (found, _), outcome in zip(chosen, ended, strict=True):
            if isinstance(outcome, BaseException):
                raise outcome
            self.found.append(found)
            results.append(outcome)
        return results

    async def _verify(self, found: group_walk.FoundStripe, memory: memoryview) -> list[Suspect]:
        shards_bytes = stripe_shards.memory_bytes(self.record, found)
        offset = found.location.stripe_offset_bytes
        shards = stripe_shards.StripeShards(
            self._tools.media,
            self.record,
            found,
            memory=memory[:shards_bytes],
            run_codec=self._tools.run_codec,
            pace=self._tools.pace,
        )
        here = [
            index
            for index, zone in enumerate(self._zones)
            if shard_check.in_service(self._tools.media, zone.device_id)
        ]
        await shards.read(here)
        self.read_bytes += len(here) * shards_bytes // len(self._zones)
        self.shards_count += len(shards.headers)
        suspects = [
            Suspect(offset, index, MISSING) for index in here if index not in shards.headers
        ]
        if all(index in shards.headers for index in range(self.record.data_shards)):
            wrong = await self._tools.run_codec(
                shards.parity_misfits, self._codec, memory[shards_bytes:]
            )
            suspects += [Suspect(offset, index, WRONG_PARITY) for index in wrong]
        return suspects
