"""What was written to fresh zones, read from the medium again before anything relies on it.

What has been flushed can be read back while more is being written.
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from couchestor_daemon import buffers
from couchestor_daemon.formats import media_records, shard
from couchestor_daemon.services import (
    group_walk,
    group_zones,
    in_flight,
    repair_tools,
    run_shards,
)
from couchestor_domain import errors, ids, units

READ_BYTES: Final = units.MIB
"""Shards that lie together are read in one go, unless a single one is longer."""
READS_AT_ONCE: Final = 3
READ_AHEAD_BYTES: Final = 4 * units.MIB
"""Where reads cannot go past its cache, the system reads on into it, by no more than this: what
lies there must have been flushed, too, or its read would be answered with what was there before."""


Lend = Callable[[int], buffers.AlignedBuffer | None]
"""Memory of a length, or None when there is none to spare."""


class Piece(NamedTuple):
    """Shards of one member that are read in one go."""

    member_index: int
    zone: ids.ZoneAddress
    stripes: Sequence[group_walk.FoundStripe]

    @property
    def start_bytes(self) -> int:
        """Where the first begins."""
        return self.stripes[0].location.stripe_offset_bytes

    @property
    def length_bytes(self) -> int:
        """To the end of the last."""
        return run_shards.end_bytes_of(self.stripes[-1]) - self.start_bytes


class ZoneReadBack:
    """Verifies every shard in zones that a rebuild fills, and their headers.

    Args:
        fresh: Member index -> zone.
    """

    def __init__(
        self,
        tools: repair_tools.Tools,
        record: media_records.GroupRecord,
        fresh: Mapping[int, ids.ZoneAddress],
    ) -> None:
        self._tools = tools
        self._record = record
        self._fresh = fresh
        self._written: collections.deque[group_walk.FoundStripe] = collections.deque()
        self._pieces: collections.deque[Piece] = collections.deque()
        self._unverified_count = 0
        """Shards that were written and have not been verified yet."""
        self._headers_are_checked = False
        self._turns = {index: asyncio.Lock() for index in fresh}
        """A zone is read from its start to its end, one read after the other."""

    @property
    def ended(self) -> bool:
        """Whether everything that was written so far was verified."""
        return self._headers_are_checked and not self._unverified_count

    def add(self, stripes: Sequence[group_walk.FoundStripe]) -> None:
        """Shards of these were written to each zone, behind what was written before."""
        self._written += stripes
        self._unverified_count += len(stripes) * len(self._fresh)

    async def catch_up(self, flushed_bytes: int, *, run_bytes: int) -> None:
        """Verify what was flushed, as far as memory is to spare; others write on meanwhile.

        One call at a time.

        Args:
            flushed_bytes: Write pointer of the zones when they were flushed.
            run_bytes: What must stay free for the first run of somebody else.

        Raises:
            DeviceIoError: a zone does not hold what was written to it.
        """
        await self._read(
            flushed_bytes - READ_AHEAD_BYTES,
            lambda length: self._tools.acquire_beside(length, first_bytes=run_bytes),
        )

    async def advance(self, until_seconds: float, *, run_bytes: int) -> None:
        """Verify more, once everything was flushed.

        Args:
            until_seconds: Only one piece is begun later than that, on the loop's clock.
            run_bytes: As of ``catch_up``.

        Raises:
            DeviceIoError: a zone does not hold what was written to it.
            OverloadedError: the pool lends no memory now; the next call goes on.
        """
        if not self._headers_are_checked:
            await self._check_headers()
            self._headers_are_checked = True
        now_seconds = asyncio.get_running_loop().time
        is_begun = False

        def lend(length: int) -> buffers.AlignedBuffer | None:
            nonlocal is_begun
            if not is_begun:
                is_begun = True
                return self._tools.acquire(length)
            if now_seconds() >= until_seconds:
                return None
            return self._tools.acquire_beside(length, first_bytes=run_bytes)

        await self._read(None, lend)
        assert not self._unverified_count or self._next(None), self._unverified_count

    async def _read(self, end_bytes: int | None, lend: Lend) -> None:
        """Verify what ends before ``end_bytes``, until there is no memory for more."""
        async with in_flight.InFlight[int]() as reading:
            while True:
                while len(reading) < READS_AT_ONCE:
                    piece = self._next(end_bytes)
                    memory = None if piece is None else lend(piece.length_bytes)
                    if piece is None or memory is None:
                        break
                    self._pieces.popleft()
                    reading.begin(self._verify(piece, memory.view), memory)
                if not reading:
                    return
                verified_count = await reading.first()
                # Not in the line above: others may be added during the wait.
                self._unverified_count -= verified_count
                reading.take()

    def _next(self, end_bytes: int | None) -> Piece | None:
        """The next piece, if it ends before ``end_bytes``; it stays the next one until begun."""
        if not self._pieces:
            stripes: list[group_walk.FoundStripe] = []
            while self._written:
                end = run_shards.end_bytes_of(self._written[0])
                if end_bytes is not None and end > end_bytes:
                    break
                if stripes and end - stripes[0].location.stripe_offset_bytes > READ_BYTES:
                    break
                stripes.append(self._written.popleft())
            if stripes:
                self._pieces += [Piece(index, zone, stripes) for index, zone in self._fresh.items()]
        return self._pieces[0] if self._pieces else None

    async def _check_headers(self) -> None:
        for index, zone in self._fresh.items():
            if not await group_zones.is_formatted(
                self._tools.media, self._record, zone, position=index
            ):
                raise errors.DeviceIoError(
                    f"zone {zone.zone_index} of device {zone.device_id} has lost the header that "
                    "was just written there",
                    device=zone.device_id,
                    zone=zone.zone_index,
                )

    async def _verify(self, piece: Piece, memory: memoryview) -> int:
        """How many shards were verified: all of the piece."""
        view = memory[: piece.length_bytes]
        await self._tools.pace(len(view))
        async with self._turns[piece.member_index]:
            await self._tools.media.read(
                piece.zone, piece.start_bytes, view, past_cache=True, in_place=True
            )
        wrong = await self._tools.run_codec(self._first_wrong, piece, view)
        if wrong is not None:
            zone = piece.zone
            raise errors.DeviceIoError(
                f"zone {zone.zone_index} of device {zone.device_id} does not hold shard "
                f"{piece.member_index} of stripe {wrong.location.stripe_offset_bytes} of group "
                f"{self._record.group_id}, which was just written there",
                device=zone.device_id,
                zone=zone.zone_index,
            )
        return len(piece.stripes)

    def _first_wrong(self, piece: Piece, view: memoryview) -> group_walk.FoundStripe | None:
        for found in piece.stripes:
            inside = found.location.stripe_offset_bytes - piece.start_bytes
            whole = view[inside : run_shards.end_bytes_of(found) - piece.start_bytes]
            header_bytes = shard.header_bytes(found.location.chunk_bytes)
            header = shard.unpack(whole[:header_bytes])
            if (
                header is None
                or not run_shards.is_shard_of(header, self._record, found, piece.member_index)
                or not shard.verify_blocks(header, 0, whole[header_bytes:])
            ):
                return found
        return None
