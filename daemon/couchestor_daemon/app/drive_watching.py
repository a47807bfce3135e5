"""The watch over devices, as the maintenance process runs it, and what people see of it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Final

from couchestor_daemon import buffers
from couchestor_daemon.adapters import drive_board, verdict_board
from couchestor_daemon.app import metrics, node, pace_keeping, settings
from couchestor_daemon.ports import drive_figures, drive_verdicts
from couchestor_daemon.services import (
    background,
    drive_comparison,
    drive_probe,
    drive_suspicion,
    drive_watch,
    repair_tools,
    trial_zones,
)
from couchestor_domain import geometry, units

POOL_BYTES: Final = units.MIB

Report = Callable[[dict[str, object]], None]


def works(
    parts: node.Node,
    told: settings.Settings,
    *,
    pace: repair_tools.Pace,
    report: Report,
    measured: metrics.NodeMetrics,
) -> Sequence[background.BackgroundWork]:
    """The watch, unless it is turned off or there is no node to share figures with.

    Args:
        report: Told which devices are not trusted, and why.
        measured: The counters of this process.
    """
    place = pace_keeping.folder()
    if place is None or not told.suspect_window_seconds:
        return []
    limits = drive_comparison.Limits(
        ratio=told.suspect_latency_ratio,
        floor_seconds=told.suspect_latency_floor_seconds,
        window_seconds=told.suspect_window_seconds,
        slow_max=told.parity_shards,
    )
    board = verdict_board.VerdictBoard(place)
    known = board.read()
    shown = _Shown(parts, report=report, measured=measured, board=board)
    return [
        drive_watch.DriveWatch(
            index=parts.index,
            media=parts.media,
            take_window=drive_board.DriveBoard(place).take,
            devices=lambda: list(parts.devices),
            probe=drive_probe.DriveProbe(
                media=parts.media,
                zones=trial_zones.TrialZones(
                    index=parts.index,
                    media=parts.media,
                    submit=parts.commits.submit,
                    reserve_zones_count=told.reserve_zones_count,
                ),
                pool=buffers.BufferPool(POOL_BYTES),
                run_blocking=parts.codec_threads.run,
                pace=pace,
                limits=limits,
                now_seconds=time.monotonic,
                rng=random.Random(),
            ),
            suspicion=drive_suspicion.DriveSuspicion(limits),
            shape=geometry.StripeGeometry(told.data_shards, told.parity_shards),
            journal_replicas_count=told.journal_replica_count,
            window_seconds=told.suspect_window_seconds,
            publisher=parts.publisher,
            on_verdicts=shown.verdicts,
            on_window=shown.window,
            known=known[1] if known else (),
            run_blocking=parts.codec_threads.run,
            now_seconds=time.monotonic,
            rng=random.Random(),
        )
    ]


class _Shown:
    """What other processes and people are told."""

    def __init__(
        self,
        parts: node.Node,
        *,
        report: Report,
        measured: metrics.NodeMetrics,
        board: verdict_board.VerdictBoard,
    ) -> None:
        self._parts = parts
        self._report = report
        self._measured = measured
        self._board = board

    def verdicts(self, verdicts: Sequence[drive_verdicts.Verdict]) -> None:
        self._board.write(verdicts)
        standings = {each.device_id: each.standing for each in verdicts}
        for device_id in self._parts.devices:
            standing = standings.get(device_id, drive_verdicts.Standing.TRUSTED)
            self._measured.device_suspected.labels(device_id).set(standing)
        self._report(
            {
                "mistrusted": {
                    self._label(each): f"{each.standing.name.lower()}: {each.text}"
                    for each in verdicts
                }
            }
        )

    def window(self, window: drive_watch.Window) -> None:
        for device_id, figures in window.items():
            for command in drive_figures.Command:
                slots = [drive_figures.slot(command, size) for size in drive_figures.Size]
                counts = [figures.commands_count(slot) for slot in slots]
                if not any(counts):
                    continue  # The last window in which there were any goes on showing.
                spent = sum(
                    count * figures.mean_seconds(slot)
                    for count, slot in zip(counts, slots, strict=True)
                )
                self._measured.device_seconds.labels(device_id, command.name.lower()).set(
                    spent / sum(counts)
                )

    def _label(self, verdict: drive_verdicts.Verdict) -> str:
        device = self._parts.devices.get(verdict.device_id)
        return verdict.device_id if device is None else device.identity.label
