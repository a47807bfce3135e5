"""Whether the log that a recovery of a stopped node would need is whole.

``log_chain`` asks the same of a node that writes on, with an index to go by. Here the devices alone
say what was committed: a batch that a failed device left unanswered is void, however few replicas
show it, and what a checkpoint holds is needed by no recovery.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from couchestor_daemon.ports import device as device_port
from couchestor_daemon.services import log_scan, replay
from couchestor_domain import errors, ids

Devices = Mapping[ids.DeviceId, device_port.ZonedDevice]


def findings(devices: Devices) -> list[str]:
    """One sentence for each device that lacks batches, and one when the log cannot be followed."""
    try:
        return _lacking(replay.check_log(devices), devices)
    except errors.LogDamagedError as exc:
        # Nothing tells what was committed from what was not: all of it may be needed.
        headers = log_scan.find_segments(devices).values()
        every = [item for header in headers for item in log_scan.scan_segment(header, devices)]
        return [exc.message, *_lacking(every, devices)]


def _lacking(needed: Iterable[log_scan.FoundBatch], devices: Devices) -> list[str]:
    lost: dict[ids.DeviceId, list[int]] = {}
    for item in needed:
        for zone in item.segment.members:
            if zone not in item.valid_on:
                lost.setdefault(zone.device_id, []).append(item.sequence)
    return [
        f"{len(sequences)} batches of the log do not verify on device {device_id}"
        f"{'' if device_id in devices else ', which is not there'}, the last of them batch "
        f"{max(sequences)}: a recovery takes them from the other replicas"
        for device_id, sequences in sorted(lost.items())
    ]
