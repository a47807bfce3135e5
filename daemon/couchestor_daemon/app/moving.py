"""The works that move live bytes: out of the log, and out of groups that are to go."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Awaitable, Callable, Sequence

from couchestor_daemon.adapters import system_clock
from couchestor_daemon.app import metrics, node, preparation, settings, stranding
from couchestor_daemon.formats import media_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import (
    background,
    compression,
    departures,
    destage,
    evacuation,
    group_source,
    payload_reader,
    reclaim,
    relocation,
    segment_source,
    stranded_groups,
    writer_slots,
)
from couchestor_domain import geometry


def works(
    parts: node.Node,
    told: settings.Settings,
    *,
    counters: metrics.NodeMetrics,
    pace: Callable[[int], Awaitable[None]],
    will_copy: reclaim.MustMove,
    report: Callable[[dict[str, object]], None],
    should_empty_log: Callable[[], bool] = lambda: False,
) -> Sequence[background.BackgroundWork]:
    """Destage and reclaim of the process that ``parts`` are of.

    Args:
        will_copy: Whether a group gets off retiring devices without being emptied.
        report: Told what people should see of them.
        should_empty_log: Whether destage moves everything, because the node stops.
    """
    clock = system_clock.SystemClock()
    wanted = geometry.StripeGeometry(told.data_shards, told.parity_shards)
    stripes = parts.stripes()
    squeeze = compression.Compression(saving_percent=told.compression_saving_percent)
    meter = CompressionMeter(squeeze.counters, counters)

    async def hurried(bytes_count: int) -> None:
        # Nothing is gained by leaving requests alone that are refused for want of room, or by a
        # node that takes none any more.
        if not reclaiming.is_urgent and not should_empty_log():
            await pace(bytes_count)

    moving = relocation.Relocation(
        groups=parts.groups,
        index=parts.index,
        payloads=payload_reader.PayloadReader(
            index=parts.index, media=parts.media, stripes=stripes
        ),
        stripes=stripes,
        pool=parts.pool,
        stripe_bytes=told.stripe_bytes,
        memory_bytes=preparation.BUFFER_POOL_BYTES // 2,
        squeeze=squeeze,
        run_codec=parts.codec_threads.run,
        submit=parts.commits.submit,
        pace=hurried,
        publisher=parts.publisher,
    )

    def of_segment(record: media_records.SegmentRecord) -> evacuation.Source:
        return segment_source.SegmentSource(
            record,
            index=parts.index,
            media=parts.media,
            run_blocking=parts.codec_threads.run,
            pace=hurried,
        )

    def of_group(record: media_records.GroupRecord) -> evacuation.Source:
        return group_source.GroupSource(
            record,
            index=parts.index,
            media=parts.media,
            stripes=stripes,
            run_blocking=parts.codec_threads.run,
            pace=hurried,
        )

    def must_move(reader: index_port.IndexReader, record: media_records.GroupRecord) -> bool:
        return departures.is_narrow(parts.media, record, wanted) or (
            departures.has_retiring_member(parts.media, record.members)
            and not will_copy(reader, record)
        )

    stranded = stranded_groups.StrandedGroups(
        parts.media,
        wanted=wanted,
        reserve_zones_count=told.reserve_zones_count,
        delay_seconds=told.rebuild_delay_seconds,
        now_seconds=time.monotonic,
        now_ns=clock.now_ns,
    )
    destaging = destage.Destage(
        index=parts.index,
        media=parts.media,
        emptying=evacuation.Evacuation(moving, stripe_bytes=told.stripe_bytes),
        source=of_segment,
        limits=destage.DestageLimits(
            log_bytes=told.destage_log_bytes,
            age_seconds=told.destage_age_seconds,
            idle_seconds=told.destage_idle_seconds,
        ),
        clock=clock,
        should_empty=should_empty_log,
    )
    reclaiming = reclaim.Reclaim(
        index=parts.index,
        media=parts.media,
        emptying=evacuation.Evacuation(moving, stripe_bytes=told.stripe_bytes),
        source=of_group,
        writer=writer_slots.MAINTENANCE,
        must_move=must_move,
        stranded=stranded.among,
        wanted=wanted,
        reserve_zones_count=told.reserve_zones_count,
        limits=reclaim.ReclaimLimits(
            dead_percent=told.reclaim_dead_percent, free_percent=told.reclaim_free_percent
        ),
        clock=clock,
        report=stranding.Stranding(told, parts.media, wanted=wanted, report=report).show,
    )
    return [_Metered(destaging, meter), _Metered(reclaiming, meter)]


class CompressionMeter:
    """Brings what the policy counted since the last time into the metrics."""

    def __init__(
        self, counted: compression.CompressionCounters, counters: metrics.NodeMetrics
    ) -> None:
        self._counted = counted
        self._shown = compression.CompressionCounters()
        self._counters = counters

    def show(self) -> None:
        """Call after each stripe, not each payload: counters of several processes are slow."""
        now, shown = self._counted, self._shown
        payloads = self._counters.compression_payloads
        payloads.labels("skipped").inc(now.skipped_count - shown.skipped_count)
        payloads.labels("kept").inc(now.kept_count - shown.kept_count)
        payloads.labels("in_vain").inc(
            now.tried_count - now.kept_count - (shown.tried_count - shown.kept_count)
        )
        self._counters.compression_saved_bytes.inc(now.saved_bytes - shown.saved_bytes)
        self._shown = dataclasses.replace(now)


class _Metered:
    """A work whose compression is shown after each step."""

    def __init__(self, work: background.BackgroundWork, meter: CompressionMeter) -> None:
        self.name = work.name
        self._work = work
        self._meter = meter

    async def step(self) -> float:
        """See ``BackgroundWork``."""
        try:
            return await self._work.step()
        finally:
            self._meter.show()
