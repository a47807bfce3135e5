"""A segment left open is gone on with only if every replica can be found again."""

from __future__ import annotations

import pytest

from couchestor_daemon import buffers
from couchestor_daemon.adapters import inline_media, memory_device, memory_index
from couchestor_daemon.formats import media_records
from couchestor_daemon.ports import device as device_port
from couchestor_daemon.services import commit_log
from couchestor_domain import events, ids, units


class Silence:
    def publish(self, event: events.DomainEvent) -> None:
        """Events are not what is tested here."""


@pytest.mark.parametrize("emptied", [False, True])
def test_a_segment_with_an_emptied_replica_is_left(emptied: bool) -> None:
    devices = {}
    for number in range(3):
        identity = device_port.DeviceIdentity(
            node_id=ids.NodeId("a" * 32),
            device_id=ids.DeviceId(f"{number:032x}"),
            label=f"d{number}",
            failure_domain=f"d{number}",
            zone_count=8,
            zone_capacity_bytes=64 * units.KIB,
            joined_epoch=1,
        )
        devices[identity.device_id] = memory_device.MemoryDevice(identity)
    index = memory_index.MemoryIndex()
    for _ in range(2):
        commit_log.CommitLog(
            writer="w",
            index=index,
            media=inline_media.InlineMedia(devices, lambda device_id, error: None),
            pool=buffers.BufferPool(units.MIB),
            replicas_count=3,
            publisher=Silence(),
        ).fence()
        if emptied:
            devices[ids.DeviceId(f"{1:032x}")].reset(ids.ZoneIndex(0))
    with index.read() as reader:
        segments = list(reader.scan(*media_records.table_range(media_records.SEGMENTS)))
    assert len(segments) == (2 if emptied else 1)
