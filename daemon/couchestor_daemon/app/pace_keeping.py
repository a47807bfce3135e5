"""The pace of background work, set twice a second by what requests take."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
from typing import Final

from couchestor_daemon.adapters import latency_board
from couchestor_daemon.app import metrics, settings
from couchestor_daemon.services import pace_control, pacing
from couchestor_domain import units

WINDOW_SECONDS: Final = 0.5
LATENCY_PERCENT: Final = 99.0
TOLERATED_RATIO: Final = 1.5
"""Requests may take this much longer beside background work; twice is where people notice."""
UNBOUNDED_BYTES_PER_SECOND: Final = 64.0 * units.GIB
COUNTED_BYTES_MAX: Final = units.MIB


def folder() -> pathlib.Path | None:
    """Where the processes of this node count what requests take; None outside a node."""
    return metrics.shared_folder()


class RequestLatencies:
    """What the requests of one worker take, counted where the maintenance process looks."""

    def __init__(self, slot: int) -> None:
        place = folder()
        self._recorder = latency_board.LatencyRecorder(place, slot) if place else None

    def observe(self, seconds: float, *, moved_bytes: int) -> None:
        """Count a request; not those that move much, which are as slow as their clients."""
        if self._recorder is not None and moved_bytes <= COUNTED_BYTES_MAX:
            self._recorder.observe(seconds)

    def close(self) -> None:
        """Release the counters."""
        if self._recorder is not None:
            self._recorder.close()


class PaceKeeper:
    """Sets the rate of a pacer for as long as it runs."""

    def __init__(
        self, told: settings.Settings, pacer: pacing.Pacer, *, measured: metrics.NodeMetrics
    ) -> None:
        ceiling = float(told.background_bytes_per_second) or UNBOUNDED_BYTES_PER_SECOND
        self._pacer = pacer
        self._measured = measured
        self._controller = pace_control.PaceController(
            floor_bytes_per_second=min(ceiling, float(told.background_floor_bytes_per_second)),
            ceiling_bytes_per_second=ceiling,
            tolerated_ratio=TOLERATED_RATIO,
        )
        self._set(self._controller.bytes_per_second)

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop``. Without a folder of counters the pace stays at the ceiling."""
        place = folder()
        if place is None:
            return
        board = latency_board.LatencyBoard(place)
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), WINDOW_SECONDS)
            now = loop.time()
            seen = board.take()
            window = pace_control.Window(
                now - began, seen.requests_count, seen.percentile_seconds(LATENCY_PERCENT)
            )
            began = now
            self._set(self._controller.observe(window))

    def _set(self, bytes_per_second: float) -> None:
        self._pacer.set_rate(bytes_per_second)
        self._measured.background_pace.set(bytes_per_second)
