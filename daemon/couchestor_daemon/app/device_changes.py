"""Devices joining and retiring, while the node is stopped.

A running process knows its devices from its start; a member that only some processes know would
take bytes the others cannot read. So both commands want the node stopped and hold all its locks.

What a crash at each line of joining leaves behind (``add``):

    line                                       device                       node.json
    lock the folder                            an empty lock file           old
    format it, epoch of the last start         ours, not a member           old
    save node.json                             ours                         a member

In the middle the folder is in no configuration or refused by name, holds nothing, and the same
command finishes what was begun. Retiring is one flag in the device's superblock, replaced in one
rename: it holds wherever the device is attached, and without node.json too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Final

from couchestor_daemon.adapters import directory_device, directory_layout
from couchestor_daemon.app import device_set, node_file, settings, supervisor
from couchestor_daemon.ports import device as device_port
from couchestor_domain import errors, geometry, ids

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_STOP_FIRST: Final = (
    "stop it, then repeat the command: devices join and retire between two runs of a node"
)

Devices = Mapping[ids.DeviceId, directory_device.DirectoryDevice]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StoppedNode:
    """A node nobody else can start or change while it is held."""

    told: settings.Settings
    membership: node_file.Membership
    devices: Devices


@contextlib.contextmanager
def stopped_node(
    told: settings.Settings, *, without: pathlib.Path | None = None
) -> Iterator[StoppedNode]:
    """Hold every lock of a node and open its devices.

    Args:
        without: A path not to open even if it is configured: it is about to be formatted.

    Raises:
        ConfigurationError: there is no node, or it is running.
        DeviceInUseError: another daemon holds one of its devices.
        DeviceError: a device does not belong to the node.
    """
    node_file.check_user(told)
    if node_file.load(told) is None:
        raise errors.ConfigurationError(
            f"there is no node under {told.data_dir}: name its --data-dir or --config, or start it "
            "once with `couchestor serve`"
        )
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, supervisor.lock_data_dir(told, advice=_STOP_FIRST))
        told = node_file.with_added_devices(told)
        if without is not None:
            others = tuple(path for path in told.device_paths if path != without)
            told = dataclasses.replace(told, devices=others)
        for fd in device_set.lock_all(told.device_paths):
            stack.callback(os.close, fd)
        membership = node_file.load(told)
        assert membership is not None, "only the holder of the lock could have removed it"
        devices = device_set.open_all(told, membership)
        for device in devices.values():
            stack.callback(device.close)
        yield StoppedNode(told=told, membership=membership, devices=devices)


def add(
    told: settings.Settings, path: pathlib.Path, *, label: str = "", failure_domain: str = ""
) -> str:
    """Format an empty folder and make it a member of the node, from its next start on.

    Args:
        label: Its name among the node's devices; the folder's name by default.
        failure_domain: Devices with the same value may fail together; the label by default.

    Returns:
        One line for the person who asked.

    Durability: when this returns the device is a member after any crash. Repeating an interrupted
    command finishes it.

    Raises:
        ConfigurationError: no such node, a running one, an impossible name, or too little room.
        DeviceGoneError: no such folder.
        ForeignDeviceError: the folder holds something else, or the device of another node.
        DuplicateDeviceError: it is a member already, or its label is taken.
        DeviceInUseError: another daemon holds the folder.
    """
    configured = path in told.device_paths
    with stopped_node(told, without=path) as node:
        begun = _refuse_unfit(path, node)
        identity = begun or device_set.new_identity(node.told, path, node.membership.node_id)
        identity = _named(identity, label or path.name, failure_domain)
        _refuse_taken_label(path, identity, node)
        identity = dataclasses.replace(
            identity,
            joined_epoch=node.membership.epoch,
            members_count=len(node.membership.members.keys() | {identity.device_id}),
        )
        with contextlib.closing(_Lock(path, identity.device_id)):
            if begun is None:
                device_set.format_one(node.told, path, identity)
            else:
                with contextlib.closing(directory_device.open_directory(path)) as device:
                    device.write_identity(identity)
            member = node_file.Member(
                joined_epoch=identity.joined_epoch,
                label=identity.label,
                failure_domain=identity.failure_domain,
                path=str(path),
                added=not configured,
            )
            members = {
                # A device this one takes the place of is looked for there no more.
                device_id: dataclasses.replace(other, added=False)
                if other.path == str(path)
                else other
                for device_id, other in node.membership.members.items()
            }
            members[identity.device_id] = member
            node_file.save(told, dataclasses.replace(node.membership, members=members))
    where = "the configuration names it" if configured else "node.json remembers its path"
    return (
        f"added device {identity.label} at {path}: {identity.zone_count} zones of "
        f"{identity.zone_capacity_bytes} bytes, failure domain {identity.failure_domain}; "
        f"the next `couchestor serve` uses it ({where})"
    )


class _Lock:
    """The folder of a device that is joining, held until it has."""

    def __init__(self, path: pathlib.Path, device_id: ids.DeviceId) -> None:
        self._fd = directory_layout.lock(path, device_id)

    def close(self) -> None:
        os.close(self._fd)


def _refuse_unfit(path: pathlib.Path, node: StoppedNode) -> device_port.DeviceIdentity | None:
    """The identity that an interrupted ``add`` left in the folder; None for an empty one."""
    try:
        present = directory_layout.read_identity(path)
    except errors.UnformattedDeviceError:
        directory_layout.check_unused(path)
        return None
    except errors.DeviceGoneError as exc:
        raise errors.DeviceGoneError(
            f"{path} is not a folder: mount the medium, make an empty folder on it, and name that",
            path=str(path),
        ) from exc
    if present.node_id != node.membership.node_id:
        raise errors.ForeignDeviceError(
            f"{path} is device {present.label} of node {present.node_id}: empty the folder to give "
            "it to this node"
        )
    if present.device_id in node.membership.members:
        raise errors.DuplicateDeviceError(
            f"{path} is device {present.label} of this node already"
            + (
                f"; `couchestor device retire --undo {present.label}` takes it back into service"
                if present.retiring
                else ""
            )
        )
    with contextlib.closing(directory_device.open_directory(path)) as device:
        if device.report():
            raise errors.ForeignDeviceError(
                f"{path} is device {present.label} of this node and holds data, but "
                f"{node_file.path_of(node.told)} does not know it: restore that file, or move it "
                "away and name every device with --devices"
            )
    return present


def _named(
    identity: device_port.DeviceIdentity, label: str, failure_domain: str
) -> device_port.DeviceIdentity:
    domain = failure_domain or label
    for text, flag in ((label, "--label"), (domain, "--failure-domain")):
        if not _NAME.fullmatch(text):
            raise errors.ConfigurationError(
                f"{text!r} cannot be a name: use up to 64 letters, digits, '.', '_' and '-' "
                f"with {flag}"
            )
    return dataclasses.replace(identity, label=label, failure_domain=domain)


def _refuse_taken_label(
    path: pathlib.Path, identity: device_port.DeviceIdentity, node: StoppedNode
) -> None:
    present = {device.identity.label: device.path for device in node.devices.values()}
    # A device that is missing keeps its name, unless this one takes its place.
    missing = {
        member.label: pathlib.Path(member.path)
        for device_id, member in node.membership.members.items()
        if device_id not in node.devices and member.path != str(path)
    }
    taken = {**missing, **present}.get(identity.label)
    if taken is not None:
        raise errors.DuplicateDeviceError(
            f"the label {identity.label} is taken by the device at {taken}: give another with "
            "--label"
        )


def retire(told: settings.Settings, name: str, *, undo: bool = False) -> str:
    """Give a device no new zones from the next start on; what it holds stays readable.

    Args:
        name: Label or id of a device that is attached.
        undo: Take a retiring device back into service.

    Returns:
        One line for the person who asked.

    Durability: on the device itself when this returns.

    Raises:
        ConfigurationError: no such node or device, or a running node.
        StoreReadOnlyError: too few devices would stay for a write to be durable.
    """
    with stopped_node(told) as node:
        device = _find(name, node)
        identity = device.identity
        staying = [
            other.identity
            for other in node.devices.values()
            if other is not device and not other.identity.retiring
        ]
        if undo:
            device.write_identity(dataclasses.replace(identity, retiring=False))
            return f"device {identity.label} is in service again from the next start on"
        needed = max(told.parity_shards + 1, told.journal_replica_count)
        if len(staying) < needed:
            raise errors.StoreReadOnlyError(
                f"device {identity.label} cannot retire: {len(staying)} devices would stay in "
                f"service and {needed} are needed ({told.parity_shards} parity shards, "
                f"{told.journal_replica_count} copies of the log); add a device first"
            )
        device.write_identity(dataclasses.replace(identity, retiring=True))
    return (
        f"device {identity.label} is retiring: from the next start on it gets nothing new and "
        f"what it holds moves away in the background, so leave it attached until "
        f"`couchestor status` shows none of its zones in use{_narrower(told, len(staying))}"
    )


def _narrower(told: settings.Settings, staying_count: int) -> str:
    wanted = geometry.StripeGeometry(told.data_shards, told.parity_shards)
    found = geometry.shrink_to_healthy(wanted, staying_count)
    if found is None or found == wanted:
        return ""
    return f". {staying_count} devices stay, so new stripes are {found}, not {wanted}"


def _find(name: str, node: StoppedNode) -> directory_device.DirectoryDevice:
    found = [
        device
        for device in node.devices.values()
        if name in (device.identity.label, device.identity.device_id)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        both = ", ".join(device.identity.device_id for device in found)
        raise errors.ConfigurationError(f"several devices are called {name}: name one of {both}")
    missing = [
        member
        for device_id, member in node.membership.members.items()
        if device_id not in node.devices and name in (member.label, device_id)
    ]
    if missing:
        raise errors.ConfigurationError(
            f"device {name} is missing (last seen at {missing[0].path}): nothing is written to it; "
            "attach it to retire it"
        )
    known = ", ".join(sorted(device.identity.label for device in node.devices.values()))
    raise errors.ConfigurationError(f"no device is called {name}; this node has {known}")
