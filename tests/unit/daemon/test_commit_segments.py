"""Opening and leaving log segments: what fails half-way leaves the writer as it was."""

from __future__ import annotations

import pytest

from couchestor_daemon import buffers
from couchestor_daemon.adapters import inline_media, memory_device, memory_index
from couchestor_daemon.formats import media_records
from couchestor_daemon.ports import device as device_port
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import commit_log
from couchestor_domain import errors, events, ids, units

ZONE_BYTES = 64 * units.KIB


class Rig:
    """A log over three devices in memory; what it published and which devices it gave up."""

    def __init__(self, devices_count: int = 3) -> None:
        self.index = memory_index.MemoryIndex()
        self.events: list[events.DomainEvent] = []
        self.failed: list[ids.DeviceId] = []
        devices = {}
        for number in range(devices_count):
            identity = device_port.DeviceIdentity(
                node_id=ids.NodeId("a" * 32),
                device_id=ids.DeviceId(f"{number:032x}"),
                label=f"d{number}",
                failure_domain=f"d{number}",
                zone_count=8,
                zone_capacity_bytes=ZONE_BYTES,
                joined_epoch=1,
            )
            devices[identity.device_id] = memory_device.MemoryDevice(identity)
        self.pool = buffers.BufferPool(256 * units.KIB)
        self.media = inline_media.InlineMedia(
            devices, lambda device_id, error: self.failed.append(device_id)
        )
        self.log = commit_log.CommitLog(
            writer="w",
            index=self.index,
            media=self.media,
            pool=self.pool,
            replicas_count=3,
            publisher=self,
        )

    def publish(self, event: events.DomainEvent) -> None:
        self.events.append(event)

    def put(self, size_bytes: int) -> commit_log.Operation:
        def apply(txn: index_port.IndexWriter, place: commit_log.Placement) -> int:
            txn.put(b"o", b"%d" % place.segment_id)
            return place.segment_id

        operation = commit_log.Operation(apply=apply, payload=bytes(size_bytes))
        self.log.commit([operation])
        return operation


@pytest.mark.parametrize("written_before", [False, True], ids=["first segment", "next segment"])
def test_a_commit_refused_while_a_segment_is_opened_costs_no_device(written_before: bool) -> None:
    rig = Rig()
    if written_before:
        assert rig.put(40 * units.KIB).error is None
    with rig.pool.acquire(256 * units.KIB):
        refused = rig.put(40 * units.KIB)
    assert isinstance(refused.error, errors.OverloadedError)
    again = rig.put(40 * units.KIB)
    assert again.error is None
    assert rig.failed == []


def test_an_operation_that_fails_after_writing_is_left_out_also_with_a_new_segment() -> None:
    rig = Rig()

    def fail_late(txn: index_port.IndexWriter, _: commit_log.Placement) -> None:
        txn.put(b"half", b"written")
        raise errors.IndexFullError("no room in the index")

    def apply(txn: index_port.IndexWriter, _: commit_log.Placement) -> None:
        txn.put(b"whole", b"written")

    bad, good = commit_log.Operation(apply=fail_late), commit_log.Operation(apply=apply)
    rig.log.commit([bad, good])
    assert isinstance(bad.error, errors.IndexFullError)
    assert good.error is None
    assert rig.failed == []


def test_an_index_that_is_full_fails_the_operations_it_has_no_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Rig()
    put = memory_index._Writer.put

    def refuse_long(txn: memory_index._Writer, key: bytes, value: bytes) -> None:
        if len(value) > 1024:
            raise errors.IndexFullError("no room in the index")
        put(txn, key, value)

    monkeypatch.setattr(memory_index._Writer, "put", refuse_long)

    def putting(key: bytes, size_bytes: int) -> commit_log.Operation:
        return commit_log.Operation(apply=lambda txn, _: txn.put(key, bytes(size_bytes)))

    small, large, last = putting(b"a", 1), putting(b"b", 2000), putting(b"c", 1)
    rig.log.commit([small, large, last])
    assert isinstance(large.error, errors.IndexFullError)
    assert small.error is None
    assert last.error is None
    with rig.index.read() as reader:
        assert [reader.get(key) for key in (b"a", b"b", b"c")] == [bytes(1), None, bytes(1)]


def test_the_end_of_a_segment_is_told_with_what_it_holds() -> None:
    rig = Rig()
    first, second = rig.put(40 * units.KIB), rig.put(40 * units.KIB)
    assert first.result != second.result
    closed = [event for event in rig.events if isinstance(event, events.ZoneClosed)]
    assert {(event.owner_id, event.written_bytes) for event in closed} == {
        (first.result, 4 * units.KIB + 44 * units.KIB)
    }
    assert len(closed) == 3


@pytest.mark.parametrize("is_back", [False, True], ids=["retiring", "away and back"])
def test_the_log_goes_on_in_no_segment_on_a_device_that_changed(is_back: bool) -> None:
    rig = Rig(devices_count=4)
    first = rig.put(units.KIB).result
    with rig.index.read() as reader:
        value = reader.get(media_records.segment_key(int(str(first))))
    assert value is not None
    record = media_records.unpack(media_records.SegmentRecord, value)
    changed = ids.DeviceId(record.members[0][0])
    device = rig.media.device(changed)
    rig.media.hold(changed)
    if is_back:
        rig.media.remove(changed)
        rig.log.commit([commit_log.Operation(apply=lambda txn, _: None)])
        rig.media.admit(device)
        rig.media.employ(changed)
    assert rig.put(units.KIB).result != first
    assert not rig.failed
    with rig.index.read() as reader:
        value = reader.get(media_records.segment_key(record.segment_id))
    assert value is not None
    sealed = media_records.unpack(media_records.SegmentRecord, value)
    assert sealed.state == media_records.ZoneSetState.SEALED
