"""What the command line asks of a node that it does not serve."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import NamedTuple

from couchestor_daemon.app import (
    device_listing,
    device_set,
    node_check,
    node_file,
    preparation,
    settings,
    supervisor,
)
from couchestor_daemon.formats import media_records
from couchestor_daemon.services import checkpoint_check, log_scan, replay
from couchestor_domain import errors

STATUS_TIMEOUT_SECONDS = 5.0


@contextlib.contextmanager
def _stopped(told: settings.Settings) -> Iterator[settings.Settings]:
    """The settings of a node that cannot be started meanwhile, its added devices named."""
    if not told.data_dir.is_dir():
        raise errors.ConfigurationError(
            f"there is no node under {told.data_dir}: name its --data-dir or --config"
        )
    node_file.check_user(told)
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, supervisor.lock_data_dir(told, advice="stop it first"))
        told = node_file.with_added_devices(told)
        for fd in device_set.lock_all(told.device_paths):
            stack.callback(os.close, fd)
        yield told


def recover(told: settings.Settings) -> str:
    """Rebuild the index from the log on the devices; the earlier one is kept aside.

    Raises:
        ConfigurationError: there is no node, or it is running.
        DeviceInUseError: another daemon holds a device.
        LogDamagedError: acknowledged mutations are on no readable device.
    """
    with _stopped(told) as told:
        summary = preparation.prepare(told, recover_asked=True)
        # Nothing has changed the index since it was synced, nor will anything before the next
        # start.
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


class Checked(NamedTuple):
    """What ``check`` has to say, a sentence each."""

    findings: list[str]
    """Damage, and what may become damage: empty when everything verified."""
    notes: list[str]
    """What is left over and harms nothing."""
    repaired: list[str]
    """What was done about it."""


def check(told: settings.Settings, *, repair: bool = False) -> Checked:
    """Look at devices, log, index and every shard of a stopped node.

    Args:
        repair: Also free zones that nothing owns and drop repairs of groups that are gone.

    Raises:
        ConfigurationError: there is no node, or it is running; or the index is not to be trusted
            and ``repair`` was asked for.
        DeviceInUseError: another daemon holds a device.
    """
    with _stopped(told) as told:
        devices = device_set.open_all(told, node_file.load(told))
        repaired = node_check.repair(told, devices) if repair else []
        findings = _findings(told)
        notes: list[str] = []
        if node_check.is_index_trusted(told):
            for finding in node_check.findings(told, devices):
                (findings if finding.is_damage else notes).append(finding.text)
        elif preparation.has_index(told):
            findings.append(
                "the index was not synced before the machine stopped, so shards were not compared "
                "with it: start the node, which rebuilds it, stop it and check again"
            )
        for device in devices.values():
            device.close()
        return Checked(findings, notes, repaired)


def _findings(told: settings.Settings) -> list[str]:
    membership = node_file.load(told)
    findings = [
        f"device {row.label} at {row.path} is {row.state}: {row.reason}"
        for row in device_listing.survey(told)
        if row.state not in ("present", "retiring")
    ]
    devices = device_set.open_all(told, membership)
    for header in log_scan.find_segments(devices).values():
        for item in log_scan.scan_segment(header, devices):
            if not item.fully_replicated:
                findings.append(
                    f"batch {item.sequence} of the log verifies on {len(item.valid_on)} of "
                    f"{len(header.members)} replicas"
                )
    try:
        replay.check_log(devices)
    except errors.LogDamagedError as exc:
        findings.append(exc.message)
    records = []
    if preparation.has_index(told):
        index = preparation.open_index(told)
        with index.read() as reader:
            start, stop = media_records.table_range(media_records.REPAIRS)
            waiting = collections.Counter(
                media_records.unpack(media_records.RepairRecord, value).reason
                for _, value in reader.scan(start, stop)
            )
            findings += [
                f"{count} shards wait for repair: {reason}"
                for reason, count in waiting.most_common()
            ]
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
        ConfigurationError: no node answers on the health address.
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
