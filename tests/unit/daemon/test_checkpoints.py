"""Checkpoints: taken, damaged, lost, replaced; what a rebuild starts from and what it skips."""

from __future__ import annotations

import logging

import log_node
import pytest

from couchestor_daemon.adapters import simulated_device
from couchestor_daemon.formats import checkpoint, media_records, zone_header
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import (
    checkpoint_check,
    checkpoint_image,
    commit_log,
    log_growth,
    log_scan,
    replay,
)
from couchestor_domain import errors, ids, units


@pytest.fixture
def node() -> log_node.LogNode:
    found = log_node.LogNode()
    found.load(90)
    return found


def taken(node: log_node.LogNode) -> media_records.CheckpointRecord:
    record = node.checkpoints.take()
    assert record is not None
    return record


def zones_of(record: media_records.CheckpointRecord) -> list[ids.ZoneAddress]:
    return [zone for part in record.parts for zone in media_records.zone_addresses(part)]


def test_a_rebuild_loads_the_image_and_replays_only_what_follows(node: log_node.LogNode) -> None:
    record = taken(node)
    assert len(record.parts) > 1, "several zones per copy"
    assert all(
        [device for device, _ in part] == [device for device, _ in record.parts[0]]
        for part in record.parts
    ), "each copy stays on one device"
    node.load(4, tag=b"after")
    expected = node.content()
    report = node.lose_index(power_loss=True)
    assert report.checkpoint_sequence == record.sequence
    # Two further zones were taken while it was written, then it was completed; four objects.
    assert report.batches_count == len(record.parts) - 1 + 1 + 4
    assert node.content() == expected
    node.check_objects()


def test_the_older_one_is_released_when_the_new_one_is_complete(node: log_node.LogNode) -> None:
    old = taken(node)
    node.load(4, tag=b"more")
    new = taken(node)
    assert node.checkpoints.newest() == new
    node.check_zones()
    for zone in zones_of(old):
        written = {found.zone_index for found in node.present[zone.device_id].report()}
        assert zone.zone_index not in written or zone in zones_of(new)
    images = checkpoint_image.find_images(node.present)
    assert [image.checkpoint_id for image in images] == [new.checkpoint_id]


def test_commits_go_on_while_an_image_is_written(node: log_node.LogNode) -> None:
    numbers = iter(range(100))
    node.before_submit = lambda: node.put(b"meanwhile-%d" % next(numbers), b"value")
    record = taken(node)
    assert len([key for key in node.objects if key.startswith(b"meanwhile")]) > 2
    expected = node.content()
    assert node.lose_index(power_loss=True).checkpoint_sequence == record.sequence
    assert node.content() == expected


def test_any_m_devices_may_be_lost(node: log_node.LogNode) -> None:
    record = taken(node)
    node.load(3, tag=b"after")
    expected = node.content()
    node.away = {zone.device_id for zone in zones_of(record)[: log_node.COPIES_COUNT - 1]}
    assert len(node.away) == log_node.COPIES_COUNT - 1
    assert node.lose_index(power_loss=True).checkpoint_sequence == record.sequence
    found = node.content()
    # The last batch is on fewer replicas than it should be, so it was committed once more.
    changed = {key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key)}
    assert {key[:1] for key in changed} <= {b"s", b"z", b"p", b"l"}
    node.check_objects()


def test_blocks_damaged_in_different_copies_are_read_from_the_others(
    node: log_node.LogNode,
) -> None:
    record = taken(node)
    expected = node.content()
    first, second, third = media_records.zone_addresses(record.parts[0])
    devices = node.world.devices
    devices[first.device_id].corrupt(first.zone_index, 0, units.BLOCK_BYTES)
    devices[second.device_id].corrupt(second.zone_index, 5000, 10)
    last = media_records.zone_addresses(record.parts[-1])[2]
    devices[third.device_id].corrupt(last.zone_index, 4096, 10)
    assert node.lose_index(power_loss=True).checkpoint_sequence == record.sequence
    assert node.content() == expected


@pytest.mark.parametrize("has_older", [False, True])
def test_an_image_that_verifies_nowhere_is_passed_over(
    node: log_node.LogNode, caplog: pytest.LogCaptureFixture, has_older: bool
) -> None:
    old_sequence = taken(node).sequence if has_older else 0
    node.load(4, tag=b"more")
    if has_older:
        # As when the process died before it released the older one.
        node.checkpoints.release_leftovers = lambda: None  # type: ignore[method-assign]
    record = taken(node)
    expected = node.content()
    for zone in media_records.zone_addresses(record.parts[-1]):
        node.world.devices[zone.device_id].corrupt(zone.zone_index, 4096, 100)
    with caplog.at_level(logging.WARNING):
        report = node.lose_index(power_loss=True)
    assert report.checkpoint_sequence == old_sequence
    assert f"checkpoint {record.checkpoint_id} of sequence" in caplog.text
    assert ("from its beginning" in caplog.text) == (not has_older)
    assert node.content() == expected
    node.checkpoints.release_leftovers()
    node.check_zones()


def test_replay_does_not_read_what_was_sealed_before_the_checkpoint(
    node: log_node.LogNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = taken(node)
    node.load(3, tag=b"after")
    expected = node.content()
    sealed: set[tuple[str, int]] = set()
    with node.index.read() as reader:
        for _, value in reader.scan(*media_records.table_range(media_records.SEGMENTS)):
            segment = media_records.unpack(media_records.SegmentRecord, value)
            if segment.state == media_records.ZoneSetState.SEALED:
                sealed |= set(segment.members)
    assert len(sealed) > 20
    honest = simulated_device.SimulatedDevice.read

    def read(
        device: simulated_device.SimulatedDevice,
        zone: ids.ZoneIndex,
        offset_bytes: int,
        buffer: memoryview,
        *,
        past_cache: bool = False,
    ) -> None:
        if (device.identity.device_id, zone) in sealed:
            raise errors.DeviceIoError("unreadable")
        honest(device, zone, offset_bytes, buffer, past_cache=past_cache)

    monkeypatch.setattr(simulated_device.SimulatedDevice, "read", read)
    report = node.lose_index(power_loss=True)
    assert report.checkpoint_sequence == record.sequence
    assert report.batches_count < 10
    assert node.content() == expected
    # The canary: without the image those segments are needed.
    for zone in zones_of(record):
        node.world.devices[zone.device_id].reset(zone.zone_index)
    with pytest.raises(errors.LogDamagedError):
        node.lose_index(power_loss=True)


def test_a_checkpoint_alone_counts_as_a_log(node: log_node.LogNode) -> None:
    record = taken(node)
    for header in log_scan.find_segments(node.present).values():
        for zone in header.members:
            node.world.devices[zone.device_id].reset(zone.zone_index)
    assert replay.log_present(node.present)
    assert node.lose_index(power_loss=False).checkpoint_sequence == record.sequence


def test_a_lost_tail_is_noticed_by_the_image_that_was_begun_after_it(
    node: log_node.LogNode,
) -> None:
    record = taken(node)
    for zone in media_records.zone_addresses(record.parts[-1]):
        node.world.devices[zone.device_id].corrupt(zone.zone_index, 4096, 100)
    # Everything the maintenance process committed: the chain just ends before it.
    for header in log_scan.find_segments(node.present).values():
        sequences = [item.sequence for item in log_scan.scan_segment(header, node.present)]
        if max(sequences) >= record.sequence:
            for zone in header.members:
                node.world.devices[zone.device_id].reset(zone.zone_index)
    with pytest.raises(errors.LogDamagedError, match=f"checkpoint was begun at {record.sequence}"):
        node.lose_index(power_loss=False)


def test_an_image_on_a_branch_the_log_has_left_is_refused(
    node: log_node.LogNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A rebuild that could not read it committed the image's last batch again, beside it."""

    def dies_before_it_completes() -> None:
        if checkpoint_image.find_images(node.present):
            raise simulated_device.SimulatedCrash

    node = log_node.LogNode(zone_bytes=64 * units.KIB)
    node.load(30)
    node.before_submit = dies_before_it_completes
    with pytest.raises(simulated_device.SimulatedCrash):
        node.checkpoints.take()
    (image,) = checkpoint_image.find_images(node.present)
    checkpoint_image.verify(image, node.present)
    segments = log_scan.find_segments(node.present)
    away = next(
        zone.device_id
        for header in segments.values()
        for item in log_scan.scan_segment(header, node.present)
        if item.sequence == image.sequence
        for zone in header.members
    )
    node.away = {away}
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint_image, "find_images", lambda devices: [])
        assert node.lose_index(power_loss=False).secured
    node.load(3, tag=b"on the new branch")
    expected = node.content()
    node.away = set()
    with caplog.at_level(logging.WARNING):
        assert node.lose_index(power_loss=False).checkpoint_sequence == 0
    assert f"sequence {image.sequence} is not part of its history" in caplog.text
    assert node.content() == expected
    node.check_objects()


def test_a_failing_device_ends_the_attempt_and_the_next_uses_others(
    node: log_node.LogNode,
) -> None:
    before = node.content()
    victim = ids.DeviceId("")

    def fail_one_copy() -> None:
        nonlocal victim
        images = checkpoint_image.find_images(node.present)
        if images and not victim:
            victim = images[0].device_ids[1]
            node.world.devices[victim].fail_next_flush()
            node.world.devices[victim].fail_next_write()

    node.before_submit = fail_one_copy
    with pytest.raises(errors.DeviceIoError):
        node.checkpoints.take()
    node.check_zones()
    assert node.checkpoints.newest() is None
    assert set(before) - set(node.content()) == set()
    record = taken(node)
    assert victim not in {device for device, _ in record.parts[0]}
    node.check_zones()


def test_what_deletes_need_is_left_alone_on_a_full_store() -> None:
    node = log_node.LogNode(zones_count=16)
    node.start(reserve_zones_count=4)
    node.load(20)
    number = 0
    while True:
        try:
            node.put(b"fill-%d" % number, bytes(20 * units.KIB))
        except errors.StoreFullError:
            break
        number += 1
    with pytest.raises(errors.StoreFullError):
        node.checkpoints.take()
    node.check_zones()
    with node.index.read() as reader:
        for device in node.world.devices:
            start, stop = media_records.device_zones_range(device)
            assert len(list(reader.scan(start, stop))) <= 16 - 4 + 1

    def delete(txn: index_port.IndexWriter, _: commit_log.Placement) -> None:
        assert txn.delete(b"ofill-0")

    operation = commit_log.Operation(apply=delete, uses_reserve=True)
    node.logs[0].commit([operation])
    assert operation.error is None


def test_a_stop_releases_what_was_written(node: log_node.LogNode) -> None:
    node.stop = True
    assert node.checkpoints.take() is None
    node.check_zones()
    assert checkpoint_image.find_images(node.present) == []
    node.stop = False
    assert node.checkpoints.take() is not None


def test_the_growth_of_the_log_is_counted_from_the_checkpoint(node: log_node.LogNode) -> None:
    whole = node.checkpoints.log_bytes_since_newest()
    assert whole == 90 * units.BLOCK_BYTES
    record = taken(node)
    begun = node.checkpoints.log_bytes_since_newest()
    assert begun <= (len(record.parts) + 2) * units.BLOCK_BYTES
    node.load(30, tag=b"more")
    assert node.checkpoints.log_bytes_since_newest() == begun + 30 * units.BLOCK_BYTES
    node.start()
    with node.index.read() as reader:
        again = log_growth.bytes_since(reader, node.media, node.checkpoints.newest())
    assert again == begun + 30 * units.BLOCK_BYTES, "a new process counts the same"


def test_the_node_id_of_the_index_is_not_in_the_image(node: log_node.LogNode) -> None:
    with node.index.write() as txn:
        txn.put(media_records.NODE_KEY, b"this index alone")
        txn.commit()
    taken(node)
    node.lose_index(power_loss=False)
    with node.index.read() as reader:
        assert reader.get(media_records.NODE_KEY) is None


def test_a_zone_that_begins_like_an_image_and_has_no_block_is_ignored(
    node: log_node.LogNode,
) -> None:
    device = next(iter(node.world.devices.values()))
    zone = ids.ZoneAddress(device.identity.device_id, ids.ZoneIndex(60))
    header = zone_header.ZoneHeader(zone_header.ZoneRole.CHECKPOINT, 0, 0, 0, 7, 8, (zone,))
    device.write(zone.zone_index, 0, memoryview(zone_header.pack(header)), durable=True)
    block = memoryview(bytearray(checkpoint.BLOCK_BYTES_MAX))
    other = checkpoint.BlockHeader(8, 9, 0, 0)
    total = checkpoint.pack_into(block, other, b"of another checkpoint", seed=8)
    device.write(zone.zone_index, 4096, block[:total], durable=True)
    assert checkpoint_image.find_images(node.present) == []
    expected = node.content()
    assert node.lose_index(power_loss=True).checkpoint_sequence == 0
    assert node.content() == expected


def test_a_check_names_each_copy_that_is_not_whole(node: log_node.LogNode) -> None:
    record = taken(node)
    assert checkpoint_check.findings(node.present, [record]) == []
    assert checkpoint_check.findings(node.present, []) == []
    damaged, away, _ = media_records.zone_addresses(record.parts[-1])
    node.world.devices[damaged.device_id].corrupt(damaged.zone_index, 5000, 1)
    node.away = {away.device_id}
    found = checkpoint_check.findings(node.present, [record])
    assert len(found) == 2
    assert f"on device {damaged.device_id} does not verify" in " ".join(found)
    assert f"on device {away.device_id} is on a missing device" in " ".join(found)
    for zone in zones_of(record):
        node.world.devices[zone.device_id].reset(zone.zone_index)
    node.away = set()
    (said,) = checkpoint_check.findings(node.present, [record])
    assert "is on no device" in said


def test_a_check_finds_nothing_wrong_with_a_copy_that_was_away_when_it_was_replaced(
    node: log_node.LogNode,
) -> None:
    old = taken(node)
    node.away = {zones_of(old)[0].device_id}
    node.start()
    node.load(10, tag=b"more")
    new = taken(node)
    node.away = set()
    images = {image.checkpoint_id for image in checkpoint_image.find_images(node.present)}
    assert images == {old.checkpoint_id, new.checkpoint_id}
    assert checkpoint_check.findings(node.present, [new]) == []
    # Without any record it may be all there is.
    assert [one for one in checkpoint_check.findings(node.present, []) if "copy" in one]


def test_a_check_finds_nothing_wrong_with_what_was_never_finished(
    node: log_node.LogNode,
) -> None:
    def dies_while_it_writes() -> None:
        if checkpoint_image.find_images(node.present):
            raise simulated_device.SimulatedCrash

    node.before_submit = dies_while_it_writes
    with pytest.raises(simulated_device.SimulatedCrash):
        node.checkpoints.take()
    assert len(checkpoint_image.find_images(node.present)) == 1
    with node.index.read() as reader:
        start, stop = media_records.table_range(media_records.CHECKPOINTS)
        records = [
            media_records.unpack(media_records.CheckpointRecord, value)
            for _, value in reader.scan(start, stop)
        ]
    assert len(records) == 1
    assert checkpoint_check.findings(node.present, records) == []
    assert checkpoint_check.findings(node.present, []) == []
