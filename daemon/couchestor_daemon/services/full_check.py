"""Index, log, L2P, groups, zones, checkpoints and shards of a node against one another.

What the scrub does over days is done here in one go: every shard and every live batch is read.

Beside a running node everything changes meanwhile: zones are reset and given away, members swapped,
stripes appended. Three rules keep that from looking like damage:

    tables are compared in one snapshot                   the invariants hold in each
    what was read is judged by a snapshot from after it   nobody misses what nothing leads to
    what is wrong is looked at again, after a pause       two looks must find the same
"""

from __future__ import annotations

import asyncio
import collections
import itertools
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final

from couchestor_daemon.formats import media_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import (
    checkpoint_check,
    group_scrub,
    group_walk,
    index_audit,
    log_chain,
    repair_queue,
    repair_tools,
    segment_scrub,
    shard_check,
    stripe_references,
    zone_holders,
)
from couchestor_daemon.services.catalogue import liveness
from couchestor_domain import ids

Finding = index_audit.Finding
MAP_ENTRIES_PER_SLICE: Final = 4096
FINDINGS_MAX: Final = 1000
"""Of one look: when so much is wrong, the rest would say nothing new."""
CHECKPOINT_LOOKS_MAX: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How a check goes about it."""

    is_running: bool = False
    """The node works meanwhile."""
    reads_everything: bool = True
    """Else only the tables of the index, and the shards that wait for repair."""
    pause_seconds: float = 0.0
    """Before what is wrong is looked at again."""


class FullCheck:
    """One look at everything.

    Args:
        progress: Told what is being looked at, in a few words.
    """

    def __init__(
        self,
        tools: repair_tools.Tools,
        *,
        manner: Manner = Manner(),
        progress: Callable[[str], None] = lambda doing: None,
    ) -> None:
        self._tools = tools
        self._index = tools.index
        self._media = tools.media
        self._manner = manner
        self._progress = progress
        self._check = shard_check.ShardCheck(tools)
        self._repairer = (
            "the running node rebuilds them once a read or its scrub has found them"
            if manner.is_running
            else "start the node, which finds and rebuilds them"
        )

    async def findings(self) -> list[Finding]:
        """Everything that is not as it should be.

        Raises:
            CouchestorError: the index cannot be read, or no memory can be had.
        """
        self._progress("tables of the index")
        found = await self._certain(self._of_index)
        found += await self._certain(self._of_missing_devices)
        if not self._manner.reads_everything:
            return found + await self._certain(self._of_waiting_repairs)
        group_ids = self._group_ids()
        for number, group_id in enumerate(group_ids, 1):
            self._progress(f"group {number} of {len(group_ids)}")

            async def look(group_id: int = group_id) -> list[Finding]:
                return await self._of_group(group_id)

            found += await self._certain(look)
        found += await self._certain(self._of_log)
        if self._manner.is_running:
            found += await self._certain(self._of_checkpoints)
        return found

    async def _certain(self, look: Callable[[], Awaitable[list[Finding]]]) -> list[Finding]:
        """What a look finds; beside a running node, what two looks find."""
        first = await look()
        if not first or not self._manner.is_running:
            return first
        await asyncio.sleep(self._manner.pause_seconds)
        subjects = {finding.subject for finding in first}
        return [finding for finding in await look() if finding.subject in subjects]

    # -- the index ------------------------------------------------------------------------------

    async def _of_index(self) -> list[Finding]:
        with self._index.read() as reader:
            found = list(itertools.islice(self._of_tables(reader), FINDINGS_MAX + 1))
        if len(found) > FINDINGS_MAX:
            text = f"the index has more than {FINDINGS_MAX} faults; run `couchestor recover`"
            found[FINDINGS_MAX:] = [Finding(text, True)]
        return found

    def _of_tables(self, reader: index_port.IndexReader) -> Iterator[Finding]:
        for finding in index_audit.zone_findings(reader):
            # A zone that a rebuild fills is nothing special while the node runs.
            if finding.is_damage or finding.zone is not None or not self._manner.is_running:
                yield finding
        yield from index_audit.repair_findings(reader, list(repair_queue.groups(reader)))
        yield from index_audit.live_bytes_findings(reader)
        yield from index_audit.usage_findings(reader)
        yield from index_audit.notice_findings(reader)
        address: int | None = 0
        while address is not None:
            part = index_audit.l2p_slice(
                reader, start_address=address, entries_count=MAP_ENTRIES_PER_SLICE
            )
            yield from part.findings
            address = part.next_address

    def _group_ids(self) -> list[int]:
        with self._index.read() as reader:
            return [
                int(media_records.U64.unpack(key[1:])[0])
                for key, _ in reader.scan(*media_records.table_range(media_records.GROUPS))
            ]

    def _group(self, group_id: int) -> media_records.GroupRecord | None:
        """The group as it is now, if something leads to it."""
        with self._index.read() as reader:
            value = reader.get(media_records.group_key(group_id))
            if value is None or not liveness.group_bytes(reader, group_id):
                return None
            return media_records.unpack(media_records.GroupRecord, value)

    def _segments(self) -> list[media_records.SegmentRecord]:
        with self._index.read() as reader:
            return [
                media_records.unpack(media_records.SegmentRecord, value)
                for _, value in reader.scan(*media_records.table_range(media_records.SEGMENTS))
            ]

    # -- the media ------------------------------------------------------------------------------

    async def _of_missing_devices(self) -> list[Finding]:
        lacking: collections.Counter[ids.DeviceId] = collections.Counter()
        found = []
        with self._index.read() as reader:
            for _, value in reader.scan(*media_records.table_range(media_records.GROUPS)):
                record = media_records.unpack(media_records.GroupRecord, value)
                missing = [
                    zone.device_id
                    for zone in media_records.zone_addresses(record.members)
                    if not shard_check.in_service(self._media, zone.device_id)
                ]
                live_bytes = liveness.group_bytes(reader, record.group_id) if missing else 0
                if not live_bytes:
                    continue
                lacking.update(missing)
                if len(missing) > record.parity_shards:
                    found.append(
                        Finding(
                            f"{live_bytes} live bytes of group {record.group_id} cannot be read: "
                            f"{len(missing)} of its members are on devices that are not there "
                            f"({', '.join(missing)}); bring one of them back",
                            True,
                            about=f"group {record.group_id} cannot be read",
                        )
                    )
        advice = (
            "wait for the running node, which rebuilds them"
            if self._manner.is_running
            else "start the node, which rebuilds them"
        )
        for device_id, count in sorted(lacking.items()):
            found.append(
                Finding(
                    f"{count} groups have a member on device {device_id}, which is not there: "
                    f"bring it back, or {advice} on other devices when the device stays away",
                    True,
                    about=f"members on device {device_id}",
                )
            )
        return found

    async def _of_waiting_repairs(self) -> list[Finding]:
        """Shards that readers or the scrub have found, looked at again."""
        with self._index.read() as reader:
            start, stop = media_records.table_range(media_records.REPAIRS)
            claims = [
                media_records.unpack(media_records.RepairRecord, value)
                for _, value in itertools.islice(reader.scan(start, stop), FINDINGS_MAX)
            ]
        damaged: dict[tuple[int, int], list[group_scrub.Suspect]] = {}
        for claim in claims:
            record = self._group(claim.group_id)
            suspect = group_scrub.Suspect(
                claim.stripe_offset_bytes, claim.shard_index, claim.reason
            )
            if record is not None and await self._is_damaged(record, suspect):
                key = (claim.group_id, claim.shard_index)
                damaged.setdefault(key, []).append(suspect)
        found = []
        for (group_id, index), suspects in sorted(damaged.items()):
            record = self._group(group_id)
            if record is not None:
                found.append(self._of_damage(record, index, suspects))
        return found

    async def _of_group(self, group_id: int) -> list[Finding]:
        record = self._group(group_id)
        if record is None:
            return []
        zones = media_records.zone_addresses(record.members)
        end_bytes = await self._tools.run_blocking(group_walk.end_bytes, self._media, zones)
        work = group_scrub.GroupScrub(self._tools, record, end_bytes=end_bytes)
        damaged: dict[int, list[group_scrub.Suspect]] = {}
        while not work.ended:
            for suspect in await work.advance():
                if await self._is_damaged(record, suspect):
                    damaged.setdefault(suspect.shard_index, []).append(suspect)
        found = [
            self._of_damage(record, index, suspects) for index, suspects in sorted(damaged.items())
        ]
        return found + await self._lost_stripes(record, work)

    def _of_damage(
        self, record: media_records.GroupRecord, index: int, suspects: list[group_scrub.Suspect]
    ) -> Finding:
        zone = media_records.zone_addresses(record.members)[index]
        return Finding(
            f"{len(suspects)} shards of member {index} of group {record.group_id} in "
            f"{index_audit.name_of(zone)} are damaged; the first, of stripe "
            f"{suspects[0].offset_bytes}, {suspects[0].reason}; {self._repairer}",
            True,
            about=f"member {index} of group {record.group_id} in {index_audit.name_of(zone)}",
        )

    async def _is_damaged(
        self, record: media_records.GroupRecord, suspect: group_scrub.Suspect
    ) -> bool:
        """Whether a second read finds the same, something leads to the shard, and its zone is still
        the group's after the read."""
        index, current = suspect.shard_index, record
        while True:
            verdict = await self._check.verdict(
                current, offset_bytes=suspect.offset_bytes, shard_index=index
            )
            # A zone is only reset after the commit by which it is nobody's member any more.
            after = self._group(record.group_id)
            if (
                verdict is not shard_check.Verdict.DAMAGED
                or after is None
                or after.members[index] != record.members[index]
            ):
                return False
            if after.members == current.members:
                return True
            current = after

    async def _lost_stripes(
        self, record: media_records.GroupRecord, work: group_scrub.GroupScrub
    ) -> list[Finding]:
        if await stripe_references.accounts_for_all(self._tools, record, work.found):
            return []
        shown = {stripe.location.stripe_offset_bytes for stripe in work.found}
        unseen = (await self._leading_to(record.group_id)).keys() - shown
        # A group that is written to has stripes by now that the walk did not reach.
        gone = {
            offset
            for offset in unseen
            if await group_walk.stripe_at(self._media, record, offset_bytes=offset) is None
        }
        if not gone:
            return []
        leading = await self._leading_to(record.group_id)
        after = self._group(record.group_id)
        if after is None or after.members != record.members:
            return []  # A rebuild has swapped members, and proved that nothing is missing.
        return [
            Finding(
                f"{leading[offset]} live bytes are lost: no member of group {record.group_id} that "
                f"is there shows stripe {offset}; bring missing devices back, or delete the "
                "objects whose reads fail",
                True,
                about=f"stripe {offset} of group {record.group_id}",
            )
            for offset in sorted(gone & leading.keys())
        ]

    async def _leading_to(self, group_id: int) -> collections.Counter[int]:
        """Live bytes by stripe offset."""
        found: collections.Counter[int] = collections.Counter()
        async for offset, length_bytes in stripe_references.search(self._index, group_id):
            found[offset] += length_bytes
        return found

    async def _of_log(self) -> list[Finding]:
        with self._index.read() as reader:
            chain = log_chain.LogChain(reader)
        found: list[Finding] = []
        segments = self._segments()
        for number, record in enumerate(segments, 1):
            self._progress(f"log segment {number} of {len(segments)}")
            found += await self._of_segment(record, chain)
        if self._manner.is_running:
            with self._index.read() as reader:
                found += chain.findings(reader)
        return found

    async def _of_segment(
        self, record: media_records.SegmentRecord, chain: log_chain.LogChain
    ) -> list[Finding]:
        zones = media_records.zone_addresses(record.members)
        end_bytes = await self._tools.run_blocking(group_walk.end_bytes, self._media, zones)
        work = segment_scrub.SegmentScrub(
            self._tools,
            record,
            end_bytes=end_bytes,
            visit=lambda found: chain.visit(record, found),
        )
        await work.look_at_headers()
        while not work.ended:
            await work.advance()
        with self._index.read() as reader:
            is_listed = reader.get(media_records.segment_key(record.segment_id)) is not None
        return work.findings if is_listed else []

    async def _of_checkpoints(self) -> list[Finding]:
        """Every copy, as long as none is replaced during the look."""
        self._progress("checkpoints")
        for _ in range(CHECKPOINT_LOOKS_MAX):
            records = self._checkpoints()
            await self._tools.pace(sum(r.image_bytes * len(r.parts[0]) for r in records))
            found = await self._tools.run_blocking(
                checkpoint_check.findings,
                zone_holders.in_service(self._index, self._media),
                records,
            )
            if self._checkpoints() == records:
                return [Finding(text, True) for text in found]
            await asyncio.sleep(self._manner.pause_seconds)
        return []

    def _checkpoints(self) -> list[media_records.CheckpointRecord]:
        with self._index.read() as reader:
            return [
                media_records.unpack(media_records.CheckpointRecord, value)
                for _, value in reader.scan(*media_records.table_range(media_records.CHECKPOINTS))
            ]
