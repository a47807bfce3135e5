"""Rebuilds that are cut short, repeated with other devices away, and met again by all of them."""

from __future__ import annotations

import itertools

import log_node
import pytest

from couchestor_daemon.adapters import simulated_device
from couchestor_daemon.services import commit_log, log_scan


def node_with_an_unanswered_batch(replicas_count: int) -> log_node.LogNode:
    """The last batch is on so many replicas; nobody was answered for it."""
    node = log_node.LogNode(zones_count=16)
    node.load(4)
    node.world.crash_at = node.world.commands_count + replicas_count + 1
    with pytest.raises(simulated_device.SimulatedCrash):
        node.put(b"in flight", b"value")
    return node


@pytest.mark.parametrize("replicas_count", [1, 2])
def test_a_later_rebuild_outranks_one_that_was_cut_short(replicas_count: int) -> None:
    node = node_with_an_unanswered_batch(replicas_count)
    devices = sorted(node.world.devices)
    cut_short = 0
    for crash_after, first, second in itertools.product(
        range(1, 9),
        [(), *itertools.combinations(devices, 1)],
        [*itertools.combinations(devices, 2)],
    ):
        node = node_with_an_unanswered_batch(replicas_count)
        try:
            node.away = set(first)
            try:
                node.lose_index(power_loss=False, crash_after=crash_after)
            except simulated_device.SimulatedCrash:
                cut_short += 1
            else:
                continue
            node.world.restart(power_loss=False)
            left_behind = highest_sequence(node)
            node.away = set(second)
            node.lose_index(power_loss=False)
            node.logs[0].fence()
            with node.index.read() as reader:
                assert commit_log.applied_sequence(reader) > left_behind
            node.check_objects()
            node.load(3, tag=b"later")
            node.away = set()
            node.lose_index(power_loss=False)
            node.check_objects()
        except BaseException as exc:
            exc.add_note(f"crash after {crash_after} commands; away first {first}, then {second}")
            raise
    assert cut_short > 100


def highest_sequence(node: log_node.LogNode) -> int:
    """On any device, away or not."""
    devices = node.world.devices
    return max(
        max([header.owner_id, *(item.sequence for item in log_scan.scan_segment(header, devices))])
        for header in log_scan.find_segments(devices).values()
    )
