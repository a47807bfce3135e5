"""The devices of a node: formatting at the first start, then identity checks at every one.

``node_file`` remembers the epoch each device last joined in. A device whose own epoch is older is
an old copy and is refused by name; a missing one is served around.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import pathlib
import secrets
import shutil
from collections.abc import Mapping, Sequence
from typing import Final

from couchestor_daemon.adapters import directory_device, directory_layout
from couchestor_daemon.app import descriptors, node_file, settings
from couchestor_daemon.ports import device as device_port
from couchestor_domain import errors, ids

_log = logging.getLogger("couchestor.devices")

RESERVE_RATIO: Final = 0.10
"""Part of a file system that an automatic capacity leaves free."""
ZONES_MIN: Final = 16


def format_all(told: settings.Settings, node_id: ids.NodeId) -> None:
    """Format every configured folder: only ever at the first start of a node."""
    for path in told.device_paths:
        _make_folder(path)
    for path in told.device_paths:
        format_one(told, path, new_identity(told, path, node_id))


def format_first(told: settings.Settings, membership: node_file.Membership | None) -> None:
    """What the first start of a node formats: every device, or the rest of them when an earlier
    first start was interrupted before any device had joined.

    Raises:
        DuplicateDeviceError: a folder is named twice; nothing has been formatted.
    """
    if membership is not None:
        return
    _refuse_twins(told.device_paths)
    try:
        found = [_identity_at(path) for path in told.device_paths]
    except errors.DeviceCorruptError:
        return  # Not a fresh node: ``open_all`` says what is wrong.
    present = [identity for identity in found if identity is not None]
    if not present:
        format_all(told, ids.NodeId(secrets.token_hex(16)))
        return
    if len({identity.node_id for identity in present}) > 1 or any(
        identity.joined_epoch for identity in present
    ):
        return
    for path, identity in zip(told.device_paths, found, strict=True):
        if identity is None:
            _make_folder(path)
            format_one(told, path, new_identity(told, path, present[0].node_id))


def _make_folder(path: pathlib.Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as exc:
        raise errors.ConfigurationError(
            f"{path} is not a folder, and a device is one: name another with --devices"
        ) from exc
    except OSError as exc:
        raise errors.ConfigurationError(
            f"cannot make the folder {path} of a device: {exc.strerror}; make it, or name another "
            "with --devices"
        ) from exc


def _refuse_twins(paths: Sequence[pathlib.Path]) -> None:
    """Raises DuplicateDeviceError when two paths lead to one folder, before it is formatted."""
    seen: dict[str, pathlib.Path] = {}
    for path in paths:
        twin = seen.setdefault(os.path.realpath(path), path)
        if twin is not path:
            raise errors.DuplicateDeviceError(
                f"{twin} and {path} are the same folder: name each device once"
            )


def _identity_at(path: pathlib.Path) -> device_port.DeviceIdentity | None:
    try:
        return directory_layout.read_identity(path)
    except (errors.DeviceGoneError, errors.UnformattedDeviceError):
        return None


def new_identity(
    told: settings.Settings, path: pathlib.Path, node_id: ids.NodeId
) -> device_port.DeviceIdentity:
    """Identity for a new device on an existing folder, sized by the setting or the free space.

    Raises:
        ConfigurationError: too little room.
    """
    capacity = told.device_capacity_bytes
    if not capacity:
        medium = path.stat().st_dev
        others = [other for other in told.device_paths if other != path and other.exists()]
        sharing = 1 + sum(1 for other in others if other.stat().st_dev == medium)
        free_bytes = shutil.disk_usage(path).free
        capacity = int(free_bytes * (1 - RESERVE_RATIO)) // sharing
    zone_count = capacity // told.zone_bytes
    if zone_count < ZONES_MIN:
        raise errors.ConfigurationError(
            f"{path} has room for {zone_count} zones of {told.zone_bytes} bytes and at least "
            f"{ZONES_MIN} are needed; free space, or set a smaller zone_bytes"
        )
    return device_port.DeviceIdentity(
        node_id=node_id,
        device_id=ids.DeviceId(secrets.token_hex(16)),
        label=path.name,
        failure_domain=path.name,
        zone_count=zone_count,
        zone_capacity_bytes=told.zone_bytes,
        joined_epoch=0,
    )


def format_one(
    told: settings.Settings, path: pathlib.Path, identity: device_port.DeviceIdentity
) -> None:
    """Make one folder a device of the node."""
    directory_device.format_directory(path, identity)


def label_of(
    devices: Mapping[ids.DeviceId, directory_device.DirectoryDevice], device_id: ids.DeviceId
) -> str:
    """What people call one of these devices; empty when it is none of them."""
    device = devices.get(device_id)
    return "" if device is None else device.identity.label


def open_all(
    told: settings.Settings, membership: node_file.Membership | None
) -> dict[ids.DeviceId, directory_device.DirectoryDevice]:
    """Open what is there, refuse what does not belong, and leave out what is missing.

    A folder without an identity counts as missing: an empty mount point looks like that.

    Raises:
        ForeignDeviceError, StaleDeviceError, DuplicateDeviceError: by name, with what to do.
        ConfigurationError: ``node.json`` is gone, and so are too many of the devices.
    """
    opened: dict[ids.DeviceId, directory_device.DirectoryDevice] = {}
    files_count_max = descriptors.files_per_device(len(told.device_paths))
    try:
        for path in told.device_paths:
            device = _open_member(path, opened, membership, files_count_max=files_count_max)
            if device is not None:
                opened[device.identity.device_id] = device
        _check_together(told, opened, membership)
    except errors.CouchestorError:
        for device in opened.values():
            device.close()
        raise
    return opened


def _open_member(
    path: pathlib.Path,
    opened: Mapping[ids.DeviceId, directory_device.DirectoryDevice],
    membership: node_file.Membership | None,
    *,
    files_count_max: int,
) -> directory_device.DirectoryDevice | None:
    try:
        device = directory_device.open_directory(path, open_files_count_max=files_count_max)
    except (
        errors.DeviceGoneError,
        errors.DeviceCorruptError,
        errors.UnformattedDeviceError,
    ) as exc:
        # Each process of a node comes here: people are told once, by ``join_all``.
        _log.debug("device %s is not opened: %s", path, exc)
        return None
    try:
        check_member(path, device.identity, membership)
        twin = opened.get(device.identity.device_id)
        if twin is not None:
            raise same_device(path, twin.path, device.identity)
    except errors.DeviceError:
        device.close()
        raise
    return device


def check_member(
    path: pathlib.Path,
    identity: device_port.DeviceIdentity,
    membership: node_file.Membership | None,
) -> None:
    """Refuse a device that is not a current member of the node.

    Raises:
        ForeignDeviceError: of another node, or it never joined.
        StaleDeviceError: an old copy of a member.
    """
    if membership is None:
        return
    name = f"device {identity.label} ({identity.device_id})"
    if identity.node_id != membership.node_id:
        raise errors.ForeignDeviceError(
            f"{path} carries {name} of node {identity.node_id}, this is node "
            f"{membership.node_id}: name the right folder, or move its data away"
        )
    recorded = membership.members.get(identity.device_id)
    if recorded is None:
        raise errors.ForeignDeviceError(
            f"{path} carries {name}, which never joined this node: run "
            f"`couchestor device add {path}`, or name another folder"
        )
    if identity.joined_epoch < recorded.joined_epoch:
        raise errors.StaleDeviceError(
            f"{path} is an old copy of {name}: its last start was number "
            f"{identity.joined_epoch}, the node saw it in start {recorded.joined_epoch}; put the "
            "current one back, or move this folder away"
        )


def _check_together(
    told: settings.Settings,
    opened: Mapping[ids.DeviceId, directory_device.DirectoryDevice],
    membership: node_file.Membership | None,
) -> None:
    identities = [device.identity for device in opened.values()]
    if len({identity.node_id for identity in identities}) > 1:
        raise errors.ForeignDeviceError(
            "the configured devices belong to different nodes: "
            + ", ".join(f"{d.path} to {d.identity.node_id}" for d in opened.values())
        )
    members_count = max((identity.members_count for identity in identities), default=0)
    missing_count = members_count - len(identities)
    # With so many away every copy of the log's end may be: a rebuild would not notice.
    if membership is None and missing_count >= told.journal_replica_count:
        raise errors.ConfigurationError(
            f"{node_file.path_of(told)} is gone and only {len(identities)} of the node's "
            f"{members_count} devices are named or attached; name them all with --devices "
            "(those that joined by `couchestor device add` too)"
        )


def join_all(
    told: settings.Settings,
    devices: Mapping[ids.DeviceId, directory_device.DirectoryDevice],
    membership: node_file.Membership | None,
) -> node_file.Membership:
    """Raise the epoch on every present device, then in ``node.json``; in that order, so that a
    crash in between leaves devices newer than the file, never older. Warns of those missing."""
    _warn_of_missing(told, devices)
    members = {} if membership is None else dict(membership.members)
    epoch = 1 + max(
        [
            *(member.joined_epoch for member in members.values()),
            *(device.identity.joined_epoch for device in devices.values()),
        ],
        default=0,
    )
    members_count = len(members.keys() | devices.keys())
    for device_id, device in devices.items():
        device.write_identity(
            dataclasses.replace(device.identity, joined_epoch=epoch, members_count=members_count)
        )
        known = members.get(device_id)
        members[device_id] = node_file.Member(
            joined_epoch=epoch,
            label=device.identity.label,
            failure_domain=device.identity.failure_domain,
            path=str(device.path),
            added=known is not None and known.added,
        )
    node_id = next(iter(devices.values())).identity.node_id
    removed = frozenset() if membership is None else membership.removed_paths
    fresh = node_file.Membership(node_id=node_id, members=members, removed_paths=removed)
    node_file.save(told, fresh)
    return fresh


def _warn_of_missing(
    told: settings.Settings, devices: Mapping[ids.DeviceId, directory_device.DirectoryDevice]
) -> None:
    present = {device.path for device in devices.values()}
    for path in told.device_paths:
        if path in present:
            continue
        reason = "its folder of zones is missing"
        try:
            directory_layout.read_identity(path)
        except errors.DeviceError as exc:
            reason = exc.message
        _log.warning("device %s is missing and is served around: %s", path, reason)


def lock_all(paths: Sequence[pathlib.Path]) -> list[int]:
    """Lock every folder that is formatted; the descriptors keep the locks in children too.

    Raises:
        DeviceInUseError: another daemon holds one of them.
        DuplicateDeviceError: two paths lead to one folder, which cannot be locked twice.
    """
    locks: list[int] = []
    places: dict[tuple[int, int], pathlib.Path] = {}
    try:
        for path in paths:
            try:
                device = directory_device.open_directory(path)
            except errors.DeviceError:
                continue
            with contextlib.closing(device):
                found = path.stat()
                first = places.setdefault((found.st_dev, found.st_ino), path)
                if first != path:
                    raise same_device(path, first, device.identity)
                locks.append(device.lock())
    except BaseException:
        for fd in locks:
            os.close(fd)
        raise
    return locks


def same_device(
    path: pathlib.Path, other: pathlib.Path, identity: device_port.DeviceIdentity
) -> errors.DuplicateDeviceError:
    """The error for two paths to one device."""
    return errors.DuplicateDeviceError(
        f"{path} and {other} are the same device {identity.label} ({identity.device_id}): name it "
        "once, and move a copy away"
    )
