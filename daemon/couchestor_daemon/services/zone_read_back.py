"""What was written to fresh zones, read from the medium again before anything relies on it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from couchestor_daemon.formats import media_records, shard
from couchestor_daemon.services import group_walk, group_zones, repair_tools, run_shards
from couchestor_domain import errors, ids, units

READ_BYTES: Final = 2 * units.MIB
"""Shards that lie together are read in one go, unless a single one is longer."""
READS_AT_ONCE: Final = 3


class ZoneReadBack:
    """Verifies every shard in zones that a rebuild filled, and their headers.

    Args:
        fresh: Member index -> zone.
        written: Stripes whose shards the zones hold, by offset.
    """

    def __init__(
        self,
        tools: repair_tools.Tools,
        record: media_records.GroupRecord,
        fresh: Mapping[int, ids.ZoneAddress],
        written: Sequence[group_walk.FoundStripe],
    ) -> None:
        self._tools = tools
        self._record = record
        self._fresh = fresh
        self._jobs = [(index, zone, run) for run in _runs(written) for index, zone in fresh.items()]
        self._jobs.reverse()
        self._headers_are_checked = False

    @property
    def ended(self) -> bool:
        """Whether everything was verified."""
        return self._headers_are_checked and not self._jobs

    async def advance(self, limit_bytes: int) -> None:
        """Verify about ``limit_bytes``.

        Raises:
            DeviceIoError: a zone does not hold what was written to it.
            OverloadedError: the pool lends no memory now; the next call goes on.
        """
        if not self._headers_are_checked:
            await self._check_headers()
            self._headers_are_checked = True
        done_bytes = 0
        while self._jobs and done_bytes < limit_bytes:
            chosen = self._jobs[-READS_AT_ONCE:]
            ended = await asyncio.gather(
                *(self._verify(*job) for job in chosen), return_exceptions=True
            )
            for outcome in ended:
                if isinstance(outcome, BaseException):
                    raise outcome
                done_bytes += outcome
            del self._jobs[-READS_AT_ONCE:]

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

    async def _verify(
        self, index: int, zone: ids.ZoneAddress, run: Sequence[group_walk.FoundStripe]
    ) -> int:
        start = run[0].location.stripe_offset_bytes
        length = run_shards.end_bytes_of(run[-1]) - start
        await self._tools.pace(length)
        with self._tools.acquire(length) as buffer:
            view = buffer.view[:length]
            await self._tools.media.read(zone, start, view)
            wrong = await self._tools.run_codec(self._first_wrong, index, run, view)
        if wrong is not None:
            raise errors.DeviceIoError(
                f"zone {zone.zone_index} of device {zone.device_id} does not hold shard {index} of "
                f"stripe {wrong.location.stripe_offset_bytes} of group {self._record.group_id}, "
                "which was just written there",
                device=zone.device_id,
                zone=zone.zone_index,
            )
        return length

    def _first_wrong(
        self, index: int, run: Sequence[group_walk.FoundStripe], view: memoryview
    ) -> group_walk.FoundStripe | None:
        start = run[0].location.stripe_offset_bytes
        for found in run:
            inside = found.location.stripe_offset_bytes - start
            whole = view[inside : run_shards.end_bytes_of(found) - start]
            header_bytes = shard.header_bytes(found.location.chunk_bytes)
            header = shard.unpack(whole[:header_bytes])
            if (
                header is None
                or not run_shards.is_shard_of(header, self._record, found, index)
                or not shard.verify_blocks(header, 0, whole[header_bytes:])
            ):
                return found
        return None


def _runs(
    written: Sequence[group_walk.FoundStripe],
) -> list[list[group_walk.FoundStripe]]:
    """Stripes that lie near one another, as far as one read takes."""
    runs: list[list[group_walk.FoundStripe]] = []
    for found in written:
        if (
            runs
            and run_shards.end_bytes_of(found) - runs[-1][0].location.stripe_offset_bytes
            <= READ_BYTES
        ):
            runs[-1].append(found)
        else:
            runs.append([found])
    return runs
