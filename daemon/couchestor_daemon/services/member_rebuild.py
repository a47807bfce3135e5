"""Members of one sealed group written anew: every shard copied or rebuilt, then read back.

While one run of stripes is being written the next ones are being read and decoded, and what was
flushed before is being read back, so devices and codec are busy at the same time. A run is a few
small stripes or one large one. Nothing in the index is changed here.

Memory of one attempt, of a pool that others work with, too: ``RUNS_AT_ONCE`` runs, each of all
members once, and what ``zone_read_back`` reads at once. None is held between two calls, none is
waited for, and all but the first run is done without when there is no more
(``repair_tools.Tools.acquire_beside``).
"""

from __future__ import annotations

import asyncio
import mmap
from collections.abc import Collection, Mapping
from typing import Final

from couchestor_daemon.formats import media_records, zone_header
from couchestor_daemon.ports import media as media_port
from couchestor_daemon.services import (
    group_walk,
    group_zones,
    in_flight,
    repair_tools,
    stripe_references,
    stripe_runs,
    zone_read_back,
)
from couchestor_domain import ids, units

RUNS_AT_ONCE: Final = 3
"""One that is written, and others that are made meanwhile."""
STEP_SECONDS: Final = 1.0
"""Pieces are begun for so long in one step: at its end nothing is read ahead any more."""
FLUSH_BYTES: Final = 16 * units.MIB
"""Written to a zone between flushes: the log's own writes wait behind one."""
FILLER_BYTES: Final = 64 * units.KIB


class MemberRebuild:
    """One attempt to write members of a group to fresh zones.

    Args:
        record: The group, sealed.
        fresh: Member index -> the zone that takes its place.
        distrusted: (stripe offset, shard index) of shards that are wrong although they verify.
        end_bytes: ``group_walk.end_bytes`` of the group.
    """

    def __init__(
        self,
        tools: repair_tools.Tools,
        record: media_records.GroupRecord,
        fresh: Mapping[int, ids.ZoneAddress],
        *,
        distrusted: Collection[tuple[int, int]],
        end_bytes: int,
    ) -> None:
        self.record = record
        self.fresh = dict(fresh)
        self.moved_bytes = 0
        """Shards and padding written so far, over all fresh zones."""
        self._tools = tools
        self._runs = stripe_runs.StripeRuns(
            tools, record, tuple(fresh), distrusted=distrusted, end_bytes=end_bytes
        )
        self._zones = tuple(
            self.fresh.get(index, zone)
            for index, zone in enumerate(media_records.zone_addresses(record.members))
        )
        self._offset_bytes = 0
        """Write pointer of the fresh zones, which grow in lockstep."""
        self._unflushed_bytes = 0
        self._written: list[group_walk.FoundStripe] = []
        self._is_written = False
        """Whether every shard was written and flushed."""
        self._read_back = zone_read_back.ZoneReadBack(tools, record, self.fresh)

    @property
    def decoded_count(self) -> int:
        """Shards that were decoded from others, not copied."""
        return self._runs.decoded_count

    async def advance(self, *, until_seconds: float | None = None) -> bool:
        """Do some of it; True once every shard is durable and was read back whole.

        After an error or a cancellation the attempt is void: begin another.

        Args:
            until_seconds: Only one piece is begun later than that, on the loop's clock; None: that
                is ``STEP_SECONDS`` from now.

        Raises:
            LostStripeError: bytes that somebody misses cannot be had.
            OverloadedError: the pool lends no memory now; the attempt can go on later.
            DeviceError: a fresh zone could not be written, or does not hold what was written.
        """
        if self._offset_bytes == 0:
            for position in self.fresh:
                await group_zones.format_zone(
                    self._tools.media,
                    self._tools.pool,
                    self.record,
                    self._zones,
                    position=position,
                )
            self._offset_bytes = zone_header.ZONE_HEADER_BYTES
        if until_seconds is None:
            until_seconds = asyncio.get_running_loop().time() + STEP_SECONDS
        if not self._is_written:
            await self._fill(until_seconds)
            return False
        if not self._read_back.ended:
            await self._read_back.advance(until_seconds, run_bytes=self._runs.run_bytes)
            return False
        await self._account()
        return True

    async def _fill(self, until_seconds: float) -> None:
        """Write runs for a while, in their order; the last call flushes what was written."""
        now_seconds = asyncio.get_running_loop().time
        moved_before, is_begun = self.moved_bytes, False
        async with stripe_runs.Making() as making, in_flight.InFlight[None]() as checking:
            while True:
                while len(making) < RUNS_AT_ONCE:
                    is_first = not making and self.moved_bytes == moved_before
                    if is_begun and now_seconds() >= until_seconds:
                        break
                    if not await self._runs.begin_next(making, is_first=is_first):
                        break
                    is_begun = True
                if not making:
                    break
                run = await making.first()
                if run is not None:
                    await self._write_and_plan(run)
                making.take()
                if self._unflushed_bytes >= FLUSH_BYTES:
                    await self._flush()
                    await _settle(checking)
                    checking.begin(
                        self._read_back.catch_up(self._offset_bytes, run_bytes=self._runs.run_bytes)
                    )
            if self._runs.ended:
                await self._flush()
            await _settle(checking)
        self._is_written = self._runs.ended

    async def _write_and_plan(self, run: stripe_runs.Run) -> None:
        """Write a run while the one that is begun next is looked for: a wait for the medium, too.

        Neither is cut off by a failure of the other.
        """
        for outcome in await asyncio.gather(
            self._write(run), self._runs.plan(), return_exceptions=True
        ):
            if outcome is not None:
                raise outcome

    async def _flush(self) -> None:
        await self._tools.media.flush(self.fresh.values())
        self._unflushed_bytes = 0

    async def _write(self, run: stripe_runs.Run) -> None:
        await self._tools.pace((run.end_bytes - self._offset_bytes) * len(self.fresh))
        await self._pad_to(run.start_bytes)
        length = run.end_bytes - run.start_bytes
        await self._write_all(run.content)
        self._written += run.stripes
        self._read_back.add(run.stripes)
        self._unflushed_bytes += length

    async def _pad_to(self, offset_bytes: int) -> None:
        if offset_bytes == self._offset_bytes:
            return
        # Not of the pool: a run that is ready must not fail for want of a few zeros.
        filler = memoryview(mmap.mmap(-1, FILLER_BYTES))
        while self._offset_bytes < offset_bytes:
            step = min(FILLER_BYTES, offset_bytes - self._offset_bytes)
            await self._write_all({index: filler[:step] for index in self.fresh})

    async def _write_all(self, pieces: Mapping[int, memoryview]) -> None:
        problems = await self._tools.media.write_all(
            [
                media_port.ZoneWrite(self.fresh[index], self._offset_bytes, data)
                for index, data in pieces.items()
            ],
            durable=False,
        )
        if problems:
            raise problems[0]
        length = len(next(iter(pieces.values())))
        self._offset_bytes += length
        self.moved_bytes += length * len(pieces)

    async def _account(self) -> None:
        """Prove that the L2P leads to nothing in the group that the fresh zones do not hold.

        The walk finds what some member shows. The live bytes of what it found are counted; only if
        they are not those of the group is the whole map searched.

        Raises:
            LostStripeError: it does.
        """
        group_id = self.record.group_id
        written = {found.location.stripe_offset_bytes for found in self._written}
        if await stripe_references.accounts_for_all(self._tools, self.record, self._written):
            return
        lost: dict[int, int] = {}
        async for offset, length_bytes in stripe_references.search(self._tools.index, group_id):
            if offset not in written:
                lost[offset] = lost.get(offset, 0) + length_bytes
        if lost:
            offset, lost_bytes = next(iter(lost.items()))
            raise stripe_runs.LostStripeError(
                f"no member of group {group_id} shows stripe {offset}: {lost_bytes} live bytes are "
                f"lost; {sum(lost.values())} in {len(lost)} such stripes"
            )


async def _settle(checking: in_flight.InFlight[None]) -> None:
    """Wait for the reading back that is under way. Raises what it raises."""
    if checking:
        await checking.first()
        checking.take()
