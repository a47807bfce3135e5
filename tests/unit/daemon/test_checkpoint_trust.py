"""When a checkpoint may stand for the log before it, and how long an older one is kept."""

from __future__ import annotations

import log_node
import msgspec
import pytest

from couchestor_daemon.formats import media_records
from couchestor_daemon.services import checkpoint_writer, replay
from couchestor_domain import errors, ids


@pytest.fixture
def node() -> log_node.LogNode:
    found = log_node.LogNode()
    found.load(90)
    return found


def taken(node: log_node.LogNode) -> media_records.CheckpointRecord:
    record = node.checkpoints.take()
    assert record is not None
    return record


def listed(node: log_node.LogNode) -> list[int]:
    with node.index.read() as reader:
        return [
            media_records.unpack(media_records.CheckpointRecord, value).checkpoint_id
            for _, value in reader.scan(*media_records.table_range(media_records.CHECKPOINTS))
        ]


def corrupt(node: log_node.LogNode, record: media_records.CheckpointRecord, copy: int) -> None:
    device_id, zone_index = record.parts[0][copy]
    node.world.devices[ids.DeviceId(device_id)].corrupt(ids.ZoneIndex(zone_index), 5000, 1)


def trim(node: log_node.LogNode, record: media_records.CheckpointRecord) -> int:
    """Empty the segments that the checkpoint covers, as the release does; how many."""
    open_then = {segment_id for segment_id, _ in record.open_segments}
    trimmed = 0
    with node.index.read() as reader:
        segments = [
            media_records.unpack(media_records.SegmentRecord, value)
            for _, value in reader.scan(*media_records.table_range(media_records.SEGMENTS))
        ]
    for segment in segments:
        if segment.segment_id <= record.sequence and segment.segment_id not in open_then:
            trimmed += 1
            for zone in media_records.zone_addresses(segment.members):
                node.world.devices[zone.device_id].reset(zone.zone_index)
    return trimmed


def test_none_is_trusted_before_there_is_one(node: log_node.LogNode) -> None:
    assert node.checkpoints.trusted() is None
    assert node.checkpoints.is_newest_trusted()
    assert not node.checkpoints.verify_newest()


def test_one_is_trusted_once_this_process_has_read_back_every_copy(
    node: log_node.LogNode,
) -> None:
    record = taken(node)
    assert node.checkpoints.trusted() == record
    node.start()
    assert node.checkpoints.trusted() is None
    assert not node.checkpoints.is_newest_trusted()
    assert node.checkpoints.verify_newest()
    assert node.checkpoints.trusted() == record


@pytest.mark.parametrize("copy", [0, 1, 2])
def test_one_damaged_copy_is_enough_not_to_trust(node: log_node.LogNode, copy: int) -> None:
    corrupt(node, taken(node), copy)
    node.start()
    assert not node.checkpoints.verify_newest()
    assert node.checkpoints.trusted() is None


def test_a_copy_of_what_was_not_recorded_is_not_trusted(node: log_node.LogNode) -> None:
    record = taken(node)
    with node.index.write() as txn:
        changed = msgspec.structs.replace(record, open_segments=record.open_segments[1:])
        txn.put(media_records.checkpoint_key(record.checkpoint_id), media_records.pack(changed))
        txn.commit()
    node.start()
    assert not node.checkpoints.verify_newest()


def test_none_is_trusted_while_a_device_of_it_is_out_of_service(node: log_node.LogNode) -> None:
    record = taken(node)
    device_id = ids.DeviceId(record.parts[0][2][0])
    node.media.report_failure(device_id, errors.DeviceGoneError("pulled out"))
    assert node.checkpoints.trusted() is None


def test_a_trusted_one_is_kept_until_the_next_is_trusted_too(node: log_node.LogNode) -> None:
    old = taken(node)
    node.load(4, tag=b"more")
    for device in node.world.devices.values():
        device.fail_next_read(10_000)
    new = taken(node)
    assert node.checkpoints.trusted() == old, "no copy of the new one could be read"
    assert listed(node) == [old.checkpoint_id, new.checkpoint_id]
    for device in node.world.devices.values():
        device.fail_next_read(0)
    node.checkpoints.release_leftovers()
    assert node.checkpoints.trusted() == new
    assert listed(node) == [new.checkpoint_id]
    node.check_zones()


def test_an_older_one_is_kept_while_no_copy_of_the_newest_can_be_read(
    node: log_node.LogNode,
) -> None:
    old = taken(node)
    node.load(4, tag=b"more")
    for device in node.world.devices.values():
        device.fail_next_read(10_000)
    new = taken(node)
    node.start()  # A process that has read back neither.
    node.checkpoints.release_leftovers()
    assert listed(node) == [old.checkpoint_id, new.checkpoint_id]
    for device in node.world.devices.values():
        device.fail_next_read(0)
    corrupt(node, new, 0)
    node.checkpoints.release_leftovers()
    assert listed(node) == [new.checkpoint_id], "two whole copies are enough to start from"
    assert node.checkpoints.trusted() is None


def test_a_stop_ends_the_reading(node: log_node.LogNode) -> None:
    taken(node)
    node.start()
    node.stop = True
    with pytest.raises(checkpoint_writer.StoppedError):
        node.checkpoints.verify_newest()


def test_a_trimmed_log_is_rebuilt_from_the_checkpoint(node: log_node.LogNode) -> None:
    record = taken(node)
    assert trim(node, record) > 2
    node.load(4, tag=b"after")
    expected = node.content()
    replay.check_log(node.present)
    report = node.lose_index(power_loss=True)
    assert report.checkpoint_sequence == record.sequence
    assert node.content() == expected


def test_a_trimmed_log_without_its_checkpoint_is_refused_and_not_taken_for_empty(
    node: log_node.LogNode,
) -> None:
    record = taken(node)
    trim(node, record)
    for part in record.parts:
        for zone in media_records.zone_addresses(part):
            node.world.devices[zone.device_id].reset(zone.zone_index)
    with pytest.raises(errors.LogDamagedError):
        replay.check_log(node.present)
    with pytest.raises(errors.LogDamagedError):
        node.lose_index(power_loss=True)
