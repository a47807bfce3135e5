"""Members of one sealed group written anew: every shard copied or rebuilt, then read back.

While a stripe is being written the next one is being read and decoded, so devices and codec are
busy at the same time; no more than two stripes are in memory. Nothing in the index is changed here.
"""

from __future__ import annotations

import asyncio
import mmap
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass
from typing import Final

from couchestor_daemon import buffers
from couchestor_daemon.formats import media_records, shard, zone_header
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.ports import media as media_port
from couchestor_daemon.services import (
    group_walk,
    group_zones,
    shard_check,
    stripe_references,
    stripe_shards,
)
from couchestor_domain import errors, geometry, ids, units

STEP_BYTES: Final = 32 * units.MIB
"""Shards written or read back in one step, about."""
FLUSH_BYTES: Final = 16 * units.MIB
"""Written to a zone between flushes: the log's own writes wait behind one."""
READ_BACK_BYTES: Final = 4 * units.MIB
FILLER_BYTES: Final = 64 * units.KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What a rebuild works with."""

    index: index_port.IndexStore
    media: media_port.Media
    pool: buffers.BufferPool
    codecs: shard_check.Codecs
    run_codec: stripe_shards.RunBlocking
    run_blocking: stripe_shards.RunBlocking
    pace: stripe_shards.Pace


class LostStripeError(Exception):
    """Bytes that the L2P leads to cannot be had from the shards that are left.

    Args:
        reason: For people: which stripe, how many bytes.
    """


@dataclass(slots=True, eq=False)
class _Ready:
    """A stripe of which every target's shard is in memory."""

    shards: stripe_shards.StripeShards
    buffer: buffers.AlignedBuffer


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
        tools: Tools,
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
        self._codec = tools.codecs(
            geometry.StripeGeometry(record.data_shards, record.parity_shards), record.codec_id
        )
        self._distrusted = frozenset(distrusted)
        self._walk: AsyncIterator[group_walk.FoundStripe] = group_walk.stripes(
            tools.media, record, end_bytes=end_bytes
        )
        self._zones = tuple(
            self.fresh.get(index, zone)
            for index, zone in enumerate(media_records.zone_addresses(record.members))
        )
        self._next: group_walk.FoundStripe | None = None
        self._ahead: _Ready | None = None
        self._offset_bytes = 0
        """Write pointer of the fresh zones, which grow in lockstep."""
        self._unflushed_bytes = 0
        self._written: list[group_walk.FoundStripe] = []
        self._read_back_count = 0
        self._walk_ended = False

    async def advance(self) -> bool:
        """Do some of it; True once every shard is durable and was read back whole.

        After an error or a cancellation the attempt is void: ``close`` it and begin another.

        Raises:
            LostStripeError: see there.
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
        if not self._walk_ended:
            await self._fill()
            return False
        if self._read_back_count < len(self._written):
            await self._read_back()
            return False
        await self._check_headers()
        await self._account()
        return True

    def close(self) -> None:
        """Give memory back. Idempotent."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.buffer.release()

    # -- writing --------------------------------------------------------------------------------

    async def _fill(self) -> None:
        moved_before = self.moved_bytes
        if self._ahead is None:
            await self._prepare_next()
        while self._ahead is not None and self.moved_bytes - moved_before < STEP_BYTES:
            ready, self._ahead = self._ahead, None
            try:
                wrote, prepared = await asyncio.gather(
                    self._write(ready), self._prepare_next(), return_exceptions=True
                )
            finally:
                ready.buffer.release()
            if wrote is not None:
                raise wrote
            if isinstance(prepared, errors.OverloadedError):
                # With this stripe written there is memory for the next one.
                await self._prepare_next()
            elif prepared is not None:
                raise prepared
        if self._ahead is None:
            await self._tools.media.flush(self.fresh.values())
            self._walk_ended = True

    async def _prepare_next(self) -> None:
        """Put the next stripe, with every target's shard, into ``_ahead``; nothing behind the last
        one. Not returned, so that a cancellation leaves no memory without an owner.
        """
        while True:
            if self._next is None:
                self._next = await anext(self._walk, None)
            found = self._next
            if found is None:
                return
            # May be refused, and is then asked for again: so before the stripe is taken.
            buffer = self._tools.pool.acquire(stripe_shards.memory_bytes(self.record, found))
            self._next = None
            try:
                shards = await self._whole(found, buffer.view)
            except BaseException:
                buffer.release()
                raise
            if shards is not None:
                self._ahead = _Ready(shards, buffer)
                return
            buffer.release()

    async def _whole(
        self, found: group_walk.FoundStripe, memory: memoryview
    ) -> stripe_shards.StripeShards | None:
        """The targets' shards of a stripe; None of one that is lost and that nobody misses."""
        offset = found.location.stripe_offset_bytes
        shards = stripe_shards.StripeShards(
            self._tools.media,
            self.record,
            found,
            memory=memory,
            distrusted=[index for at, index in self._distrusted if at == offset],
            run_codec=self._tools.run_codec,
            pace=self._tools.pace,
        )
        await shards.read(self.fresh)
        missing = [index for index in self.fresh if index not in shards.headers]
        if missing:
            try:
                await shards.rebuild(self._codec, missing)
            except errors.InsufficientShardsError as exc:
                with self._tools.index.read() as reader:
                    live_bytes = stripe_references.live_bytes(reader, found)
                if live_bytes:
                    raise LostStripeError(f"{exc}: {live_bytes} live bytes are lost") from exc
                return None
        return shards

    async def _write(self, ready: _Ready) -> None:
        location = ready.shards.found.location
        shard_bytes = shard.shard_bytes(location.chunk_bytes)
        gap_bytes = location.stripe_offset_bytes - self._offset_bytes
        await self._tools.pace((gap_bytes + shard_bytes) * len(self.fresh))
        await self._pad_to(location.stripe_offset_bytes)
        await self._write_all({index: ready.shards.shard(index) for index in self.fresh})
        self._written.append(ready.shards.found)
        self._unflushed_bytes += gap_bytes + shard_bytes
        if self._unflushed_bytes >= FLUSH_BYTES:
            await self._tools.media.flush(self.fresh.values())
            self._unflushed_bytes = 0

    async def _pad_to(self, offset_bytes: int) -> None:
        if offset_bytes == self._offset_bytes:
            return
        # Not of the pool: a stripe that is ready must not fail for want of a few zeros.
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

    # -- looking at it again --------------------------------------------------------------------

    async def _read_back(self) -> None:
        """Some of the shards written, from the medium."""
        step_bytes = 0
        while self._read_back_count < len(self._written) and step_bytes < STEP_BYTES:
            chosen: list[group_walk.FoundStripe] = []
            chosen_bytes = 0
            for found in self._written[self._read_back_count :]:
                shard_bytes = shard.shard_bytes(found.location.chunk_bytes)
                if chosen and chosen_bytes + shard_bytes > READ_BACK_BYTES:
                    break
                chosen.append(found)
                chosen_bytes += shard_bytes
            for index, zone in self.fresh.items():
                await self._tools.pace(chosen_bytes)
                with self._tools.pool.acquire(chosen_bytes) as buffer:
                    await self._read_back_of(index, zone, chosen, buffer.view)
            self._read_back_count += len(chosen)
            step_bytes += chosen_bytes * len(self.fresh)

    async def _read_back_of(
        self,
        index: int,
        zone: ids.ZoneAddress,
        chosen: list[group_walk.FoundStripe],
        memory: memoryview,
    ) -> None:
        reads = []
        position = 0
        for found in chosen:
            end = position + shard.shard_bytes(found.location.chunk_bytes)
            reads.append((found, memory[position:end]))
            position = end
        ended = await asyncio.gather(
            *(
                self._tools.media.read(zone, found.location.stripe_offset_bytes, view)
                for found, view in reads
            ),
            return_exceptions=True,
        )
        for outcome in ended:
            if outcome is not None:
                raise outcome

        def first_wrong() -> group_walk.FoundStripe | None:
            for found, view in reads:
                header_bytes = shard.header_bytes(found.location.chunk_bytes)
                header = shard.unpack(view[:header_bytes])
                if (
                    header is None
                    or not stripe_shards.is_shard_of(header, self.record, found, index)
                    or not shard.verify_blocks(header, 0, view[header_bytes:])
                ):
                    return found
            return None

        wrong = await self._tools.run_codec(first_wrong)
        if wrong is not None:
            raise errors.DeviceIoError(
                f"zone {zone.zone_index} of device {zone.device_id} does not hold shard {index} of "
                f"stripe {wrong.location.stripe_offset_bytes} of group {self.record.group_id}, "
                "which was just written there",
                device=zone.device_id,
                zone=zone.zone_index,
            )

    async def _check_headers(self) -> None:
        for index, zone in self.fresh.items():
            if not await group_zones.is_formatted(
                self._tools.media, self.record, zone, position=index
            ):
                raise errors.DeviceIoError(
                    f"zone {zone.zone_index} of device {zone.device_id} has lost the header that "
                    "was just written there",
                    device=zone.device_id,
                    zone=zone.zone_index,
                )

    async def _account(self) -> None:
        """Prove that the L2P leads to nothing in the group that the fresh zones do not hold.

        The walk finds what some member shows. The live bytes of what it found are counted; only if
        they are not those of the group is the whole map searched.

        Raises:
            LostStripeError: see there.
        """
        group_id = self.record.group_id
        written = {found.location.stripe_offset_bytes for found in self._written}
        with self._tools.index.read() as reader:
            if stripe_references.accounts_for_all(reader, group_id, self._written):
                return
        lost: dict[int, int] = {}
        async for _, location in stripe_references.search(self._tools.index, group_id):
            offset = location.stripe_offset_bytes
            if offset not in written:
                lost[offset] = lost.get(offset, 0) + location.length_bytes
        if lost:
            offset, lost_bytes = next(iter(lost.items()))
            raise LostStripeError(
                f"no member of group {group_id} shows stripe {offset}: {lost_bytes} live bytes are "
                f"lost; {sum(lost.values())} in {len(lost)} such stripes"
            )
