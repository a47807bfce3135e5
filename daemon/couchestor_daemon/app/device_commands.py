"""``couchestor device ...``: asks the node that runs, or changes the one that is stopped."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Sequence

from couchestor_daemon.app import (
    control_socket,
    device_changes,
    device_listing,
    node_file,
    settings,
)


def act(arguments: argparse.Namespace, told: settings.Settings) -> str:
    """Carry out the command; returns what to print.

    Raises:
        CouchestorError: refused, by the node that runs or here.
    """
    if arguments.action == "list":
        rows = listed(told)
        if arguments.json:
            return json.dumps([dataclasses.asdict(row) for row in rows])
        return device_listing.table(rows)
    label = getattr(arguments, "label", "")
    failure_domain = getattr(arguments, "failure_domain", "")
    undo = getattr(arguments, "undo", False)
    name = getattr(arguments, "name", "")
    path = _absolute(getattr(arguments, "path", ""))
    stopped: dict[str, Callable[[], str]] = {
        "add": lambda: device_changes.add(told, path, label=label, failure_domain=failure_domain),
        "attach": lambda: device_changes.attach(told, path),
        "retire": lambda: device_changes.retire(told, name, undo=undo),
        "remove": lambda: device_changes.remove(told, _member_name(name)),
        "replace": lambda: device_changes.replace(
            told, _member_name(name), path, label=label, failure_domain=failure_domain
        ),
    }
    request = control_socket.Request(
        command=arguments.action,
        name=name if arguments.action == "retire" else _member_name(name),
        path=str(path),
        label=label,
        failure_domain=failure_domain,
        undo=undo,
    )
    node_file.check_user(told)
    line = control_socket.ask(told.data_dir, request)
    return stopped[arguments.action]() if line is None else line


def listed(told: settings.Settings) -> Sequence[device_listing.DeviceRow]:
    """Every device; of a running node also which of its processes do without one."""
    rows = device_listing.survey(told)
    line = control_socket.ask(told.data_dir, control_socket.Request(command="states"))
    if line is None:
        return rows
    without: dict[str, list[str]] = json.loads(line)
    mistrusted = _mistrusted(told)
    return [
        dataclasses.replace(
            row,
            state="failed",
            reason=f"out of service in {', '.join(names)}: `couchestor device attach {row.path}` "
            "brings it back, `couchestor device replace` puts another in its place",
        )
        if row.state in ("present", "retiring") and (names := without.get(row.device_id))
        else dataclasses.replace(row, state=verdict[0], reason=verdict[1])
        if row.state == "present" and (verdict := mistrusted.get(row.device_id))
        else row
        for row in rows
    ]


def _mistrusted(told: settings.Settings) -> dict[str, list[str]]:
    """Id of each device that the node that runs does not trust -> its standing, and why."""
    line = control_socket.ask(told.data_dir, control_socket.Request(command="verdicts"))
    return json.loads(line) if line is not None else {}


def _absolute(path: str) -> pathlib.Path:
    return (
        pathlib.Path(os.path.abspath(pathlib.Path(path).expanduser())) if path else pathlib.Path()
    )


def _member_name(name: str) -> str:
    """A label or id as it is; a path as the node knows it."""
    return str(_absolute(name)) if os.sep in name else name
