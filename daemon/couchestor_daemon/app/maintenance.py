"""The process beside the workers: checkpoints, and whatever else is done in the background."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from couchestor_daemon.adapters import system_clock
from couchestor_daemon.app import (
    checkpointing,
    device_messages,
    device_orders,
    device_presence,
    drive_watching,
    expiring,
    metrics,
    moving,
    node,
    notifying,
    pace_keeping,
    read_reporting,
    repairing,
    settings,
)
from couchestor_daemon.formats import zone_header
from couchestor_daemon.services import (
    background,
    destage,
    log_damage,
    pacing,
    release,
    stop_destage,
    stripe_groups,
    writer_slots,
)
from couchestor_domain import errors

_log = logging.getLogger("couchestor.maintenance")

STOP_RATIO: Final = 0.7
"""Part of the time to drain in which the log is emptied: the rest is for what comes after it."""

Report = Callable[[dict[str, object]], None]


class Maintenance:
    """The parts of the maintenance process.

    Args:
        report: Told what people should see of it.
    """

    def __init__(
        self,
        told: settings.Settings,
        *,
        inbox: device_messages.OrderInbox,
        report: Report,
        stop: asyncio.Event,
    ) -> None:
        self._told = told
        self._report = report
        self._counters = metrics.NodeMetrics()
        self.node = node.Node(
            told,
            writer=writer_slots.MAINTENANCE,
            counters=self._counters,
            groups_reserve_share_count=told.background_reserve_share_count,
            held=inbox.held,
        )
        self._clock = system_clock.SystemClock()
        self.pacer = pacing.Pacer(told.background_bytes_per_second, clock=self._clock)
        """How fast works read and write devices."""
        self._pace_keeper = pace_keeping.PaceKeeper(told, self.pacer, measured=self._counters)
        self._repairing = repairing.Repairing(
            told, self.node, pace=self.pacer.take, report=report, measured=self._counters
        )
        self._notifying = notifying.Notifying(told, self.node, measured=self._counters)
        self._ending = False
        self._is_emptying_log = False
        self._checkpoints = self.node.checkpoints(should_stop=lambda: stop.is_set() or self._ending)
        self._orders = device_orders.DeviceOrders(
            self.node, inbox, on_open=self._checkpoints.forget_device
        )
        self._schedule = checkpointing.CheckpointSchedule(
            self._checkpoints,
            log_bytes=told.checkpoint_log_bytes,
            log_percent=told.checkpoint_log_percent,
            report=report,
            measured=self._counters,
            space_is_short=lambda newest: checkpointing.gives_space_back(
                self._usage,
                newest,
                self.node.media.healthy_devices(),
                reserve_zones_count=told.reserve_zones_count,
            ),
            damaged_sequence=self._damaged_sequence,
        )
        self._presence = device_presence.DevicePresence(
            told,
            self.node.devices,
            self.node.media,
            departures=self.node.departures,
            report=report,
            measure_free=lambda device_id, label, free_bytes: (
                self._counters.device_free_bytes.labels(device_id, label).set(free_bytes)
            ),
        )
        self._usage: release.Usage | None = None
        self._told_zones: dict[str, object] = {}

    def groups(self) -> stripe_groups.StripeGroups:
        """Where works write stripes: always the same, one writer's groups have one owner."""
        return self.node.groups

    def works(self) -> Sequence[background.BackgroundWork]:
        """Everything that is done beside the checkpoints."""
        return [
            release.Release(
                index=self.node.index,
                media=self.node.media,
                submit=self.node.commits.submit,
                publisher=self.node.publisher,
                run_blocking=self.node.codec_threads.run,
                clock=self._clock,
                trusted=self._checkpoints.trusted,
                grace_seconds=self._told.zone_grace_seconds,
                reads_horizon=read_reporting.horizon(self._told.worker_count),
                on_usage=self._show_usage,
            ),
            *moving.works(
                self.node,
                self._told,
                counters=self._counters,
                pace=self.pacer.take,
                will_copy=self._repairing.moves.will_copy,
                report=self._report,
                should_empty_log=lambda: self._is_emptying_log,
            ),
            *self._repairing.works(),
            expiring.work(self.node, self._told, pace=self.pacer.take, measured=self._counters),
            *self._notifying.works(),
            *drive_watching.works(
                self.node,
                self._told,
                pace=self.pacer.take,
                report=self._report,
                measured=self._counters,
            ),
        ]

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop``."""
        following = asyncio.get_running_loop().create_task(self._orders.run())
        try:
            await self._work(stop)
        finally:
            self._ending = True
            following.cancel()

    async def _work(self, stop: asyncio.Event) -> None:
        try:
            await writer_slots.seal_vacant(
                self.node.index, self.node.commits.submit, workers_count=self._told.worker_count
            )
        except errors.CouchestorError as exc:
            _log.warning("what former writers left open is sealed at the next start: %s", exc)
        works = self.works()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._schedule.run(stop))
            group.create_task(self._pace_keeper.run(stop))
            group.create_task(self.node.tend(stop))
            group.create_task(self._presence.run(stop))
            group.create_task(background.BackgroundRunner(works).run(stop))
        if self._told.destage_on_stop:
            self._is_emptying_log = True
            await stop_destage.empty_log(
                [work for work in works if work.name == destage.Destage.name],
                within_seconds=self._told.drain_seconds * STOP_RATIO,
            )

    async def close(self) -> None:
        """Release everything, once ``run`` has ended."""
        # On a thread: a checkpoint under way needs the loop for its commits until it has ended.
        await self.node.codec_threads.run(self._schedule.close)
        await self._notifying.close()
        await self.node.close()

    def _damaged_sequence(self) -> int:
        with self.node.index.read() as reader:
            return log_damage.last_sequence(reader)

    def _show_usage(self, usage: release.Usage) -> None:
        self._usage = usage
        for role in zone_header.ZoneRole:
            count = sum(n for (_, found), n in usage.zones.items() if found == role)
            self._counters.zones_used.labels(role.name.lower()).set(count)
        zones: dict[str, object] = {}
        free_count = 0
        for device_id, device in sorted(self.node.devices.items()):
            identity = device.identity
            used = sum(n for (found, _), n in usage.zones.items() if found == device_id)
            free = 0 if identity.retiring else identity.zone_count - used
            free_count += free
            facts = {"used": used, "free": free}
            zones[identity.label] = {**facts, "retiring": True} if identity.retiring else facts
        self._counters.zones_free.set(free_count)
        if zones != self._told_zones:
            self._told_zones = zones
            self._report({"zones": zones})


async def run(
    told: settings.Settings,
    *,
    inbox: device_messages.OrderInbox,
    ready: Callable[[], None],
    report: Report,
    stop: asyncio.Event,
) -> None:
    """Background work until ``stop``."""
    maintenance = Maintenance(told, inbox=inbox, report=report, stop=stop)
    try:
        ready()
        await maintenance.run(stop)
    finally:
        await maintenance.close()
