"""Live entries of a log segment, found by reading its batches: their mutations name each payload.

Replicas are in lockstep, so a batch stands at the same offset on each; it is taken from the first
one that shows it whole. What a crash left (torn tails, padding, batches that were never answered)
does not matter here: an entry counts only if the L2P leads to just that payload now.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from couchestor_daemon.formats import batch, l2p_record, media_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.ports import media as media_port
from couchestor_daemon.services import group_walk, log_segment
from couchestor_daemon.services.catalogue import l2p
from couchestor_domain import errors, ids, units

WINDOW_BYTES: Final = 512 * units.KIB
"""Read at once; a longer batch is read with a window of its own."""

RunBlocking = Callable[..., Awaitable[object]]
Pace = Callable[[int], Awaitable[None]]


class SegmentSource:
    """One walk through a segment, which may be open: what is appended later is not looked for.

    Memory: one window, or the longest batch if that is more.

    Args:
        run_blocking: Runs calls that block on a pool.
        pace: Awaited with a number of bytes before as many are read.
    """

    def __init__(
        self,
        record: media_records.SegmentRecord,
        *,
        index: index_port.IndexStore,
        media: media_port.Media,
        run_blocking: RunBlocking,
        pace: Pace,
    ) -> None:
        self._record = record
        self._index = index
        self._media = media
        self._run_blocking = run_blocking
        self._pace = pace
        self._zones = media_records.zone_addresses(record.members)
        self._windows: dict[ids.ZoneAddress, tuple[int, memoryview]] = {}

    async def entries(self) -> AsyncIterator[list[l2p.Entry]]:
        """Live entries of one batch after the other, in log order; no list is empty."""
        found = await self._run_blocking(group_walk.end_bytes, self._media, self._zones)
        assert isinstance(found, int), found
        end = units.align_down(found, units.BLOCK_BYTES)
        offset = log_segment.FIRST_BATCH_OFFSET_BYTES
        while offset < end:
            read = await self._batch_at(offset, end)
            if read is None:
                offset += units.BLOCK_BYTES
                continue
            header, data = read
            entries = self._live(batch.mutations_of(header, data))
            offset += header.total_bytes
            if entries:
                yield entries
        self._windows.clear()

    def _live(self, mutations: memoryview) -> list[l2p.Entry]:
        named: dict[bytes, bytes] = {}
        for key, value in batch.unpack_mutations(mutations):
            if value and l2p_record.is_location_key(key) and value[0] == l2p_record.JOURNAL_KIND:
                named[key] = value
        if not named:
            return []
        entries = []
        with self._index.read() as reader:
            for key, value in named.items():
                if reader.get(key) != value:
                    continue
                location = l2p_record.unpack(value)
                # A rebuild copies a batch's mutations, and what they name, from another segment.
                if (
                    isinstance(location, l2p_record.JournalLocation)
                    and location.segment_id == self._record.segment_id
                ):
                    entries.append(l2p.Entry(l2p_record.address_of(key), location))
        return entries

    async def _batch_at(self, offset: int, end: int) -> tuple[batch.BatchHeader, memoryview] | None:
        for zone in self._zones:
            try:
                view = await self._bytes_at(zone, offset, batch.HEADER_BYTES, end)
                header = batch.unpack_header(view, seed=self._record.seed, offset_bytes=offset)
                if (
                    header is None
                    or header.segment_id != self._record.segment_id
                    or offset + header.total_bytes > end
                ):
                    continue
                view = await self._bytes_at(zone, offset, header.total_bytes, end)
            except errors.DeviceError:
                continue
            if batch.body_verifies(header, view, seed=self._record.seed):
                return header, view
        return None

    async def _bytes_at(
        self, zone: ids.ZoneAddress, offset: int, length: int, end: int
    ) -> memoryview:
        """At least ``length`` bytes of a zone from ``offset``; one window of each replica is kept,
        because most batches are looked at where the one before was."""
        start, window = self._windows.get(zone, (0, memoryview(b"")))
        if not start <= offset <= offset + length <= start + len(window):
            wanted = min(max(length, WINDOW_BYTES), end - offset)
            window = memoryview(bytearray(wanted))
            start = offset
            self._windows.pop(zone, None)
            await self._pace(wanted)
            if not self._media.try_read(zone, offset, window):
                await self._media.read(zone, offset, window)
            self._windows[zone] = (start, window)
        return window[offset - start :]
