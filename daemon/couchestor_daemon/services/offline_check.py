"""Index, L2P, groups, zones and shards of a stopped node against one another.

What the scrub does over days is done here at once: every shard and every live batch is read.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator

from couchestor_daemon.formats import media_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import (
    commit_log,
    group_scrub,
    group_walk,
    index_audit,
    repair_queue,
    repair_tools,
    segment_scrub,
    shard_check,
    stripe_references,
)
from couchestor_daemon.services.catalogue import liveness
from couchestor_domain import ids

Finding = index_audit.Finding
MAP_ENTRIES_PER_SLICE = 4096


class OfflineCheck:
    """One look at everything. The node must be stopped: nothing may change meanwhile."""

    def __init__(self, tools: repair_tools.Tools) -> None:
        self._tools = tools
        self._index = tools.index
        self._media = tools.media
        self._check = shard_check.ShardCheck(tools)

    async def findings(self) -> list[Finding]:
        """Everything that is not as it should be."""
        found = list(self._of_index())
        groups = self._groups()
        found += self._of_missing_devices(groups)
        for record in groups:
            found += await self._of_group(record)
        for segment in self._segments():
            found += await self._of_segment(segment)
        return found

    # -- the index ------------------------------------------------------------------------------

    def _of_index(self) -> Iterator[Finding]:
        with self._index.read() as reader:
            yield from index_audit.zone_findings(reader)
            yield from index_audit.repair_findings(reader, list(repair_queue.groups(reader)))
            yield from index_audit.live_bytes_findings(reader)
            address: int | None = 0
            while address is not None:
                part = index_audit.l2p_slice(
                    reader, start_address=address, entries_count=MAP_ENTRIES_PER_SLICE
                )
                yield from part.findings
                address = part.next_address

    def _groups(self) -> list[media_records.GroupRecord]:
        with self._index.read() as reader:
            return [
                media_records.unpack(media_records.GroupRecord, value)
                for _, value in reader.scan(*media_records.table_range(media_records.GROUPS))
            ]

    def _segments(self) -> list[media_records.SegmentRecord]:
        with self._index.read() as reader:
            return [
                media_records.unpack(media_records.SegmentRecord, value)
                for _, value in reader.scan(*media_records.table_range(media_records.SEGMENTS))
            ]

    # -- the media ------------------------------------------------------------------------------

    def _of_missing_devices(self, groups: list[media_records.GroupRecord]) -> list[Finding]:
        lacking: collections.Counter[ids.DeviceId] = collections.Counter()
        found = []
        with self._index.read() as reader:
            for record in groups:
                live_bytes = liveness.group_bytes(reader, record.group_id)
                missing = [
                    zone.device_id
                    for zone in media_records.zone_addresses(record.members)
                    if not shard_check.in_service(self._media, zone.device_id)
                ]
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
                        )
                    )
        for device_id, count in sorted(lacking.items()):
            found.append(
                Finding(
                    f"{count} groups have a member on device {device_id}, which is not there: "
                    "bring it back, or start the node, which rebuilds them on other devices when "
                    "the device stays away",
                    True,
                )
            )
        return found

    async def _of_group(self, record: media_records.GroupRecord) -> list[Finding]:
        zones = media_records.zone_addresses(record.members)
        end_bytes = await self._tools.run_blocking(group_walk.end_bytes, self._media, zones)
        with self._index.read() as reader:
            if not liveness.group_bytes(reader, record.group_id):
                return []
        work = group_scrub.GroupScrub(self._tools, record, end_bytes=end_bytes)
        damaged: dict[int, list[group_scrub.Suspect]] = {}
        while not work.ended:
            for suspect in await work.advance():
                verdict = await self._check.verdict(
                    record, offset_bytes=suspect.offset_bytes, shard_index=suspect.shard_index
                )
                if verdict is shard_check.Verdict.DAMAGED:
                    damaged.setdefault(suspect.shard_index, []).append(suspect)
        found = [
            Finding(
                f"{len(suspects)} shards of member {index} of group {record.group_id} in "
                f"{index_audit.name_of(zones[index])} are damaged; the first, of stripe "
                f"{suspects[0].offset_bytes}, {suspects[0].reason}; start the node, which finds "
                "and rebuilds them",
                True,
            )
            for index, suspects in sorted(damaged.items())
        ]
        return found + await self._lost_stripes(record, work)

    async def _lost_stripes(
        self, record: media_records.GroupRecord, work: group_scrub.GroupScrub
    ) -> list[Finding]:
        if await stripe_references.accounts_for_all(self._tools, record, work.found):
            return []
        shown = {stripe.location.stripe_offset_bytes for stripe in work.found}
        lost: dict[int, int] = {}
        async for offset, length_bytes in stripe_references.search(self._index, record.group_id):
            if offset not in shown:
                lost[offset] = lost.get(offset, 0) + length_bytes
        return [
            Finding(
                f"{lost_bytes} live bytes are lost: no member of group {record.group_id} that is "
                f"there shows stripe {offset}; bring missing devices back, or delete the objects "
                "whose reads fail",
                True,
            )
            for offset, lost_bytes in sorted(lost.items())
        ]

    async def _of_segment(self, record: media_records.SegmentRecord) -> list[Finding]:
        zones = media_records.zone_addresses(record.members)
        end_bytes = await self._tools.run_blocking(group_walk.end_bytes, self._media, zones)
        work = segment_scrub.SegmentScrub(self._tools, record, end_bytes=end_bytes)
        await work.look_at_headers()
        while not work.ended:
            await work.advance()
        return [Finding(text, True) for text in work.findings]


def repairs(reader: index_port.IndexReader) -> list[str]:
    """What ``repair`` would change, a sentence each."""
    return [
        *(f"freed {index_audit.name_of(zone)}" for zone in _unowned(reader)),
        *(f"dropped the repairs of group {group_id}" for group_id in _gone(reader)),
    ]


def repair() -> commit_log.Operation:
    """Free zones that nothing owns, and drop repairs of groups that are gone."""

    def apply(txn: index_port.IndexWriter, _: commit_log.Placement) -> None:
        for zone in _unowned(txn):
            txn.delete(media_records.zone_key(zone))
        for group_id in _gone(txn):
            repair_queue.delete_of_group(txn, group_id)

    return commit_log.Operation(apply=apply, uses_reserve=True)


def _unowned(reader: index_port.IndexReader) -> list[ids.ZoneAddress]:
    return [
        finding.zone
        for finding in index_audit.zone_findings(reader)
        if finding.zone is not None and not finding.is_damage
    ]


def _gone(reader: index_port.IndexReader) -> list[int]:
    return [
        group_id
        for group_id in repair_queue.groups(reader)
        if reader.get(media_records.group_key(group_id)) is None
    ]
