"""The maintenance process of a simulated node: every background work, in a hurry."""

from __future__ import annotations

import asyncio
import contextlib
from typing import cast

from tests.simulation import (
    hurried_works,
    node_events,
    node_shape,
    simulated_node,
    simulated_process,
    virtual_loop,
)

from couchestor_daemon import buffers
from couchestor_daemon.adapters import codec_choice
from couchestor_daemon.formats import media_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import (
    background,
    checkpoints,
    commit_log,
    compression,
    departures,
    destage,
    evacuation,
    group_source,
    member_moves,
    payload_reader,
    rebuild,
    reclaim,
    release,
    relocation,
    repair_tools,
    scrub,
    segment_source,
    stranded_groups,
    writer_slots,
)
from couchestor_domain import errors


class Maintenance(simulated_process.Process):
    """The process beside the workers: ``app.maintenance`` without threads.

    Further works go into ``works``.
    """

    def __init__(self, node: simulated_node.SimulatedNode) -> None:
        super().__init__(node, writer_slots.MAINTENANCE, reserve_share_count=2)
        self.checkpoints = checkpoints.Checkpoints(
            index=self.index,
            media=self.media,
            pool=self._pool,
            submit=self._commit_at_once,
            copies_count=self._shape.replicas_count,
            reserve_zones_count=self._shape.reserve_zones_count,
            short_reserve_zones_count=min(1, self._shape.reserve_zones_count),
            publisher=node_events.Silence(),
            now_ns=node.now_ns,
            draw_seed=node.draw_bits,
        )
        tools = repair_tools.Tools(
            index=self.index,
            media=self.media,
            pool=buffers.BufferPool(node_shape.POOL_BYTES),
            codecs=codec_choice.by_id,
            run_codec=self._run_inline,
            run_blocking=self._run_inline,
            pace=hurried_works.unpaced,
        )
        self.rebuild = rebuild.Rebuild(
            tools,
            submit=self.commits.submit,
            # As in a real node there is always a reserve: a start may need a zone for the log.
            reserve_zones_count=max(1, self._shape.reserve_zones_count),
            delay_seconds=node_shape.REBUILD_DELAY_SECONDS,
            publisher=node_events.RepairEvents(node.happened),
            now_seconds=virtual_loop.LoopClock().monotonic_seconds,
            now_ns=node.now_ns,
            look_seconds=node_shape.REBUILD_LOOK_SECONDS,
        )
        self.scrub = scrub.Scrub(
            tools,
            submit=self.commits.submit,
            period_seconds=node_shape.SCRUB_PERIOD_SECONDS,
            publisher=node_events.RepairEvents(node.happened),
            now_seconds=virtual_loop.LoopClock().monotonic_seconds,
            now_ns=virtual_loop.LoopClock().now_ns,
        )
        self.moves = member_moves.MemberMoves(
            tools,
            zones=self.rebuild.zones,
            wanted=self._shape.coding,
            reserve_zones_count=max(1, self._shape.reserve_zones_count),
            limits=node_shape.MOVE_LIMITS,
            must_wait=lambda: self.rebuild.progress.groups_waiting_count > 0,
            publisher=node_events.MoveEvents(node.happened),
            now_seconds=virtual_loop.LoopClock().monotonic_seconds,
            look_seconds=node_shape.REBUILD_LOOK_SECONDS,
        )
        self._running: asyncio.Task[None]

    def works(self) -> list[background.BackgroundWork]:
        """Everything that is done in the background."""
        return [
            hurried_works.CheckpointWork(self.checkpoints, self._node.happened),
            release.Release(
                index=self.index,
                media=self.media,
                submit=self._release,
                publisher=node_events.Silence(),
                run_blocking=self._run_inline,
                clock=virtual_loop.LoopClock(),
                trusted=self.checkpoints.trusted,
                grace_seconds=node_shape.RELEASE_GRACE_SECONDS,
                reads_horizon=self._reads_horizon,
                reads_ended_seconds=node_shape.READS_ENDED_SECONDS,
            ),
            *self._moving(),
            self.rebuild,
            self.moves,
            self.scrub,
        ]

    def _reads_horizon(self) -> float:
        now = virtual_loop.LoopClock().monotonic_seconds()
        return min(
            (each.horizon_seconds(now) for each in self._node.places_in_use.values()), default=0.0
        )

    def _moving(self) -> list[background.BackgroundWork]:
        """What ``app.moving`` does, in a hurry."""
        shape = self._shape
        squeeze = compression.Compression(saving_percent=node_shape.COMPRESSION_SAVING_PERCENT)
        moving = relocation.Relocation(
            groups=self.groups,
            index=self.index,
            payloads=payload_reader.PayloadReader(
                index=self.index, media=self.media, stripes=self.stripes
            ),
            stripes=self.stripes,
            pool=self._pool,
            stripe_bytes=shape.stripe_bytes,
            memory_bytes=node_shape.POOL_BYTES // 2,
            squeeze=squeeze,
            run_codec=self._run_inline,
            submit=self.commits.submit,
            pace=hurried_works.paced,
            publisher=node_events.Silence(),
        )
        works: list[background.BackgroundWork] = [
            destage.Destage(
                index=self.index,
                media=self.media,
                emptying=evacuation.Evacuation(moving, stripe_bytes=shape.stripe_bytes),
                source=lambda record: segment_source.SegmentSource(
                    record,
                    index=self.index,
                    media=self.media,
                    run_blocking=self._run_inline,
                    pace=hurried_works.paced,
                ),
                limits=node_shape.DESTAGE_LIMITS,
                clock=virtual_loop.LoopClock(),
            ),
            reclaim.Reclaim(
                index=self.index,
                media=self.media,
                emptying=evacuation.Evacuation(moving, stripe_bytes=shape.stripe_bytes),
                source=lambda record: group_source.GroupSource(
                    record,
                    index=self.index,
                    media=self.media,
                    stripes=self.stripes,
                    run_blocking=self._run_inline,
                    pace=hurried_works.paced,
                ),
                writer=self.name,
                must_move=self._must_move,
                stranded=stranded_groups.StrandedGroups(
                    self.media,
                    wanted=shape.coding,
                    reserve_zones_count=max(1, shape.reserve_zones_count),
                    delay_seconds=node_shape.REBUILD_DELAY_SECONDS,
                    now_seconds=virtual_loop.LoopClock().monotonic_seconds,
                    now_ns=self._node.now_ns,
                ).among,
                wanted=shape.coding,
                reserve_zones_count=shape.reserve_zones_count,
                limits=node_shape.RECLAIM_LIMITS,
                clock=virtual_loop.LoopClock(),
                report=lambda progress: self._node.happened(f"stranded {progress.groups_count}"),
            ),
        ]
        return [
            hurried_works.HurriedWork(work, squeeze.counters, self._node.happened) for work in works
        ]

    def _must_move(self, reader: index_port.IndexReader, record: media_records.GroupRecord) -> bool:
        return departures.is_narrow(self.media, record, self._shape.coding) or (
            departures.has_retiring_member(self.media, record.members)
            and not self.moves.will_copy(reader, record)
        )

    async def start(self) -> None:
        """Begin; the works go on until the process dies."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, virtual_loop.VirtualLoop), loop
        self._running = loop.create_task_of(self, self._run())

    def check(self) -> None:
        """Raise what ended the works: nothing but a death should."""
        if self._running.done() and not self._running.cancelled():
            self._running.result()

    async def _run(self) -> None:
        # What cannot be sealed now waits for the next start.
        with contextlib.suppress(errors.CouchestorError):
            await writer_slots.seal_vacant(
                self.index, self.commits.submit, workers_count=node_shape.WORKERS_COUNT
            )
        watched = [hurried_works.WatchedWork(work) for work in self.works()]
        runner = background.BackgroundRunner(watched, retry_seconds_min=node_shape.RETRY_SECONDS)
        await runner.run(asyncio.Event())

    def _commit_at_once(self, operation: commit_log.Operation) -> object:
        """As from the checkpoint thread, which waits for the result."""
        self._log.commit([operation])
        if operation.error is not None:
            raise operation.error
        return operation.result

    async def _release(self, operation: commit_log.Operation) -> object:
        released = await self.commits.submit(operation)
        for each in cast("list[release.Unreferenced]", released):
            self._node.happened(f"released-{each.role.name.lower()} {each.owner_id}")
        return released
