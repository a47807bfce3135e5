"""The pace of the background in the maintenance process, over counters that workers write."""

from __future__ import annotations

import asyncio
import pathlib

import prometheus_client
import pytest

from couchestor_daemon.app import metrics, pace_keeping, settings
from couchestor_daemon.services import pacing
from couchestor_domain import units


class RatePacer(pacing.Pacer):
    """Remembers what it was set to."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def set_rate(self, bytes_per_second: float) -> None:
        self.rates.append(bytes_per_second)


async def run_windows(keeper: pace_keeping.PaceKeeper, pacer: RatePacer, count: int) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(keeper.run(stop))
    wanted = len(pacer.rates) + count
    async with asyncio.timeout(10):
        while len(pacer.rates) < wanted:  # noqa: ASYNC110 - nothing tells of a set rate
            await asyncio.sleep(0.005)
    stop.set()
    await running


@pytest.mark.may_block
async def test_requests_slow_the_background_down_and_quiet_lets_it_go(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(metrics.DIRECTORY_VARIABLE, str(tmp_path))
    monkeypatch.setattr(pace_keeping, "WINDOW_SECONDS", 0.01)
    registry = prometheus_client.CollectorRegistry()
    pacer = RatePacer()
    keeper = pace_keeping.PaceKeeper(
        settings.Settings(), pacer, measured=metrics.NodeMetrics(registry)
    )
    floor = float(settings.Settings().background_floor_bytes_per_second)
    assert pacer.rates == [floor]
    await run_windows(keeper, pacer, 12)
    assert pacer.rates[-1] == pace_keeping.UNBOUNDED_BYTES_PER_SECOND
    latencies = pace_keeping.RequestLatencies(0)
    for _ in range(100):
        latencies.observe(1e-3, moved_bytes=4 * units.KIB)
        latencies.observe(9.0, moved_bytes=100 * units.MIB)
    board_seen = len(pacer.rates)
    stop = asyncio.Event()
    running = asyncio.create_task(keeper.run(stop))
    for _ in range(50):
        await asyncio.sleep(0.005)
        for _ in range(100):
            latencies.observe(1e-3, moved_bytes=4 * units.KIB)
    stop.set()
    await running
    assert floor in pacer.rates[board_seen:]
    assert keeper._controller.baseline_seconds == pytest.approx(1e-3, rel=0.2)
    assert registry.get_sample_value("couchestor_background_bytes_per_second") == pacer.rates[-1]
    latencies.close()


async def test_outside_a_node_nothing_is_counted_and_the_pace_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(metrics.DIRECTORY_VARIABLE, raising=False)
    pace_keeping.RequestLatencies(0).observe(1.0, moved_bytes=1)
    pacer = RatePacer()
    told = settings.Settings(background_bytes_per_second=units.MIB)
    keeper = pace_keeping.PaceKeeper(
        told, pacer, measured=metrics.NodeMetrics(prometheus_client.CollectorRegistry())
    )
    await keeper.run(asyncio.Event())
    assert pacer.rates == [units.MIB]
