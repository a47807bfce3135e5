"""One pass over a log segment: each batch that something leads to, on every replica."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final, NamedTuple

from couchestor_daemon.formats import batch, l2p_record, media_records, zone_header
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import (
    commit_log,
    index_audit,
    log_damage,
    log_segment,
    repair_tools,
    shard_check,
)
from couchestor_daemon.services.catalogue import liveness
from couchestor_domain import errors, units

WINDOW_BYTES: Final = 4 * units.MIB


class FoundBatch(NamedTuple):
    """A batch that verified on some replicas."""

    sequence: int
    previous: int
    """Sequence of the batch that it was committed after."""
    offset_bytes: int
    total_bytes: int
    mapped_keys: tuple[bytes, ...]
    """L2P entries that its mutations wrote."""
    missing_on: tuple[int, ...]
    """Replicas that were read and on which it does not verify."""


class _Parsed(NamedTuple):
    batches: list[FoundBatch]
    consumed_bytes: int
    wanted_bytes: int
    """Window that the next batch needs; 0: any."""


class SegmentScrub:
    """The batches of one segment, by offset.

    Bytes that are no batch on any replica (torn tails, what nobody was answered for) are stepped
    over; the account at the end tells whether somebody misses something there.

    Args:
        end_bytes: Where to stop: the highest write pointer of its replicas.
        visit: Told of every batch, whether something leads to it or not.
    """

    def __init__(
        self,
        tools: repair_tools.Tools,
        record: media_records.SegmentRecord,
        *,
        end_bytes: int,
        visit: Callable[[FoundBatch], None] | None = None,
    ) -> None:
        self.record = record
        self._visit = visit
        self.read_bytes = 0
        self.findings: list[index_audit.Finding] = []
        """What is wrong; of no interest once the segment is not listed."""
        self.damaged_sequence = 0
        """Of the last batch that a replica has lost and somebody needs; 0: none has."""
        self._live_bytes = 0
        self._tools = tools
        self._zones = media_records.zone_addresses(record.members)
        self._end_bytes = units.align_down(end_bytes, units.BLOCK_BYTES)
        self._offset_bytes = log_segment.FIRST_BATCH_OFFSET_BYTES
        self._window_bytes = WINDOW_BYTES

    @property
    def ended(self) -> bool:
        """Whether nothing is left."""
        return self._offset_bytes >= self._end_bytes

    async def look_at_headers(self) -> None:
        """Look for the segment's header on every replica."""
        for index, zone in enumerate(self._zones):
            if not shard_check.in_service(self._tools.media, zone.device_id):
                continue
            block = memoryview(bytearray(zone_header.ZONE_HEADER_BYTES))
            with contextlib.suppress(errors.DeviceError):
                await self._tools.media.read(zone, 0, block, past_cache=True)
            header = zone_header.unpack(block)
            if header is None or (header.role, header.owner_id, header.member_index) != (
                zone_header.ZoneRole.SEGMENT,
                self.record.segment_id,
                index,
            ):
                # Asked after the read: zones of one that nobody needs are reset at any time.
                with self._tools.index.read() as reader:
                    if not log_damage.is_needed(reader, self.record.segment_id):
                        return
                    self.damaged_sequence = commit_log.applied_sequence(reader)
                self._find(
                    f"log segment {self.record.segment_id} has no header on device "
                    f"{zone.device_id}: a recovery reads its batches from the other replicas"
                )

    async def advance(self) -> None:
        """Read and verify one window.

        Raises:
            OverloadedError: the pool lends no memory now; it can go on later.
        """
        length = min(self._window_bytes, self._end_bytes - self._offset_bytes)
        here = [
            index
            for index, zone in enumerate(self._zones)
            if shard_check.in_service(self._tools.media, zone.device_id)
        ]
        if not here:
            self._offset_bytes = self._end_bytes
            return
        await self._tools.pace(length * len(here))
        with self._tools.acquire(length * len(here)) as buffer:
            views = {
                index: buffer.view[position * length : (position + 1) * length]
                for position, index in enumerate(here)
            }
            ended = await asyncio.gather(
                *(
                    self._tools.media.read(
                        self._zones[index], self._offset_bytes, view, past_cache=True
                    )
                    for index, view in views.items()
                ),
                return_exceptions=True,
            )
            for index, outcome in zip(here, ended, strict=True):
                if isinstance(outcome, errors.DeviceError):
                    views[index][:] = bytes(length)
                elif outcome is not None:
                    raise outcome
            parsed = await self._tools.run_codec(self._parse, views)
        assert isinstance(parsed, _Parsed), parsed
        self.read_bytes += length * len(here)
        self._window_bytes = max(WINDOW_BYTES, parsed.wanted_bytes)
        self._offset_bytes += parsed.consumed_bytes
        with self._tools.index.read() as reader:
            counted = [(found, self._live_bytes_of(reader, found)) for found in parsed.batches]
            replayed = range(
                log_damage.checkpointed_sequence(reader) + 1,
                commit_log.applied_sequence(reader) + 1,
            )
        self._live_bytes += sum(live_bytes for _, live_bytes in counted)
        for found, live_bytes in counted:
            if found.missing_on and (live_bytes or found.sequence in replayed):
                await self._look_again(found)
            elif self._visit is not None:
                self._visit(found)
        if self.ended:
            self._account()

    async def _look_again(self, found: FoundBatch) -> None:
        """Tell of a batch that a replica has lost: one that was being written when it was read is
        whole by now, for the index leads to it."""
        missing_on = tuple(
            [index for index in found.missing_on if not await self._verifies(found, index)]
        )
        found = found._replace(missing_on=missing_on)
        if self._visit is not None:
            self._visit(found)
        with self._tools.index.read() as reader:
            live_bytes = self._live_bytes_of(reader, found)
        if not missing_on:
            return
        # What a dead process left unanswered looks the same: a checkpoint too many does no harm.
        self.damaged_sequence = max(self.damaged_sequence, found.sequence)
        if not live_bytes:
            return
        devices = ", ".join(self._zones[index].device_id for index in missing_on)
        self._find(
            f"batch {found.sequence} of log segment {self.record.segment_id}, with "
            f"{live_bytes} live bytes, does not verify on {devices}: it is read from "
            "the other replicas",
            about=f"batch {found.sequence} on {devices}",
        )

    async def _verifies(self, found: FoundBatch, index: int) -> bool:
        with self._tools.acquire(found.total_bytes) as buffer:
            view = buffer.view[: found.total_bytes]
            try:
                await self._tools.media.read(
                    self._zones[index], found.offset_bytes, view, past_cache=True
                )
            except errors.DeviceError:
                return False
            header = batch.unpack_header(
                view, seed=self.record.seed, offset_bytes=found.offset_bytes
            )
            return (
                header is not None
                and (header.segment_id, header.sequence, header.total_bytes)
                == (self.record.segment_id, found.sequence, found.total_bytes)
                and batch.body_verifies(header, view, seed=self.record.seed)
            )

    def _find(self, text: str, *, about: str = "") -> None:
        self.findings.append(index_audit.Finding(text, True, about=about))

    def _account(self) -> None:
        """Compare what is alive in the segment with what its batches hold on any replica."""
        if self.record.state != media_records.ZoneSetState.SEALED:
            return
        with self._tools.index.read() as reader:
            counted = liveness.segment_bytes(reader, self.record.segment_id)
        # What was deleted or moved during the scan makes the count smaller, never larger.
        if counted > self._live_bytes:
            self._find(
                f"{counted - self._live_bytes} live bytes of log segment "
                f"{self.record.segment_id} verify on no replica in service: they are lost unless "
                "a missing device comes back",
                about=f"lost bytes of log segment {self.record.segment_id}",
            )

    def _live_bytes_of(self, reader: index_port.IndexReader, found: FoundBatch) -> int:
        total = 0
        for key in found.mapped_keys:
            value = reader.get(key)
            if value is None:
                continue
            location = l2p_record.unpack(value)
            if (
                isinstance(location, l2p_record.JournalLocation)
                and location.segment_id == self.record.segment_id
            ):
                total += location.length_bytes
        return total

    def _parse(self, views: dict[int, memoryview]) -> _Parsed:
        length = len(next(iter(views.values())))
        is_last = self._offset_bytes + length >= self._end_bytes
        found: list[FoundBatch] = []
        position = 0
        while position < length:
            valid: list[int] = []
            chosen: batch.BatchHeader | None = None
            for index, view in views.items():
                rest = view[position:]
                header = batch.unpack_header(
                    rest, seed=self.record.seed, offset_bytes=self._offset_bytes + position
                )
                if header is None or header.segment_id != self.record.segment_id:
                    continue
                if header.total_bytes > len(rest):
                    if is_last:
                        continue
                    return _Parsed(found, position, 0 if position else header.total_bytes)
                if batch.body_verifies(header, rest, seed=self.record.seed):
                    valid.append(index)
                    chosen = header
            if chosen is None:
                position += units.BLOCK_BYTES
                continue
            data = views[valid[0]][position:]
            mutations = batch.unpack_mutations(batch.mutations_of(chosen, data))
            found.append(
                FoundBatch(
                    chosen.sequence,
                    chosen.previous,
                    self._offset_bytes + position,
                    chosen.total_bytes,
                    tuple(
                        key
                        for key, value in mutations
                        if value is not None and l2p_record.is_location_key(key)
                    ),
                    tuple(index for index in views if index not in valid),
                )
            )
            position += chosen.total_bytes
        return _Parsed(found, length, 0)
