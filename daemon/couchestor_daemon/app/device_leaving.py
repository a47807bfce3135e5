"""Devices leave a node: which may retire or be taken out, and what is written about it."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib

from couchestor_daemon.adapters import directory_device, directory_layout
from couchestor_daemon.app import device_joining, node_file, settings
from couchestor_daemon.services import device_use
from couchestor_domain import errors, geometry, ids


def retire(
    node: device_joining.HeldNode, name: str, *, undo: bool = False
) -> directory_device.DirectoryDevice:
    """Write on a device that it is given no new zones, or that it is given them again.

    Durability: on the device itself when this returns, in one rename.

    Raises:
        ConfigurationError: no such device is attached.
        StoreReadOnlyError: too few devices would stay for a write to be durable.
    """
    device = attached(node, name)
    if not undo:
        refuse_too_few(node, device.identity.device_id)
    write_retiring(node, device.identity.device_id, undo=undo)
    return device


def write_retiring(
    node: device_joining.HeldNode, device_id: ids.DeviceId, *, undo: bool = False
) -> None:
    """Write it without asking whether enough devices stay. Durable on return, in one rename."""
    device = node.devices[device_id]
    device.write_identity(dataclasses.replace(device.identity, retiring=not undo))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """What is to be done so that one device takes the place of another."""

    old_id: ids.DeviceId
    label: str
    """Of the old one."""
    label_of_new: str
    """The old one's, when the new one stands where it was and it is missing; else empty."""
    is_missing: bool
    """The old one is not there: what it held is rebuilt. Else it retires."""
    has_joined: bool
    """An earlier command has made the new one a member."""


def plan_replacement(node: device_joining.HeldNode, name: str, path: pathlib.Path) -> Replacement:
    """Decide how the device called ``name`` gives its place to the one at ``path``.

    Args:
        node: Opened without ``path``.

    Raises:
        ConfigurationError: no such device, or it would replace itself.
        StoreReadOnlyError: the old one cannot retire even then.
    """
    present_id = ""
    with contextlib.suppress(errors.DeviceError):
        present_id = directory_layout.read_identity(path).device_id
    old_id = member(node, name)
    found = node.membership.members[old_id]
    if present_id == old_id:
        raise errors.ConfigurationError(
            f"{path} is device {found.label} itself: name an empty folder to replace it with"
        )
    has_joined = present_id in node.membership.members
    is_missing = old_id not in node.devices
    if not is_missing:
        refuse_too_few(node, old_id, joining_count=1)
    return Replacement(
        old_id=old_id,
        label=found.label,
        label_of_new=found.label if is_missing and found.path == str(path) else "",
        is_missing=is_missing,
        has_joined=has_joined,
    )


def staying_count(node: device_joining.HeldNode, leaving: ids.DeviceId) -> int:
    """Devices that would be given zones without one of them."""
    return sum(
        1
        for device_id, device in node.devices.items()
        if device_id != leaving and not device.identity.retiring
    )


def refuse_too_few(
    node: device_joining.HeldNode, leaving: ids.DeviceId, *, joining_count: int = 0
) -> None:
    """Refuse that a device retires when a write would not be durable any more.

    Args:
        joining_count: Devices that join before.

    Raises:
        StoreReadOnlyError: too few would stay.
    """
    told = node.told
    staying = staying_count(node, leaving) + joining_count
    needed = max(told.parity_shards + 1, told.journal_replica_count)
    if staying < needed:
        raise errors.StoreReadOnlyError(
            f"device {node.devices[leaving].identity.label} cannot retire: {staying} devices would "
            f"stay in service and {needed} are needed ({told.parity_shards} parity shards, "
            f"{told.journal_replica_count} copies of the log); add a device first"
        )


def narrower(told: settings.Settings, staying_count: int) -> str:
    """What to add for a person when new stripes get fewer data shards; else nothing."""
    wanted = geometry.StripeGeometry(told.data_shards, told.parity_shards)
    found = geometry.shrink_to_healthy(wanted, staying_count)
    if found is None or found == wanted:
        return ""
    return f". {staying_count} devices stay, so new stripes are {found}, not {wanted}"


def attached(node: device_joining.HeldNode, name: str) -> directory_device.DirectoryDevice:
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


def member(node: device_joining.HeldNode, name: str) -> ids.DeviceId:
    """The member called ``name``: its label, its id, or the path it was last seen at.

    Of several with one name, the one that is on its way out: missing or retiring.

    Raises:
        ConfigurationError: there is none, or it is not clear which.
    """
    found = [
        ids.DeviceId(device_id)
        for device_id, member in node.membership.members.items()
        if name in (member.label, device_id, member.path)
    ]
    leaving = [each for each in found if _is_leaving(node, each)]
    if len(found) == 1 or len(leaving) == 1:
        return (leaving or found)[0]
    if found:
        raise errors.ConfigurationError(
            f"several devices are called {name}: name one of {', '.join(found)}"
        )
    known = ", ".join(sorted(member.label for member in node.membership.members.values()))
    raise errors.ConfigurationError(f"no device is called {name}; this node has {known}")


def _is_leaving(node: device_joining.HeldNode, device_id: ids.DeviceId) -> bool:
    device = node.devices.get(device_id)
    return device is None or device.identity.retiring


def refuse_removal(node: device_joining.HeldNode, device_id: ids.DeviceId) -> None:
    """Refuse to take out what serves, or what the coding needs.

    Raises:
        ConfigurationError: it has not retired, or too few members would be left.
    """
    label = node.membership.members[device_id].label
    if not _is_leaving(node, device_id):
        raise errors.ConfigurationError(
            f"device {label} is in service: `couchestor device retire {label}` empties it first"
        )
    told = node.told
    left = len(node.membership.members) - 1
    needed = max(told.data_shards + told.parity_shards, told.journal_replica_count)
    if left < needed:
        raise errors.ConfigurationError(
            f"device {label} cannot be taken out: {left} devices would be left and "
            f"{told.data_shards}+{told.parity_shards} with {told.journal_replica_count} copies of "
            f"the log needs {needed}; add one first, or use `couchestor device replace`"
        )


def refuse_used(
    node: device_joining.HeldNode, device_id: ids.DeviceId, used: device_use.DeviceUse
) -> None:
    """Refuse to take out a device that something refers to.

    Raises:
        StoreReadOnlyError: with how much that is.
    """
    if used.is_none:
        return
    label = node.membership.members[device_id].label
    how = "it is being emptied" if device_id in node.devices else "they are being rebuilt or moved"
    raise errors.StoreReadOnlyError(
        f"device {label} cannot be taken out yet: the index refers to {used} on it; {how} by the "
        "running node, `couchestor status` shows how far that is"
    )


def remove(node: device_joining.HeldNode, device_id: ids.DeviceId) -> pathlib.Path:
    """Strike a device off ``node.json``; returns where it was seen last.

    A path that the configuration names is remembered as one to leave alone.
    """
    path = node.membership.members[device_id].path
    members = {key: value for key, value in node.membership.members.items() if key != device_id}
    still_used = any(member.path == path for member in members.values() if member.path)
    removed = node.membership.removed_paths | (frozenset() if still_used else {path})
    node_file.save(
        node.told, dataclasses.replace(node.membership, members=members, removed_paths=removed)
    )
    return pathlib.Path(path)
