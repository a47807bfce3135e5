"""What the command line asks of a node that it does not serve."""

from __future__ import annotations

import json
import pathlib
import urllib.error
import urllib.request

from couchestor_daemon.adapters import directory_device
from couchestor_daemon.app import device_set, preparation, settings
from couchestor_daemon.formats import media_records
from couchestor_daemon.services import checkpoint_check, log_scan
from couchestor_domain import errors

STATUS_TIMEOUT_SECONDS = 5.0


def device_list(told: settings.Settings) -> list[dict[str, object]]:
    """Every configured device: who it is and how much room it has, or why it cannot be used."""
    rows: list[dict[str, object]] = []
    for path in told.device_paths:
        try:
            device = directory_device.open_directory(path)
        except errors.DeviceError as exc:
            rows.append({"label": path.name, "path": str(path), "state": exc.message})
            continue
        space = device.space()
        rows.append(
            {
                "label": device.identity.label,
                "path": str(path),
                "state": "present",
                "device_id": device.identity.device_id,
                "capacity_bytes": space.capacity_bytes,
                "available_bytes": space.available_bytes,
            }
        )
        device.close()
    return rows


def device_add(told: settings.Settings, path: pathlib.Path) -> None:
    """Refused: membership is fixed at the first start in this version."""
    raise errors.ConfigurationError(
        f"{path} cannot join: this version fixes a node's devices at its first start "
        "(docs/ROADMAP.md)"
    )


def device_retire(told: settings.Settings, label: str) -> None:
    """Refused: membership is fixed at the first start in this version."""
    raise errors.ConfigurationError(
        f"device {label} cannot retire: this version fixes a node's devices at its first start "
        "(docs/ROADMAP.md)"
    )


def recover(told: settings.Settings) -> str:
    """Rebuild the index from the log on the devices; the earlier one is kept aside.

    Raises:
        DeviceInUseError: the node is running.
        LogDamagedError: acknowledged mutations are on no readable device.
    """
    device_set.lock_all(told.device_paths)
    summary = preparation.prepare(told, recover_asked=True)
    # Nothing has changed the index since it was synced, nor will anything before the next start.
    preparation.conclude(told)
    origin = (
        f"the checkpoint of sequence {summary.checkpoint_sequence} and {{}} after it"
        if summary.checkpoint_sequence
        else "{}"
    ).format(f"{summary.replayed_batches_count} batches")
    return (
        f"rebuilt the index from {origin} on {summary.devices_count} devices "
        f"({summary.missing_count} missing)"
    )


def check(told: settings.Settings) -> list[str]:
    """Findings about devices and the log, one sentence each; empty when everything verified.

    Raises:
        DeviceInUseError: the node is running.
    """
    findings = []
    device_set.lock_all(told.device_paths)
    membership = device_set.load_membership(told)
    devices = device_set.open_all(told, membership)
    if len(devices) < len(told.device_paths):
        findings.append(f"{len(told.device_paths) - len(devices)} devices are missing")
    found = []
    for header in log_scan.find_segments(devices).values():
        for item in log_scan.scan_segment(header, devices):
            found.append(item)
            if not item.fully_replicated:
                findings.append(
                    f"batch {item.sequence} of the log verifies on {len(item.valid_on)} of "
                    f"{len(header.members)} replicas"
                )
    try:
        log_scan.committed_chain(0, found)
    except errors.LogDamagedError as exc:
        findings.append(exc.message)
    records = []
    if preparation.has_index(told):
        index = preparation.open_index(told)
        with index.read() as reader:
            start, stop = media_records.table_range(media_records.REPAIRS)
            for _, value in reader.scan(start, stop):
                repair = media_records.unpack(media_records.RepairRecord, value)
                findings.append(
                    f"shard {repair.shard_index} of the stripe at {repair.stripe_offset_bytes} in "
                    f"group {repair.group_id} waits for repair: {repair.reason}"
                )
            start, stop = media_records.table_range(media_records.CHECKPOINTS)
            records = [
                media_records.unpack(media_records.CheckpointRecord, value)
                for _, value in reader.scan(start, stop)
            ]
        index.close()
    return findings + checkpoint_check.findings(devices, records)


def status(told: settings.Settings) -> dict[str, object]:
    """What the running node says of itself.

    Raises:
        UnavailableError: no node answers on the health address.
    """
    url = f"http://{told.health_host}:{told.health_port}/status"
    try:
        with urllib.request.urlopen(url, timeout=STATUS_TIMEOUT_SECONDS) as answer:
            found: dict[str, object] = json.load(answer)
            return found
    except (urllib.error.URLError, OSError, ValueError) as exc:
        raise errors.ConfigurationError(
            f"no node answers at {url} ({exc}); start it, or name its --health-port"
        ) from exc
