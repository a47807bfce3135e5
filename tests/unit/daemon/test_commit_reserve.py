"""What a full store still takes: the reserve of zones is for deletes and the node's own upkeep."""

from __future__ import annotations

import pytest

from couchestor_daemon import buffers
from couchestor_daemon.adapters import inline_media, memory_device, memory_index
from couchestor_daemon.ports import device as device_port
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import commit_log
from couchestor_domain import errors, events, ids, units

ZONES_COUNT = 8
ZONE_BYTES = 64 * units.KIB
PAYLOAD = bytes(24 * units.KIB)


class Silence:
    def publish(self, event: events.DomainEvent) -> None:
        """Events are not what is tested here."""


@pytest.fixture
def log() -> commit_log.CommitLog:
    devices = {}
    for number in range(3):
        identity = device_port.DeviceIdentity(
            node_id=ids.NodeId("a" * 32),
            device_id=ids.DeviceId(f"{number:032x}"),
            label=f"d{number}",
            failure_domain=f"d{number}",
            zone_count=ZONES_COUNT,
            zone_capacity_bytes=ZONE_BYTES,
            joined_epoch=1,
        )
        devices[identity.device_id] = memory_device.MemoryDevice(identity)
    return commit_log.CommitLog(
        writer="w",
        index=memory_index.MemoryIndex(),
        media=inline_media.InlineMedia(devices, lambda device_id, error: None),
        pool=buffers.BufferPool(units.MIB),
        replicas_count=3,
        reserve_zones_count=2,
        publisher=Silence(),
    )


def put(key: bytes) -> commit_log.Operation:
    return commit_log.Operation(apply=_writing(key), payload=PAYLOAD)


def delete(key: bytes) -> commit_log.Operation:
    def apply(txn: index_port.IndexWriter, _: commit_log.Placement) -> None:
        assert txn.delete(b"o" + key)

    return commit_log.Operation(apply=apply, uses_reserve=True)


def _writing(key: bytes) -> commit_log.Apply:
    def apply(txn: index_port.IndexWriter, _: commit_log.Placement) -> None:
        txn.put(b"o" + key, b"there")

    return apply


def fill(log: commit_log.CommitLog) -> list[bytes]:
    keys: list[bytes] = []
    while True:
        operation = put(b"%04d" % len(keys))
        log.commit([operation])
        if operation.error is not None:
            assert isinstance(operation.error, errors.StoreFullError), operation.error
            return keys
        keys.append(b"%04d" % len(keys))


def test_deletes_go_through_on_a_full_store_also_in_a_batch_with_refused_writes(
    log: commit_log.CommitLog,
) -> None:
    keys = fill(log)
    assert len(keys) == 2 * (ZONES_COUNT - 2), "two payloads to a zone, two zones in reserve"
    for key in keys:
        batch = [put(b"more"), delete(key), put(b"and more")]
        log.commit(batch)
        assert [type(operation.error) for operation in batch] == [
            errors.StoreFullError,
            type(None),
            errors.StoreFullError,
        ]


def test_the_reserve_can_be_used_up_by_what_may_use_it(log: commit_log.CommitLog) -> None:
    fill(log)
    big = [
        commit_log.Operation(apply=_writing(b"%d" % i), payload=PAYLOAD, uses_reserve=True)
        for i in range(5)
    ]
    for operation in big:
        log.commit([operation])
    assert [operation.error is None for operation in big] == [True] * 4 + [False]
    assert isinstance(big[-1].error, errors.StoreFullError)
    log.fence()  # What room the last segment has is still there for small ones.
