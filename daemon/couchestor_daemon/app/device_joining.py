"""One device becomes a member of a node, or a member comes back: what is checked and written.

What a crash at each line of ``join`` leaves behind:

    line                                       device                       node.json
    lock the folder                            an empty lock file           old
    format it, epoch of the last start         ours, not a member           old
    save node.json                             ours                         a member

In the middle the folder is in no configuration or refused by name, holds nothing, and the same
command finishes what was begun. ``attach`` writes the device first as well: newer than the file
says it is a member in good order, older it would be refused.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import re
from collections.abc import Iterator, Mapping

from couchestor_daemon.adapters import directory_device, directory_layout
from couchestor_daemon.app import device_set, node_file, settings
from couchestor_daemon.ports import device as device_port
from couchestor_domain import errors, ids

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

Devices = Mapping[ids.DeviceId, directory_device.DirectoryDevice]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HeldNode:
    """A node whose devices nobody else can change meanwhile. ``devices`` are those that are
    there."""

    told: settings.Settings
    membership: node_file.Membership
    devices: Devices


@contextlib.contextmanager
def opened(told: settings.Settings, *, without: pathlib.Path | None = None) -> Iterator[HeldNode]:
    """The devices of a node whose locks the caller holds.

    Args:
        told: Settings that name added devices too.
        without: A path not to open even if it is configured: it is about to be formatted.

    Raises:
        ConfigurationError: there is no node.
        DeviceError: a device does not belong to the node.
    """
    membership = node_file.load(told)
    if membership is None:
        raise errors.ConfigurationError(f"there is no node under {told.data_dir}")
    if without is not None:
        others = tuple(path for path in told.device_paths if path != without)
        told = dataclasses.replace(told, devices=others)
    with contextlib.ExitStack() as stack:
        devices = device_set.open_all(told, membership)
        for device in devices.values():
            stack.callback(device.close)
        yield HeldNode(told=told, membership=membership, devices=devices)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """A member. Whoever gets this closes ``lock_fd`` when the device is not to be held."""

    identity: device_port.DeviceIdentity
    path: pathlib.Path
    lock_fd: int

    def __str__(self) -> str:
        return (
            f"device {self.identity.label} at {self.path}: {self.identity.zone_count} zones of "
            f"{self.identity.zone_capacity_bytes} bytes, failure domain "
            f"{self.identity.failure_domain}"
        )


def join(
    node: HeldNode, path: pathlib.Path, *, label: str, failure_domain: str, configured: bool
) -> Joined:
    """Format an empty folder and make it a member.

    Args:
        node: Opened without ``path``.
        label: Its name among the node's devices; the folder's name when empty.
        failure_domain: Devices with the same value may fail together; the label when empty.
        configured: The configuration names the path, so that the file need not remember it.

    Durability: when this returns the device is a member after any crash. Repeating it after one
    finishes what was begun.

    Raises:
        ConfigurationError: an impossible name, or too little room.
        DeviceGoneError: no such folder.
        ForeignDeviceError: the folder holds something else, or the device of another node.
        DuplicateDeviceError: it is a member already, or its label is taken.
        DeviceInUseError: another daemon holds the folder.
    """
    begun = _refuse_unfit(path, node)
    identity = begun or device_set.new_identity(node.told, path, node.membership.node_id)
    identity = _named(identity, label or path.name, failure_domain)
    _refuse_taken_label(path, identity, node)
    identity = dataclasses.replace(
        identity,
        joined_epoch=node.membership.epoch,
        retiring=False,  # one that was taken out and joins anew
        members_count=len(node.membership.members.keys() | {identity.device_id}),
    )
    lock_fd = directory_layout.lock(path, identity.device_id)
    try:
        if begun is None:
            device_set.format_one(node.told, path, identity)
        else:
            with contextlib.closing(directory_device.open_directory(path)) as device:
                device.write_identity(identity)
        node_file.save(
            node.told,
            node_file.with_member(node.membership, identity, path, added=not configured),
        )
    except BaseException:
        os.close(lock_fd)
        raise
    return Joined(identity=identity, path=path, lock_fd=lock_fd)


def _refuse_unfit(path: pathlib.Path, node: HeldNode) -> device_port.DeviceIdentity | None:
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
                "away and name every device with --devices; empty the folder if the device was "
                "taken out"
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
    path: pathlib.Path, identity: device_port.DeviceIdentity, node: HeldNode
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


def attachable(node: HeldNode, path: pathlib.Path) -> device_port.DeviceIdentity:
    """Who the device at ``path`` is, when it may come back into service there.

    Args:
        node: Opened without ``path``.

    Raises:
        DeviceError: nothing of this node, an old copy, or a device that is there already.
        ConfigurationError: it is new here.
    """
    identity = directory_layout.read_identity(path)
    if (
        identity.node_id == node.membership.node_id
        and identity.device_id not in node.membership.members
    ):
        raise errors.ConfigurationError(
            f"{path} carries device {identity.label}, which is no member: `couchestor device add "
            f"{path}` makes it one"
        )
    device_set.check_member(path, identity, node.membership)
    twin = node.devices.get(identity.device_id)
    if twin is not None:
        raise device_set.same_device(path, twin.path, identity)
    return identity


def attach(node: HeldNode, path: pathlib.Path) -> device_port.DeviceIdentity:
    """Note that a member is there again, maybe at another path. Its epoch becomes the newest, so
    that every other copy of it is an old one from now on.

    Args:
        node: Opened without ``path``, whose lock the caller holds.

    Raises: as ``attachable``.
    """
    identity = attachable(node, path)
    identity = dataclasses.replace(
        identity,
        joined_epoch=node.membership.epoch + 1,
        members_count=len(node.membership.members),
    )
    with contextlib.closing(directory_device.open_directory(path)) as device:
        device.write_identity(identity)
    node_file.save(node.told, node_file.with_member(node.membership, identity, path, added=True))
    return identity
