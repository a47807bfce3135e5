"""The devices of a node: formatting at the first start, then identity checks at every one.

``<data_dir>/node.json`` remembers the node id and the epoch each device last joined in. A device
whose own epoch is older is an old copy and is refused by name; a missing one is served around.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import pathlib
import secrets
import shutil
from collections.abc import Mapping, Sequence
from typing import Final

from couchestor_daemon.adapters import directory_device
from couchestor_daemon.app import settings
from couchestor_daemon.ports import device as device_port
from couchestor_domain import errors, ids

_log = logging.getLogger("couchestor.devices")

RESERVE_RATIO: Final = 0.10
"""Part of a file system that an automatic capacity leaves free."""
ZONES_MIN: Final = 16


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """What ``node.json`` holds."""

    node_id: ids.NodeId
    joined_epochs: Mapping[str, int]


def node_file(told: settings.Settings) -> pathlib.Path:
    """Where the membership is remembered."""
    return told.data_dir / "node.json"


def load_membership(told: settings.Settings) -> Membership | None:
    """The membership, or None before the first start.

    Raises:
        ConfigurationError: the file is there but unreadable.
    """
    path = node_file(told)
    try:
        raw = json.loads(path.read_text("utf-8"))
        return Membership(
            node_id=ids.NodeId(str(raw["node_id"])),
            joined_epochs={str(key): int(value) for key, value in raw["joined_epochs"].items()},
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, AttributeError) as exc:
        raise errors.ConfigurationError(
            f"{path} cannot be read ({exc}); restore it from a backup, or move it away to take the "
            "membership from the devices"
        ) from exc


def save_membership(told: settings.Settings, membership: Membership) -> None:
    """Replace the file durably."""
    path = node_file(told)
    temporary = path.with_suffix(".new")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(
            {
                "node_id": membership.node_id,
                "joined_epochs": dict(sorted(membership.joined_epochs.items())),
            },
            file,
            indent=1,
        )
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def format_all(told: settings.Settings, node_id: ids.NodeId) -> None:
    """Format every configured folder: only ever at the first start of a node."""
    for path in told.device_paths:
        path.mkdir(parents=True, exist_ok=True)
    for path in told.device_paths:
        format_one(told, path, node_id)


def format_one(told: settings.Settings, path: pathlib.Path, node_id: ids.NodeId) -> None:
    """Make one folder a device of the node, sized by the setting or by the free space."""
    capacity = told.device_capacity_bytes
    if not capacity:
        sharing = sum(1 for other in told.device_paths if other.stat().st_dev == path.stat().st_dev)
        free_bytes = shutil.disk_usage(path).free
        capacity = int(free_bytes * (1 - RESERVE_RATIO)) // max(sharing, 1)
    zone_count = capacity // told.zone_bytes
    if zone_count < ZONES_MIN:
        raise errors.ConfigurationError(
            f"{path} has room for {zone_count} zones of {told.zone_bytes} bytes and at least "
            f"{ZONES_MIN} are needed; free space, or set a smaller zone_bytes"
        )
    directory_device.format_directory(
        path,
        device_port.DeviceIdentity(
            node_id=node_id,
            device_id=ids.DeviceId(secrets.token_hex(16)),
            label=path.name,
            failure_domain=path.name,
            zone_count=zone_count,
            zone_capacity_bytes=told.zone_bytes,
            joined_epoch=0,
        ),
    )


def open_all(
    told: settings.Settings, membership: Membership | None
) -> dict[ids.DeviceId, directory_device.DirectoryDevice]:
    """Open what is there, refuse what does not belong, and log what is missing.

    Raises:
        ForeignDeviceError, StaleDeviceError, DuplicateDeviceError: by name, with what to do.
        UnformattedDeviceError: a configured folder was replaced by an empty one.
    """
    opened: dict[ids.DeviceId, directory_device.DirectoryDevice] = {}
    for path in told.device_paths:
        try:
            device = directory_device.open_directory(path)
        except (errors.DeviceGoneError, errors.DeviceCorruptError) as exc:
            _log.warning("device %s is missing and is served around: %s", path, exc)
            continue
        identity = device.identity
        if identity.device_id in opened:
            raise errors.DuplicateDeviceError(
                f"{path} and {opened[identity.device_id].path} are the same device "
                f"{identity.device_id}; name it once"
            )
        opened[identity.device_id] = device
        if membership is not None:
            _check(path, identity, membership)
    node_ids = {device.identity.node_id for device in opened.values()}
    if len(node_ids) > 1:
        raise errors.ForeignDeviceError(
            "the configured devices belong to different nodes: "
            + ", ".join(f"{d.path} to {d.identity.node_id}" for d in opened.values())
        )
    return opened


def _check(
    path: pathlib.Path, identity: device_port.DeviceIdentity, membership: Membership
) -> None:
    if identity.node_id != membership.node_id:
        raise errors.ForeignDeviceError(
            f"{path} belongs to node {identity.node_id}, this is node {membership.node_id}; "
            "name the right folder, or move its data away"
        )
    recorded = membership.joined_epochs.get(identity.device_id)
    if recorded is None:
        raise errors.ForeignDeviceError(
            f"{path} carries device {identity.device_id}, which never joined this node"
        )
    if identity.joined_epoch < recorded:
        raise errors.StaleDeviceError(
            f"{path} is an old copy of device {identity.device_id}: it last joined in epoch "
            f"{identity.joined_epoch}, the node saw it in epoch {recorded}; put the current one "
            "back, or take this path out of the configuration"
        )


def join_all(
    told: settings.Settings,
    devices: Mapping[ids.DeviceId, directory_device.DirectoryDevice],
    membership: Membership | None,
) -> Membership:
    """Raise the epoch on every present device, then in ``node.json``; in that order, so that a
    crash in between leaves devices newer than the file, never older."""
    known = {} if membership is None else dict(membership.joined_epochs)
    highest = max(
        [*known.values(), *(device.identity.joined_epoch for device in devices.values())],
        default=0,
    )
    for device in devices.values():
        device.write_identity(dataclasses.replace(device.identity, joined_epoch=highest + 1))
        known[device.identity.device_id] = highest + 1
    node_id = next(iter(devices.values())).identity.node_id
    fresh = Membership(node_id=node_id, joined_epochs=known)
    save_membership(told, fresh)
    return fresh


def lock_all(paths: Sequence[pathlib.Path]) -> list[int]:
    """Lock every folder that is formatted; the descriptors keep the locks in children too.

    Raises:
        DeviceInUseError: another daemon holds one of them.
    """
    locks = []
    for path in paths:
        try:
            device = directory_device.open_directory(path)
        except errors.DeviceError:
            continue
        locks.append(device.lock())
        device.close()
    return locks
