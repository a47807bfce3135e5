"""An operation is refused for what another of its batch wrote only if that was committed."""

from __future__ import annotations

import pytest

from couchestor_daemon import buffers
from couchestor_daemon.adapters import inline_media, memory_index, simulated_device
from couchestor_daemon.ports import device as device_port
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import commit_log
from couchestor_domain import errors, events, ids, units


class Silence:
    def publish(self, event: events.DomainEvent) -> None:
        """Events are not what is tested here."""


def put_once(txn: index_port.IndexWriter, _: commit_log.Placement) -> None:
    if txn.get(b"okey") is not None:
        raise errors.PreconditionFailedError("it is there")
    txn.put(b"okey", b"value")


@pytest.mark.parametrize("full", [False, True])
def test_a_refusal_stands_or_falls_with_the_commit(full: bool) -> None:
    world = simulated_device.SimulatedWorld(1)
    for number in range(3):
        world.add_device(
            device_port.DeviceIdentity(
                node_id=ids.NodeId("a" * 32),
                device_id=ids.DeviceId(f"{number:032x}"),
                label=f"d{number}",
                failure_domain=f"d{number}",
                zone_count=8,
                zone_capacity_bytes=64 * units.KIB,
                joined_epoch=1,
            )
        )
    log = commit_log.CommitLog(
        writer="w",
        index=memory_index.MemoryIndex(),
        media=inline_media.InlineMedia(world.devices, lambda device_id, error: None),
        pool=buffers.BufferPool(units.MIB),
        replicas_count=3,
        publisher=Silence(),
    )
    for device in world.devices.values():
        device.full = full
    first, second = (commit_log.Operation(apply=put_once) for _ in range(2))
    log.commit([first, second])
    outcomes = [type(operation.error) for operation in (first, second)]
    if full:
        assert outcomes == [errors.StoreFullError] * 2
    else:
        assert outcomes == [type(None), errors.PreconditionFailedError]
