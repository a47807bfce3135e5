"""What a check of a stopped node says of its log."""

from __future__ import annotations

import log_node
import pytest

from couchestor_daemon.services import log_check, log_scan
from couchestor_domain import ids


@pytest.fixture
def node() -> log_node.LogNode:
    made = log_node.LogNode()
    made.load(12)
    return made


def batches(node: log_node.LogNode) -> list[log_scan.FoundBatch]:
    headers = log_scan.find_segments(node.present).values()
    found = [item for header in headers for item in log_scan.scan_segment(header, node.present)]
    return sorted(found, key=lambda item: item.sequence)


def rot(node: log_node.LogNode, item: log_scan.FoundBatch, zone: ids.ZoneAddress) -> None:
    node.world.devices[zone.device_id].corrupt(zone.zone_index, item.offset_bytes, 10)


def test_nothing_is_said_of_a_whole_log(node: log_node.LogNode) -> None:
    assert log_check.findings(node.present) == []


def test_nothing_is_said_of_what_a_failed_device_left_unanswered(node: log_node.LogNode) -> None:
    members = batches(node)[-1].segment.members
    node.world.devices[members[0].device_id].fail_next_write()
    node.load(4, tag=b"more")
    assert not all(item.fully_replicated for item in batches(node)), "nothing was left behind"
    assert log_check.findings(node.present) == []
    node.lose_index(power_loss=True)
    node.check_objects()


def test_each_device_that_lacks_batches_is_named_once(node: log_node.LogNode) -> None:
    last = batches(node)[-1]
    zone = last.segment.members[1]
    rot(node, last, zone)
    (said,) = log_check.findings(node.present)
    assert said == (
        f"1 batches of the log do not verify on device {zone.device_id}, the last of them batch "
        f"{last.sequence}: a recovery takes them from the other replicas"
    )
    node.away = {zone.device_id}
    (said,) = log_check.findings(node.present)
    assert f"device {zone.device_id}, which is not there" in said
    assert not said.startswith("1 batches")


def test_what_a_checkpoint_holds_is_needed_by_no_recovery(node: log_node.LogNode) -> None:
    last = batches(node)[-1]
    rot(node, last, last.segment.members[1])
    assert node.checkpoints.take() is not None
    assert log_check.findings(node.present) == []


def test_of_a_log_with_a_gap_everything_is_told(node: log_node.LogNode) -> None:
    (*_, gap, _) = batches(node)
    for zone in gap.segment.members:
        rot(node, gap, zone)
    weak = batches(node)[0]
    rot(node, weak, weak.segment.members[0])
    said = log_check.findings(node.present)
    assert "has a gap after sequence" in said[0]
    assert f"the last of them batch {weak.sequence}" in said[1]
