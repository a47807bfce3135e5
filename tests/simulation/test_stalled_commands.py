"""A reset that hangs and empties its zone late: whom it may meet, with and without the board."""

from __future__ import annotations

import asyncio
import random

import pytest
from tests.simulation import (
    fault_plan,
    node_events,
    shuffled_media,
    simulated_node,
    stalled_commands,
    virtual_loop,
)

from couchestor_daemon import buffers
from couchestor_daemon.adapters import memory_index
from couchestor_daemon.formats import media_records
from couchestor_daemon.services import commit_log
from couchestor_domain import ids, units

SEEDS_COUNT = 10

pytestmark = pytest.mark.may_block


def emptied_replicas(seed: int) -> list[ids.ZoneAddress]:
    """One process opens a segment and a reset of it hangs; another opens one, then the reset ends.

    Returns:
        Members of segments on which an answered batch is missing in the end.
    """
    node = simulated_node.SimulatedNode(
        f"late reset {seed}", fault_plan.choose_shape(random.Random(seed))
    )
    index = memory_index.MemoryIndex()

    def put(log: commit_log.CommitLog) -> None:
        operation = commit_log.Operation(apply=lambda txn, _: txn.put(b"key", b"value"))
        log.commit([operation])
        assert operation.error is None, operation.error

    async def run() -> None:
        first, second = (
            commit_log.CommitLog(
                writer=writer,
                index=index,
                media=shuffled_media.SimulatedMedia(
                    node.present_devices(), node.stalls, node.in_any_order
                ),
                pool=buffers.BufferPool(units.MIB),
                replicas_count=node.shape.replicas_count,
                publisher=node_events.Silence(),
            )
            for writer in ("first", "second")
        )
        node.stalls.arm(next(iter(node.world.devices)), 1.0)
        put(first)
        put(second)
        await asyncio.sleep(1.0)

    loop = virtual_loop.VirtualLoop(f"late reset {seed}")  # type: ignore[abstract]
    loop.run(run(), interrupted=lambda: False)
    assert not loop.problems
    start, stop = media_records.table_range(media_records.SEGMENTS)
    with index.read() as reader:
        members = [
            zone
            for _, value in reader.scan(start, stop)
            for zone in media_records.zone_addresses(
                media_records.unpack(media_records.SegmentRecord, value).members
            )
        ]
    assert len(members) == 2 * node.shape.replicas_count
    return [
        zone
        for zone in members
        if zone.zone_index
        not in {report.zone_index for report in node.world.devices[zone.device_id].report()}
    ]


def test_a_late_reset_meets_nobody() -> None:
    assert [emptied_replicas(seed) for seed in range(SEEDS_COUNT)] == [[]] * SEEDS_COUNT


def test_canary_without_the_board_a_late_reset_empties_the_zone_of_another_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stalled_commands.Board, "add", lambda *_, stalled=False: None)
    assert any(emptied_replicas(seed) for seed in range(SEEDS_COUNT))
