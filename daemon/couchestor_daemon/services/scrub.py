"""Scrub: everything on media is read again before a client asks for it, once in a period.

A pass goes through phases, each with a position, so that a restart goes on where it was:

    phase         what is looked at                                  position
    groups        every shard of every group, its parity             last group
    segments      batches with live payloads, on every replica       last segment
    checkpoints   every block of every copy                          -
    zones         owners of zones against zones of owners            -
    map           L2P entries: their group or segment is listed, and last address
                  their stripe is there where the group shows less than is alive

What is damaged and missed by somebody goes to the repair queue, like what readers find; the rebuild
takes it from there. Everything else that is wrong is a line in the log.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import Final

from couchestor_daemon.formats import l2p_record, media_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import (
    checkpoint_check,
    commit_log,
    group_scrub,
    group_walk,
    index_audit,
    repair_tools,
    replacement_zones,
    scrub_position,
    segment_scrub,
    shard_check,
    stripe_references,
    zone_holders,
)
from couchestor_daemon.services.catalogue import liveness
from couchestor_domain import errors, event_publisher, events, ids

logger = logging.getLogger(__name__)

REPAIRS_PER_MEMBER_MAX: Final = 4
"""Queued for one member of a group in one pass: it is rebuilt as a whole."""
DOUBTFUL_GROUPS_MAX: Final = 256
MAP_ENTRIES_PER_STEP: Final = 2048

Phase = scrub_position.Phase


class Scrub:
    """Background work (see ``services.background``).

    Args:
        period_seconds: A pass is spread over this long; the next one begins when it is over.
        now_ns: Wall clock, so that a period goes on over restarts.
        report: Told what a restart found recorded, and whenever the position has changed.
    """

    name = "scrub"

    def __init__(
        self,
        tools: repair_tools.Tools,
        *,
        submit: replacement_zones.Submit,
        period_seconds: float,
        publisher: event_publisher.EventPublisher,
        now_seconds: Callable[[], float],
        now_ns: Callable[[], int],
        report: Callable[[media_records.ScrubRecord], None] = lambda record: None,
    ) -> None:
        self._tools = tools
        self._submit = submit
        self._period_seconds = period_seconds
        self._publisher = publisher
        self._now_seconds = now_seconds
        self._now_ns = now_ns
        self._report = report
        self._check = shard_check.ShardCheck(tools)
        self._position = scrub_position.ScrubPosition(
            index=tools.index,
            submit=submit,
            period_seconds=period_seconds,
            now_seconds=now_seconds,
            now_ns=now_ns,
        )
        self._has_begun = False
        self._shown: media_records.ScrubRecord | None = None
        self._group: group_scrub.GroupScrub | None = None
        self._segment: segment_scrub.SegmentScrub | None = None
        self._queued: dict[int, int] = {}
        """Member of the group under way -> shards of it that were queued."""

    @property
    def record(self) -> media_records.ScrubRecord:
        """Position and counts as of the last step."""
        return self._position.record

    def repaired(self, shards_count: int) -> None:
        """A rebuild has brought shards back: the report tells how many since the last one."""
        self._position.repaired(shards_count)

    async def step(self) -> float:
        """Read some more, or wait as long as the period allows.

        Raises:
            CouchestorError: it could not go on; the next step begins the group or segment again.
        """
        goes_on = False
        try:
            await self._step()
            goes_on = True
        except errors.OverloadedError:
            goes_on = True  # Memory comes back when others are done.
            return 1.0
        finally:
            if not goes_on:
                self._group, self._segment = None, None
        await self._position.save_if_due()
        if self.record is not self._shown:
            self._shown = self.record
            self._report(self.record)
        return self._position.wait_seconds()

    async def _step(self) -> None:
        if not self._has_begun:
            self._position.total_bytes = await self._used_bytes()
            self._has_begun = True
            self._shown = self.record
            self._report(self.record)
        if self._position.wait_seconds() > 0:
            return
        match self._position.phase:
            case Phase.GROUPS:
                await self._scrub_groups()
            case Phase.SEGMENTS:
                await self._scrub_segments()
            case Phase.CHECKPOINTS:
                await self._scrub_checkpoints()
            case Phase.ZONES:
                await self._scrub_zones()
            case Phase.MAP:
                await self._scrub_map()
            case Phase.WAITING:
                if self._position.begin_if_due():
                    self._position.total_bytes = await self._used_bytes()

    async def _end(self) -> None:
        await self._position.end()
        counts = self.record.counts
        told = logger.warning if counts.damaged_count or counts.findings_count else logger.info
        told(
            "scrub pass complete: %d bytes read, %d shards verified, %d damaged, %d other findings,"
            " %d rebuilt since the last pass",
            counts.read_bytes,
            counts.shards_count,
            counts.damaged_count,
            counts.findings_count,
            counts.repaired_count,
        )

    async def _used_bytes(self) -> int:
        devices = zone_holders.in_service(self._tools.index, self._tools.media)

        def used() -> int:
            total = 0
            for device in devices.values():
                with contextlib.suppress(errors.DeviceError):
                    total += sum(report.write_pointer_bytes for report in device.report())
            return total

        found = await self._tools.run_blocking(used)
        assert isinstance(found, int), found
        return found

    # -- groups ---------------------------------------------------------------------------------

    async def _scrub_groups(self) -> None:
        if self._group is None:
            record = self._next_group()
            if record is None:
                self._position.enter(Phase.SEGMENTS)
                return
            zones = media_records.zone_addresses(record.members)
            end_bytes = await self._tools.run_blocking(
                group_walk.end_bytes, self._tools.media, zones
            )
            self._queued = {}
            self._group = group_scrub.GroupScrub(self._tools, record, end_bytes=end_bytes)
        work = self._group
        read_before, shards_before = work.read_bytes, work.shards_count
        suspects = await work.advance()
        self._position.count(
            read_bytes=work.read_bytes - read_before, shards=work.shards_count - shards_before
        )
        for suspect in suspects:
            await self._judge(work.record, suspect)
        if not work.ended:
            return
        group_id = work.record.group_id
        with self._tools.index.read() as reader:
            is_same = reader.get(media_records.group_key(group_id)) == media_records.pack(
                work.record
            )
        is_doubtful = (
            is_same
            and work.record.state == media_records.ZoneSetState.SEALED
            and not await stripe_references.accounts_for_all(self._tools, work.record, work.found)
        )
        if is_doubtful and len(self.record.doubtful_groups) < DOUBTFUL_GROUPS_MAX:
            self._position.doubt(group_id)
        self._group = None
        self._position.advance(group_id)

    def _next_group(self) -> media_records.GroupRecord | None:
        _, stop = media_records.table_range(media_records.GROUPS)
        start = media_records.group_key(self.record.position + 1)
        with self._tools.index.read() as reader:
            for _, value in reader.scan(start, stop):
                return media_records.unpack(media_records.GroupRecord, value)
        return None

    async def _judge(self, record: media_records.GroupRecord, suspect: group_scrub.Suspect) -> None:
        """Queue a shard for repair, if a second look finds it damaged and somebody misses it."""
        index = suspect.shard_index
        if self._queued.get(index, 0) >= REPAIRS_PER_MEMBER_MAX:
            self._position.count(damaged=1)
            return
        with self._tools.index.read() as reader:
            value = reader.get(media_records.group_key(record.group_id))
            alive = liveness.group_bytes(reader, record.group_id)
        if value is None or not alive:
            return
        current = media_records.unpack(media_records.GroupRecord, value)
        if current.members[index] != record.members[index]:
            return  # Replaced meanwhile, and read back then.
        verdict = await self._check.verdict(
            current, offset_bytes=suspect.offset_bytes, shard_index=index
        )
        if verdict is not shard_check.Verdict.DAMAGED:
            return
        self._queued[index] = self._queued.get(index, 0) + 1
        self._position.count(damaged=1)
        found = media_records.RepairRecord(
            record.group_id, suspect.offset_bytes, index, suspect.reason, self._now_ns()
        )
        key = media_records.repair_key(record.group_id, suspect.offset_bytes, index)
        with self._tools.index.read() as reader:
            if reader.get(key) is not None:
                return

        def apply(txn: index_port.IndexWriter, _: commit_log.Placement) -> None:
            txn.put(key, media_records.pack(found))

        await self._submit(commit_log.Operation(apply=apply, uses_reserve=True))
        self._publisher.publish(
            events.ShardFailed(
                group_id=ids.GroupId(record.group_id),
                stripe_offset_bytes=suspect.offset_bytes,
                shard_index=index,
                device_id=ids.DeviceId(record.members[index][0]),
                reason=suspect.reason,
            )
        )

    # -- segments -------------------------------------------------------------------------------

    async def _scrub_segments(self) -> None:
        if self._segment is None:
            record = self._next_segment()
            if record is None:
                self._position.enter(Phase.CHECKPOINTS)
                return
            zones = media_records.zone_addresses(record.members)
            end_bytes = await self._tools.run_blocking(
                group_walk.end_bytes, self._tools.media, zones
            )
            self._segment = segment_scrub.SegmentScrub(self._tools, record, end_bytes=end_bytes)
            await self._segment.look_at_headers()
        work = self._segment
        read_before = work.read_bytes
        if not work.ended:
            await work.advance()
        self._position.count(read_bytes=work.read_bytes - read_before)
        if not work.ended:
            return
        segment_id = work.record.segment_id
        with self._tools.index.read() as reader:
            is_listed = reader.get(media_records.segment_key(segment_id)) is not None
        for finding in work.findings if is_listed else []:
            self._position.find(finding.text)
        if is_listed and work.damaged_sequence:
            # Its payloads move, and a checkpoint takes over the rest (``log_damage``).
            self._position.distrust_segment(segment_id, work.damaged_sequence)
        self._segment = None
        self._position.advance(segment_id)

    def _next_segment(self) -> media_records.SegmentRecord | None:
        _, stop = media_records.table_range(media_records.SEGMENTS)
        start = media_records.segment_key(self.record.position + 1)
        with self._tools.index.read() as reader:
            for _, value in reader.scan(start, stop):
                return media_records.unpack(media_records.SegmentRecord, value)
        return None

    # -- the rest -------------------------------------------------------------------------------

    async def _scrub_checkpoints(self) -> None:
        with self._tools.index.read() as reader:
            records = _checkpoints(reader)
        await self._tools.pace(sum(record.image_bytes * len(record.parts[0]) for record in records))
        found = await self._tools.run_blocking(
            checkpoint_check.findings,
            zone_holders.in_service(self._tools.index, self._tools.media),
            records,
        )
        with self._tools.index.read() as reader:
            unchanged = _checkpoints(reader) == records
        # One that was replaced during the look is on its way out.
        for text in found if unchanged else []:
            self._position.find(text)
        self._position.count(read_bytes=sum(r.image_bytes * len(r.parts[0]) for r in records))
        self._position.enter(Phase.ZONES)

    async def _scrub_zones(self) -> None:
        def look() -> list[index_audit.Finding]:
            with self._tools.index.read() as reader:
                return [
                    finding
                    for finding in index_audit.zone_findings(reader)
                    if finding.is_damage or finding.zone is not None
                ]

        for finding in await self._tools.run_blocking(look):
            self._position.find(finding.text)
        self._position.enter(Phase.MAP)

    async def _scrub_map(self) -> None:
        with self._tools.index.read() as reader:
            part = index_audit.l2p_slice(
                reader,
                start_address=self.record.position + 1,
                entries_count=MAP_ENTRIES_PER_STEP,
                groups=frozenset(self.record.doubtful_groups),
            )
        for finding in part.findings:
            self._position.find(finding.text)
        for entry in part.entries:
            await self._look_for(entry)
        if part.next_address is None:
            await self._end()
        else:
            self._position.advance(part.next_address - 1)

    async def _look_for(self, entry: index_audit.Leads) -> None:
        """Say when no member shows the stripe that an entry leads to."""
        with self._tools.index.read() as reader:
            value = reader.get(media_records.group_key(entry.group_id))
        if value is None:
            return
        group = media_records.unpack(media_records.GroupRecord, value)
        found = await group_walk.stripe_at(
            self._tools.media, group, offset_bytes=entry.stripe_offset_bytes
        )
        if found is not None:
            return
        with self._tools.index.read() as reader:
            if reader.get(l2p_record.key(ids.ExtentAddress(entry.address))) != entry.value:
                return  # Deleted or moved meanwhile.
        self._position.find(
            f"{entry.length_bytes} bytes at address {entry.address} are lost: no member of group "
            f"{entry.group_id} shows stripe {entry.stripe_offset_bytes}; restore the object or "
            "delete it"
        )


def _checkpoints(reader: index_port.IndexReader) -> list[media_records.CheckpointRecord]:
    start, stop = media_records.table_range(media_records.CHECKPOINTS)
    return [
        media_records.unpack(media_records.CheckpointRecord, value)
        for _, value in reader.scan(start, stop)
    ]
