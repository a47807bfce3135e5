"""When a checkpoint is due, and what happens when it cannot be taken."""

from __future__ import annotations

import asyncio
import logging

import log_node
import prometheus_client
import pytest

from couchestor_daemon.app import checkpointing, metrics
from couchestor_daemon.formats import media_records
from couchestor_domain import errors, units


def record(image_bytes: int) -> media_records.CheckpointRecord:
    return media_records.CheckpointRecord(1, 2, 3, (), image_bytes=image_bytes)


@pytest.mark.parametrize(
    ("since_bytes", "image_bytes", "log_percent", "due"),
    [
        (100, None, 100, False),
        (101, None, 100, True),
        (150, 150, 100, False),
        (151, 150, 100, True),
        (151, 150, 200, False),
        (301, 150, 200, True),
        (101, 150, 0, True),
    ],
)
def test_due_is_what_the_log_outgrew(
    since_bytes: int, image_bytes: int | None, log_percent: int, due: bool
) -> None:
    newest = None if image_bytes is None else record(image_bytes)
    assert checkpointing.is_due(since_bytes, newest, log_bytes=100, log_percent=log_percent) is due


class Rig:
    """A schedule over a node on simulated devices."""

    def __init__(self, node: log_node.LogNode, *, log_bytes: int = 128 * units.KIB) -> None:
        self.node = node
        self.reports: list[dict[str, object]] = []
        self.registry = prometheus_client.CollectorRegistry()
        self.schedule = checkpointing.CheckpointSchedule(
            node.checkpoints,
            log_bytes=log_bytes,
            log_percent=100,
            report=self.reports.append,
            measured=metrics.NodeMetrics(self.registry),
        )

    def gauge(self, name: str) -> float | None:
        return self.registry.get_sample_value(f"couchestor_{name}")


def test_a_step_takes_one_when_it_is_due_and_not_again_before_the_log_has_grown() -> None:
    rig = Rig(log_node.LogNode())
    rig.node.load(10)
    assert rig.schedule.step() == 0
    assert rig.node.checkpoints.newest() is None
    rig.node.load(40, tag=b"more")
    assert rig.schedule.step() == 0
    newest = rig.node.checkpoints.newest()
    assert newest is not None
    assert rig.gauge("checkpoint_sequence") == newest.sequence
    assert rig.gauge("checkpoint_bytes") == newest.image_bytes
    (report,) = rig.reports
    assert report["checkpoint"] == {
        "sequence": newest.sequence,
        "bytes": newest.image_bytes,
        "entries": newest.entries_count,
        "taken_at": "1970-01-01T00:00:00+00:00",
    }
    commands = rig.node.world.commands_count
    for _ in range(3):
        rig.schedule.step()
        assert rig.node.world.commands_count == commands, "nothing is written by looking"
    rig.node.load(40, tag=b"again")
    rig.schedule.step()
    assert rig.node.checkpoints.newest() != newest


def test_a_full_store_is_said_once_and_asked_less_and_less(
    caplog: pytest.LogCaptureFixture,
) -> None:
    node = log_node.LogNode(zones_count=16)
    node.start(reserve_zones_count=4)
    fill(node)
    rig = Rig(node)
    with caplog.at_level(logging.WARNING):
        waits = [rig.schedule.step() for _ in range(9)]
    assert waits == [30, 60, 120, 240, 480, 960, 1920, 3600, 3600]
    assert caplog.text.count("no checkpoint until there is room") == 1
    node.check_zones()


def fill(node: log_node.LogNode) -> None:
    for number in range(1000):
        try:
            node.put(b"fill-%d" % number, bytes(20 * units.KIB))
        except errors.StoreFullError:
            return
    raise AssertionError("the store does not fill")


async def test_a_stop_ends_the_schedule_at_once() -> None:
    rig = Rig(log_node.LogNode())
    stop = asyncio.Event()
    running = asyncio.get_running_loop().create_task(rig.schedule.run(stop))
    await asyncio.sleep(0)
    stop.set()
    async with asyncio.timeout(2):
        await running
    await asyncio.to_thread(rig.schedule.close)
