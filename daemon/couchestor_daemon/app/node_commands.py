"""What the command line asks of a node that it does not serve."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator

from couchestor_daemon.adapters import directory_layout
from couchestor_daemon.app import (
    data_dir_lock,
    device_set,
    node_file,
    preparation,
    settings,
)
from couchestor_domain import errors


@contextlib.contextmanager
def stopped(told: settings.Settings) -> Iterator[settings.Settings]:
    """The settings of a node that cannot be started meanwhile, its added devices named.

    Raises:
        DataDirInUseError: it runs.
        ConfigurationError: there is none, or it is another user's.
        DeviceInUseError: another daemon holds a device.
    """
    if not _is_node(told):
        raise errors.ConfigurationError(
            f"there is no node under {told.data_dir}: name its --data-dir or --config"
        )
    node_file.check_user(told)
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, data_dir_lock.take(told, advice="stop it first"))
        told = node_file.with_added_devices(told)
        for fd in device_set.lock_all(told.device_paths):
            stack.callback(os.close, fd)
        yield told


def _is_node(told: settings.Settings) -> bool:
    """Whether there is anything of a node. ``node.json`` may be lost, and so may devices."""
    if not told.data_dir.is_dir():
        return False
    return os.path.lexists(node_file.path_of(told)) or any(map(_has_joined, told.device_paths))


def _has_joined(path: pathlib.Path) -> bool:
    try:
        # 0 where a first start was cut short: the next one makes the node.
        return directory_layout.read_identity(path).joined_epoch > 0
    except (errors.DeviceGoneError, errors.UnformattedDeviceError):
        return False
    except errors.DeviceError:
        return True  # Not well, but something that has to be looked at.


def recover(told: settings.Settings) -> str:
    """Rebuild the index from the log on the devices; the earlier one is kept aside.

    Raises:
        ConfigurationError: there is no node, or it is running.
        DeviceInUseError: another daemon holds a device.
        LogDamagedError: acknowledged mutations are on no readable device.
    """
    with stopped(told) as told:
        summary = preparation.prepare(told, recover_asked=True)
        # Nothing has changed the index since it was synced, nor will anything before the next
        # start.
        preparation.conclude(told)
        complaint = preparation.secrets_complaint(told)
    origin = (
        f"the checkpoint of sequence {summary.checkpoint_sequence} and {{}} after it"
        if summary.checkpoint_sequence
        else "{}"
    ).format(f"{summary.replayed_batches_count} batches")
    return (
        f"rebuilt the index from {origin} on {summary.devices_count} devices "
        f"({summary.missing_count} missing)" + (f"\n{complaint}" if complaint else "")
    )
