"""Rebuild: groups get back the members they lost, the most endangered first, a few at a time.

A member is replaced as a whole, because zones only grow: every shard of it is copied or decoded
into a fresh zone, which is swapped in by one commit (docs/adr/0007). What was found damaged is
looked at again first; what nothing leads to is not repaired.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from couchestor_daemon import buffers
from couchestor_daemon.formats import media_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import (
    commit_log,
    member_rebuild,
    rebuild_lanes,
    rebuild_order,
    rebuild_survey,
    repair_queue,
    repair_tools,
    replacement_zones,
    shard_check,
    stripe_runs,
)
from couchestor_domain import errors, event_publisher, events, ids

logger = logging.getLogger(__name__)

LOOK_SECONDS: Final = 5.0
"""Between looks at the repair queue and at the devices."""
LOOKS_PER_SURVEY: Final = 120
"""Looks between those at all groups when nothing is known to be missing."""
LOOKS_PER_RESURVEY: Final = 6
"""The same while something is."""
LOOKS_PER_RETRY: Final = 120
"""After a rebuild that cannot succeed as things are."""
LOOKS_PER_ROOM: Final = 12
"""After one for which there was no place, or whose place failed."""
CHECKS_PER_STEP: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What people see of it."""

    groups_waiting_count: int = 0
    """At least; more may be found when these are done."""
    groups_rebuilt_count: int = 0
    """By this process."""
    groups_failed_count: int = 0
    """Cannot be rebuilt as things are."""
    done_bytes: int = 0
    """Written by this process."""
    left_bytes: int = 0
    """To write, at most."""
    seconds_left: float = 0.0
    """At the present speed; 0 while that is not known."""


class Rebuild:
    """Background work (see ``services.background``).

    Args:
        delay_seconds: How long a device may be away before its members are replaced.
        now_seconds: Monotonic clock.
        now_ns: Wall clock.
        look_seconds: Between looks when there is nothing to do; everything else that waits waits
            for some of them.
        report: Told when the progress has changed.
        on_repaired: Told how many shards a rebuild that has ended brought back.
    """

    name = "rebuild"

    def __init__(
        self,
        tools: repair_tools.Tools,
        *,
        submit: replacement_zones.Submit,
        reserve_zones_count: int,
        delay_seconds: float,
        publisher: event_publisher.EventPublisher,
        now_seconds: Callable[[], float],
        now_ns: Callable[[], int],
        look_seconds: float = LOOK_SECONDS,
        report: Callable[[Progress], None] = lambda progress: None,
        on_repaired: Callable[[int], None] = lambda count: None,
    ) -> None:
        tools = dataclasses.replace(tools, pool=buffers.PoolPart(tools.pool))
        self._tools = tools
        self._submit = submit
        self._publisher = publisher
        self._now_seconds = now_seconds
        self._look_seconds = look_seconds
        self._report = report
        self._on_repaired = on_repaired
        self.zones = replacement_zones.ReplacementZones(
            index=tools.index,
            media=tools.media,
            submit=submit,
            reserve_zones_count=reserve_zones_count,
            publisher=publisher,
        )
        """For others in this process that replace members."""
        self._lanes = rebuild_lanes.RebuildLanes(
            lambda: rebuild_lanes.Lane(
                tools,
                zones=self.zones,
                publisher=publisher,
                on_failed=self._attempt_failed,
                on_replaced=self._attempt_replaced,
            )
        )
        self._check = shard_check.ShardCheck(tools)
        self._absent = rebuild_survey.AbsentDevices(
            tools.media, delay_seconds=delay_seconds, now_seconds=now_seconds, now_ns=now_ns
        )
        self._survey = rebuild_survey.RebuildSurvey(index=tools.index, absent=self._absent)
        self._queue: list[rebuild_order.Need] = []
        self._members_waiting_count = 0
        self._healthy: frozenset[ids.DeviceId] = frozenset()
        self._look_at = 0.0
        """When the queue is filled again while groups are under way."""
        self._survey_at = 0.0
        self._retry_at: dict[int, float] = {}
        self._failed: set[int] = set()
        self._told_of_room: set[str] = set()
        """Why groups wait for their rebuild."""
        self._rebuilt_count = 0
        self._busy_seconds = 0.0
        self._shown = Progress()
        self._is_shown = False

    @property
    def progress(self) -> Progress:
        """As of the last step."""
        return self._shown

    async def step(self) -> float:
        """Go on with groups under way, and begin the next ones.

        Raises:
            CouchestorError: nothing could go on; what failed has been given up, and its zones are
                freed by the next step.
        """
        started = self._now_seconds()
        await self._look()
        done_bytes = self._lanes.done_bytes
        wait_seconds = await self._lanes.step(self._begin_next, queue=self._queue)
        if self._lanes.under_way or self._lanes.done_bytes > done_bytes:
            self._busy_seconds += self._now_seconds() - started
        self._show()
        return wait_seconds

    # -- what to do -----------------------------------------------------------------------------

    async def _begin_next(self, lane: rebuild_lanes.Lane) -> float:
        await self._look()
        if not self._queue or not rebuild_order.may_begin(self._queue[0], self._lanes.needs):
            return self._look_seconds
        await self._begin(lane, self._queue.pop(0))
        self._show()
        return 0.0

    async def _look(self) -> None:
        """Fill the queue when it is empty, with what is neither under way nor put off."""
        now = self._now_seconds()
        healthy = frozenset(i.device_id for i in self._tools.media.healthy_devices())
        if healthy != self._healthy:
            self._healthy = healthy
            self._queue, self._survey_at, self._look_at = [], now, now
            self._retry_at.clear()
            self._told_of_room.clear()
            self._reconsider()
        if not self._queue and (now >= self._look_at or not self._lanes.needs):
            self._look_at = now + self._look_seconds
            await self._fill_queue()
        under_way = {need.group_id for need in self._lanes.needs}
        self._queue = [
            need
            for need in self._queue
            if need.group_id not in under_way and self._retry_at.get(need.group_id, 0.0) <= now
        ]

    def _reconsider(self) -> None:
        """Learn what groups under way can still lose, now that other devices are in service."""
        with self._tools.index.read() as reader:
            for lane in self._lanes.under_way:
                assert lane.need is not None, "it has begun"
                value = reader.get(media_records.group_key(lane.need.group_id))
                if value is not None:
                    record = media_records.unpack(media_records.GroupRecord, value)
                    lane.need = self._survey.need_of(reader, record) or lane.need

    async def _fill_queue(self) -> None:
        now = self._now_seconds()
        if now >= self._survey_at:
            self._queue, self._members_waiting_count = await self._survey.of_all_groups()
            is_soon = self._members_waiting_count or self._absent.are_known()
            looks = LOOKS_PER_RESURVEY if is_soon else LOOKS_PER_SURVEY
            self._survey_at = now + looks * self._look_seconds
            given_up_at = self._absent.next_change_seconds()
            if given_up_at is not None:
                self._survey_at = min(self._survey_at, given_up_at)
        queued, gone = await self._survey.queued()
        if gone:
            await self._drop_groups(gone)
        known = {need.group_id for need in self._queue}
        self._queue = rebuild_order.most_urgent(
            [*self._queue, *(need for need in queued if need.group_id not in known)]
        )
        self._members_waiting_count = max(
            self._members_waiting_count,
            sum(len(need.missing) + len(need.suspects) for need in self._queue),
        )
        if not self._queue and not self._lanes.needs:
            self._members_waiting_count = 0

    async def _drop_groups(self, group_ids: list[int]) -> None:
        def apply(txn: index_port.IndexWriter, _: commit_log.Placement) -> None:
            for group_id in group_ids:
                if txn.get(media_records.group_key(group_id)) is None:
                    repair_queue.delete_of_group(txn, group_id)

        await self._submit(commit_log.Operation(apply=apply, uses_reserve=True))

    async def _begin(self, lane: rebuild_lanes.Lane, chosen: rebuild_order.Need) -> None:
        """Start on a group, if it still needs it."""
        group_id = chosen.group_id
        with self._tools.index.read() as reader:
            value = reader.get(media_records.group_key(group_id))
            if value is None:
                return
            record = media_records.unpack(media_records.GroupRecord, value)
            need = self._survey.need_of(reader, record)
            if need is None:
                return
            waiting = list(repair_queue.of_group(reader, group_id))
        try:
            damaged, are_all_checked = await self._damaged(record, need, waiting)
        except errors.OverloadedError:
            self._queue.insert(0, need)
            raise
        wanted = sorted({*need.missing, *(index for _, index in damaged)})
        if not wanted:
            if not are_all_checked:
                self._queue.insert(0, need)
            return
        try:
            work = await lane.replacement.take_up(record, wanted, distrusted=damaged)
        except (errors.StoreFullError, errors.StoreReadOnlyError) as exc:
            if str(exc) not in self._told_of_room:  # Once, not for each of a thousand groups.
                self._told_of_room.add(str(exc))
                logger.warning("group %d waits for its rebuild: %s", group_id, exc)
            self._put_off(group_id, LOOKS_PER_ROOM)
            return
        lane.need, lane.began_seconds = need, self._now_seconds()
        self._publisher.publish(
            events.ReconstructionTriggered(
                group_id=ids.GroupId(group_id), missing_shards=tuple(sorted(work.fresh))
            )
        )

    async def _damaged(
        self,
        record: media_records.GroupRecord,
        need: rebuild_order.Need,
        waiting: list[media_records.RepairRecord],
    ) -> tuple[list[tuple[int, int]], bool]:
        """The shards among those waiting that are damaged indeed, as (offset, index); and whether
        all were looked at.

        Of each member one is enough to rebuild it all, but a wrong parity that verifies must be
        known, so that it is not copied. What proves whole, or is missed by nobody, is taken off.
        """
        damaged: list[tuple[int, int]] = []
        needless: list[media_records.RepairRecord] = []
        checked_count = 0
        are_all_checked = True
        for item in waiting:
            if item.shard_index not in need.suspects:
                continue
            if checked_count >= CHECKS_PER_STEP and item.shard_index < record.data_shards:
                are_all_checked = False
                continue
            checked_count += 1
            verdict = await self._check.verdict(
                record, offset_bytes=item.stripe_offset_bytes, shard_index=item.shard_index
            )
            if verdict is shard_check.Verdict.DAMAGED:
                damaged.append((item.stripe_offset_bytes, item.shard_index))
            elif verdict is not shard_check.Verdict.AWAY:
                needless.append(item)
        if needless:
            drop = repair_queue.drop(needless)
            await self._submit(
                commit_log.Operation(apply=lambda txn, _: drop(txn), uses_reserve=True)
            )
        return damaged, are_all_checked

    # -- what became of it ----------------------------------------------------------------------

    def _attempt_failed(
        self, _: rebuild_lanes.Lane, work: member_rebuild.MemberRebuild, why: Exception
    ) -> None:
        group_id = work.record.group_id
        if isinstance(why, stripe_runs.LostStripeError):
            self._put_off(group_id, LOOKS_PER_RETRY)
            self._failed.add(group_id)
        else:
            self._put_off(group_id, LOOKS_PER_ROOM)
        self._publisher.publish(
            events.ReconstructionFailed(group_id=ids.GroupId(group_id), reason=str(why))
        )

    def _attempt_replaced(
        self, lane: rebuild_lanes.Lane, work: member_rebuild.MemberRebuild
    ) -> None:
        group_id = work.record.group_id
        self._failed.discard(group_id)
        self._retry_at.pop(group_id, None)
        self._rebuilt_count += 1
        self._on_repaired(work.decoded_count)
        self._members_waiting_count -= min(self._members_waiting_count, len(work.fresh))
        self._publisher.publish(
            events.ReconstructionCompleted(
                group_id=ids.GroupId(group_id),
                rebuilt_bytes=work.moved_bytes,
                duration_seconds=self._now_seconds() - lane.began_seconds,
            )
        )

    def _put_off(self, group_id: int, looks: int) -> None:
        self._retry_at[group_id] = self._now_seconds() + looks * self._look_seconds

    def _show(self) -> None:
        capacity_bytes = max(
            (i.zone_capacity_bytes for i in self._tools.media.healthy_devices()), default=0
        )
        done_bytes = self._lanes.done_bytes
        works = [lane.replacement.work for lane in self._lanes.under_way]
        moved_bytes = sum(work.moved_bytes for work in works if work is not None)
        left_bytes = max(0, self._members_waiting_count * capacity_bytes - moved_bytes)
        speed = done_bytes / self._busy_seconds if self._busy_seconds else 0.0
        fresh = Progress(
            groups_waiting_count=len(self._queue) + len(works),
            groups_rebuilt_count=self._rebuilt_count,
            groups_failed_count=len(self._failed),
            done_bytes=done_bytes,
            left_bytes=left_bytes,
            seconds_left=left_bytes / speed if speed else 0.0,
        )
        if fresh != self._shown or not self._is_shown:
            self._shown, self._is_shown = fresh, True
            self._report(fresh)
