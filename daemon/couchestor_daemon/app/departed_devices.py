"""Devices that a process of this run took out, as a process that starts later must see them."""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
from collections.abc import Mapping

from couchestor_daemon.adapters import departure_board
from couchestor_daemon.app import metrics, node_file, settings
from couchestor_domain import ids

_log = logging.getLogger("couchestor.devices")


def board(environment: Mapping[str, str] = os.environ) -> departure_board.DepartureBoard | None:
    """Where the processes of a node tell each other; None outside one.

    Args:
        environment: Of its processes.
    """
    folder = environment.get(metrics.DIRECTORY_VARIABLE)
    return departure_board.DepartureBoard(pathlib.Path(folder)) if folder else None


def without_departed(
    told: settings.Settings,
    membership: node_file.Membership | None,
    departures: departure_board.DepartureBoard | None,
) -> settings.Settings:
    """Settings without the devices that have left in this run: they are not even opened.

    A command may still be under way at such a device, and opening it may wait for ever. It is used
    again from the next start of the node, when no process of this run is left.
    """
    if membership is None or departures is None:
        return told
    reasons = {str(row.device_id): row.reason for row in departures.since(0)}
    paths = {
        member.path: reasons[device_id]
        for device_id, member in membership.members.items()
        if device_id in reasons
    }
    # A dead medium may have been replaced at the path it had.
    present = {each.path for key, each in membership.members.items() if key not in reasons}
    paths = {path: reason for path, reason in paths.items() if path not in present}
    left = tuple(path for path in told.device_paths if str(path) not in paths)
    if not left or len(left) == len(told.device_paths):
        return told
    for path, reason in sorted(paths.items()):
        _log.warning("device %s has left and is served around: %s", path, reason)
    return dataclasses.replace(told, devices=left)


def refuse_stalled(
    path: pathlib.Path,
    membership: node_file.Membership,
    departures: departure_board.DepartureBoard | None,
) -> None:
    """Refuse to look at a path whose device hangs: that might hang too.

    Raises:
        DeviceStalledError: see ``DepartureBoard.take_back``.
    """
    if departures is None:
        return
    there = [key for key, each in membership.members.items() if each.path == str(path)]
    departed = {row.device_id for row in departures.since(0)}
    if there and departed.issuperset(there):
        for device_id in there:
            departures.refuse_stalled(ids.DeviceId(device_id))
