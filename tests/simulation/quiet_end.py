"""What must come true when faults stop: dead devices are replaced, redundancy is back everywhere.

After the last life of a seed nothing fails any more. An empty device joins for each that is dead or
has lost bytes, or in other runs none. The node starts, and background work is given time: the
rebuild, the scrub, and the moves of what no device is free to take. Then every stripe that
something leads to has all its k + m shards, on devices that are there. Groups that are still open
are the one exception: they are repaired once they are sealed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Sequence
from typing import Final

from tests.simulation import (
    clients,
    ledger,
    media_audit,
    oracle,
    simulated_maintenance,
    simulated_node,
    simulated_process,
)

from couchestor_daemon.formats import l2p_record, media_records
from couchestor_daemon.services import repair_queue
from couchestor_daemon.services.catalogue import l2p
from couchestor_domain import errors, ids, objects, units

QUIET_SECONDS_MAX: Final = 5.0
LOOK_SECONDS: Final = 20e-3
NEVER: Final = objects.WriteConditions(if_match="never")


def join_empty(node: simulated_node.SimulatedNode, count: int) -> None:
    """New devices for the next start."""
    for number in range(count):
        node.join(100 + number)


async def repair(
    node: simulated_node.SimulatedNode,
    workers: Sequence[simulated_process.Worker],
    maintenance: simulated_maintenance.Maintenance,
    *,
    is_roomy: bool,
) -> None:
    """Let maintenance work until there is nothing left that it could do.

    Args:
        is_roomy: Whether there are zones enough for a retiring device to be emptied.
    """
    for worker in workers:
        # A writer gives up what an earlier life left open when it writes its next stripe.
        body = oracle.content(0, node.shape.stripe_bytes)
        request = objects.PutRequest(bucket=ledger.BUCKET, key="quiet", conditions=NEVER)
        with contextlib.suppress(errors.NoSuchKeyError, errors.StoreFullError):
            await worker.store.put_object(
                request, clients.SimulatedBody(body, announced_bytes=len(body))
            )
    loop = asyncio.get_running_loop()
    deadline = loop.time() + QUIET_SECONDS_MAX
    whole_since = loop.time()
    while True:
        maintenance.check()
        await asyncio.sleep(LOOK_SECONDS)
        waiting = _waiting(node)
        staying = _on_retiring_devices(node) if is_roomy else []
        weakened_bytes = maintenance.checkpoints.weakened_log_bytes()
        record = maintenance.scrub.record
        newest = record.counts if record.counts.ended_ns else record.last
        if waiting or staying or weakened_bytes:
            whole_since = loop.time()
        elif newest.ended_ns and newest.started_ns > whole_since * units.NS_PER_SECOND:
            return  # A whole pass found nothing that could be repaired.
        assert loop.time() < deadline, (
            f"groups {waiting} are not repaired, {staying} are on retiring devices, "
            f"{weakened_bytes} bytes of the log lack a replica: "
            f"{maintenance.rebuild.progress}, {record}"
        )


def _waiting(node: simulated_node.SimulatedNode) -> list[int]:
    """Sealed groups that lack members, as far as anybody knows."""
    waiting = []
    with node.index.read() as reader:
        queued = set(repair_queue.groups(reader))
        for _, value in reader.scan(*media_records.table_range(media_records.GROUPS)):
            group = media_records.unpack(media_records.GroupRecord, value)
            if group.state != media_records.ZoneSetState.SEALED:
                continue
            dead = {device for device, _ in group.members} & node.dead
            if (dead or group.group_id in queued) and media_audit.is_alive(reader, group.group_id):
                waiting.append(group.group_id)
    return waiting


def _on_retiring_devices(node: simulated_node.SimulatedNode) -> list[int]:
    """Sealed groups with a member on a device that is there and to be emptied."""
    retiring = {
        str(device_id)
        for device_id, device in node.present_devices().items()
        if device.identity.retiring
    }
    with node.index.read() as reader:
        groups = [
            media_records.unpack(media_records.GroupRecord, value)
            for _, value in reader.scan(*media_records.table_range(media_records.GROUPS))
        ]
        return [
            group.group_id
            for group in groups
            if group.state == media_records.ZoneSetState.SEALED
            and retiring & {device for device, _ in group.members}
            and media_audit.is_alive(reader, group.group_id)
        ]


def audit(node: simulated_node.SimulatedNode, *, damaged: Collection[ids.DeviceId]) -> None:
    """Every mapped stripe is whole; of open groups only what is not on damaged devices.

    Raises AssertionError.
    """
    with node.index.read() as reader:
        for key, value in list(reader.scan(*media_records.table_range(l2p_record.TABLE))):
            location = l2p_record.unpack(value)
            if isinstance(location, l2p_record.JournalLocation):
                continue
            found = reader.get(media_records.group_key(location.group_id))
            assert found is not None, location
            group = media_records.unpack(media_records.GroupRecord, found)
            is_open = group.state == media_records.ZoneSetState.OPEN
            dead = {device for device, _ in group.members} & node.dead
            assert is_open or not dead, f"{group} has members on dead devices"
            entry = l2p.Entry(l2p_record.address_of(key), location)
            media_audit.check_stripe(reader, node, entry, damaged=damaged if is_open else ())
