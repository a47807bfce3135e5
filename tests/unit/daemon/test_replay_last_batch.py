"""A last batch that is not on every replica is committed again, without harm to what it names."""

from __future__ import annotations

import pytest

from couchestor_daemon import buffers
from couchestor_daemon.adapters import inline_media, memory_device, memory_index
from couchestor_daemon.formats import media_records, zone_header
from couchestor_daemon.ports import device as device_port
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import commit_log, replay, zone_allocation
from couchestor_domain import errors, events, ids, units

GROUP_ID = 99


class Silence:
    def publish(self, event: events.DomainEvent) -> None:
        """Events are not what is tested here."""


class Tearing(memory_device.MemoryDevice):
    """Loses its writes from a moment on, as in a crash."""

    loses_writes = False

    def write(
        self, zone: ids.ZoneIndex, offset_bytes: int, data: memoryview, *, durable: bool
    ) -> None:
        if self.loses_writes:
            raise errors.DeviceGoneError("the power is gone")
        super().write(zone, offset_bytes, data, durable=durable)


@pytest.fixture
def devices() -> dict[ids.DeviceId, Tearing]:
    found = {}
    for number in range(4):
        identity = device_port.DeviceIdentity(
            node_id=ids.NodeId("a" * 32),
            device_id=ids.DeviceId(f"{number:032x}"),
            label=f"d{number}",
            failure_domain=f"d{number}",
            zone_count=8,
            zone_capacity_bytes=64 * units.KIB,
            joined_epoch=1,
        )
        found[identity.device_id] = Tearing(identity)
    return found


def make_log(
    devices: dict[ids.DeviceId, Tearing], index: memory_index.MemoryIndex, writer: str
) -> commit_log.CommitLog:
    return commit_log.CommitLog(
        writer=writer,
        index=index,
        media=inline_media.InlineMedia(devices, lambda device_id, error: None),
        pool=buffers.BufferPool(units.MIB),
        replicas_count=3,
        publisher=Silence(),
    )


def test_the_copy_takes_no_zone_that_the_batch_gives_away(
    devices: dict[ids.DeviceId, Tearing],
) -> None:
    index = memory_index.MemoryIndex()
    log = make_log(devices, index, "w")
    log.fence()
    last = next(reversed(devices))

    def open_group(txn: index_port.IndexWriter, place: commit_log.Placement) -> None:
        zone_allocation.allocate(
            txn,
            [device.identity for device in devices.values()],
            count=4,
            role=zone_header.ZoneRole.GROUP,
            owner_id=GROUP_ID,
        )
        devices[ids.DeviceId(f"{2:032x}")].loses_writes = True

    operation = commit_log.Operation(apply=open_group)
    # The crash: the batch reaches two of three replicas and is never answered.
    with pytest.raises(RuntimeError, match="dead"):
        _die_at_the_second_attempt(log, operation)
    for device in devices.values():
        device.loses_writes = False
    rebuilt = memory_index.MemoryIndex()
    report = replay.rebuild(rebuilt, devices, make_log(devices, rebuilt, "recovery"))
    assert report.secured
    owners: dict[bytes, int] = {}
    members: list[tuple[str, int]] = []
    with rebuilt.read() as reader:
        for _, value in reader.scan(*media_records.table_range(media_records.SEGMENTS)):
            members.extend(media_records.unpack(media_records.SegmentRecord, value).members)
        for key, value in reader.scan(*media_records.table_range(media_records.ZONES)):
            owners[key] = media_records.unpack(media_records.ZoneRecord, value).owner_id
    assert list(owners.values()).count(GROUP_ID) == 4, last
    assert len(members) == len(set(members)) == 6
    for device_id, zone in members:
        key = media_records.zone_key(ids.ZoneAddress(ids.DeviceId(device_id), ids.ZoneIndex(zone)))
        assert owners[key] != GROUP_ID


def _die_at_the_second_attempt(log: commit_log.CommitLog, operation: commit_log.Operation) -> None:
    attempts = 0
    honest = operation.apply

    def apply(txn: index_port.IndexWriter, place: commit_log.Placement) -> object:
        nonlocal attempts
        attempts += 1
        if attempts > 1:
            raise RuntimeError("dead")
        return honest(txn, place)

    operation.apply = apply
    log.commit([operation])
