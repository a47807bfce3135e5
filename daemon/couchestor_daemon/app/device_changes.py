"""Devices join, retire and leave while the node is stopped: commands that hold all its locks.

On a running node its supervisor does the same (``live_devices``); what is checked and written is
in ``device_joining`` and ``device_leaving`` for both, with a table of crashes.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import Final

from couchestor_daemon.adapters import directory_device
from couchestor_daemon.app import (
    data_dir_lock,
    device_joining,
    device_leaving,
    device_set,
    node_check,
    node_file,
    preparation,
    settings,
)
from couchestor_daemon.services import device_use
from couchestor_domain import errors, ids

_STOP_FIRST: Final = (
    "it does not listen for commands (it is starting, stopping, or of an older version): repeat "
    "the command when it serves, or stop it, then repeat the command"
)


@contextlib.contextmanager
def stopped_node(
    told: settings.Settings, *, without: pathlib.Path | None = None
) -> Iterator[device_joining.HeldNode]:
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
        stack.callback(os.close, data_dir_lock.take(told, advice=_STOP_FIRST))
        told = node_file.with_added_devices(told)
        locked = [path for path in told.device_paths if path != without]
        for fd in device_set.lock_all(locked):
            stack.callback(os.close, fd)
        yield stack.enter_context(device_joining.opened(told, without=without))


def add(
    told: settings.Settings, path: pathlib.Path, *, label: str = "", failure_domain: str = ""
) -> str:
    """Format an empty folder and make it a member of the node, from its next start on.

    Returns:
        One line for the person who asked.

    Durability, Raises: as ``device_joining.join`` and ``stopped_node``.
    """
    configured = path in told.device_paths
    with stopped_node(told, without=path) as node:
        joined = device_joining.join(
            node, path, label=label, failure_domain=failure_domain, configured=configured
        )
        os.close(joined.lock_fd)
    where = "the configuration names it" if configured else "node.json remembers its path"
    return f"added {joined}; the next `couchestor serve` uses it ({where})"


def retire(told: settings.Settings, name: str, *, undo: bool = False) -> str:
    """Give a device no new zones from the next start on; what it holds stays readable.

    Args:
        name: Label or id of a device that is attached.
        undo: Take a retiring device back into service.

    Returns:
        One line for the person who asked.

    Durability, Raises: as ``device_leaving.retire`` and ``stopped_node``.
    """
    with stopped_node(told) as node:
        device = device_leaving.retire(node, name, undo=undo)
        label = device.identity.label
        if undo:
            return f"device {label} is in service again from the next start on"
        staying_count = device_leaving.staying_count(node, device.identity.device_id)
    return (
        f"device {label} is retiring: from the next start on it gets nothing new and what it holds "
        f"moves away in the background, so leave it attached until `couchestor status` shows "
        f"none of its zones in use{device_leaving.narrower(told, staying_count)}"
    )


def remove(told: settings.Settings, name: str) -> str:
    """Take a device that holds nothing out of the node.

    Args:
        name: Label, id or path of a device that has retired or is missing.

    Returns:
        One line for the person who asked.

    Raises:
        ConfigurationError: no such device, one in service, too few would be left, or the index is
            not to be trusted.
        StoreReadOnlyError: something refers to it.
    """
    with stopped_node(told) as node:
        device_id = device_leaving.member(node, name)
        device_leaving.refuse_removal(node, device_id)
        device_leaving.refuse_used(node, device_id, _use(told, device_id))
        label = node.membership.members[device_id].label
        path = device_leaving.remove(node, device_id)
    return f"device {label} at {path} is no device of this node any more"


def _use(told: settings.Settings, device_id: ids.DeviceId) -> device_use.DeviceUse:
    if not node_check.is_index_trusted(told):
        raise errors.ConfigurationError(
            "the index was not synced before the machine stopped, so nobody can say what is on the "
            "device: start the node, which rebuilds it, then repeat the command"
        )
    with contextlib.closing(preparation.open_index(told)) as index:
        return device_use.count(index, device_id)


def attach(told: settings.Settings, path: pathlib.Path) -> str:
    """Note that a member is at ``path`` again, for the next start.

    Returns:
        One line for the person who asked.

    Raises: as ``device_joining.attach`` and ``stopped_node``.
    """
    with stopped_node(told, without=path) as node:
        with contextlib.closing(directory_device.open_directory(path)) as device:
            lock_fd = device.lock()
        try:
            identity = device_joining.attach(node, path)
        finally:
            os.close(lock_fd)
    return f"device {identity.label} is at {path}; the next `couchestor serve` uses it"


def replace(
    told: settings.Settings,
    name: str,
    path: pathlib.Path,
    *,
    label: str = "",
    failure_domain: str = "",
) -> str:
    """Make an empty folder a member and have another leave, from the next start on.

    Args:
        name: Label, id or path of the device that leaves.
        label: As for ``add``; the name of a missing device whose place at ``path`` it takes.

    Returns:
        One line for the person who asked.

    Raises: as ``add`` and ``retire``.
    """
    configured = path in told.device_paths
    with stopped_node(told, without=path) as node:
        plan = device_leaving.plan_replacement(node, name, path)
        if not plan.has_joined:
            joined = device_joining.join(
                node,
                path,
                label=label or plan.label_of_new,
                failure_domain=failure_domain,
                configured=configured,
            )
            os.close(joined.lock_fd)
        if not plan.is_missing:
            device_leaving.write_retiring(node, plan.old_id)
    leaving = (
        f"its shards are rebuilt; when `couchestor status` tells of no group that waits, "
        f"`couchestor device remove {plan.old_id}` forgets it"
        if plan.is_missing
        else f"it retires; when it is empty, `couchestor device remove {plan.label}` takes it out"
    )
    return f"from the next start on {path} is in service in place of device {plan.label}: {leaving}"
