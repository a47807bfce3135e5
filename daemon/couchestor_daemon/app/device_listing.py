"""What ``couchestor device list`` tells: each device, its state and its room."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Final

from couchestor_daemon.adapters import directory_device
from couchestor_daemon.app import device_set, node_file, settings
from couchestor_daemon.ports import device as device_port
from couchestor_domain import errors, units

NEARLY_FULL_RATIO: Final = 0.95


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRow:
    """One device. ``state`` is present, retiring, missing, refused, or new (before the first
    start); of a running node also failed, suspected (and being tested) or held (given nothing
    new). ``reason`` says why it is not simply present."""

    label: str
    path: str
    state: str
    reason: str = ""
    health: str = ""
    """``good``, or what is the matter with the medium."""
    failure_domain: str = ""
    device_id: str = ""
    capacity_bytes: int | None = None
    used_bytes: int | None = None
    """In zones, written."""
    available_bytes: int | None = None
    """What can still be written: the file system below may have less than the zones would take."""


def survey(told: settings.Settings) -> list[DeviceRow]:
    """Every device the configuration names or the node remembers. Locks nothing, changes nothing.

    Raises:
        ConfigurationError: ``node.json`` cannot be read.
    """
    membership = node_file.load(told)
    told = node_file.with_added_devices(told)
    rows: list[DeviceRow] = []
    places: dict[str, str] = {}
    for path in told.device_paths:
        row = _row(path, membership)
        if row.device_id in places and row.state in ("present", "retiring"):
            row = _refused(row, f"the same device as {places[row.device_id]}: name it once")
        if row.device_id:
            places.setdefault(row.device_id, row.path)
        rows.append(row)
    if membership is not None:
        listed = {row.device_id for row in rows}
        for device_id, member in membership.members.items():
            if device_id not in listed and not _stands_for(rows, member):
                rows.append(
                    DeviceRow(
                        label=member.label,
                        path=member.path,
                        state="missing",
                        reason="no path of the configuration leads to it",
                        failure_domain=member.failure_domain,
                        device_id=device_id,
                    )
                )
    return rows


def _stands_for(rows: Sequence[DeviceRow], member: node_file.Member) -> bool:
    """Whether a row without an identity already tells of the member that was at its path."""
    return any(row.path == member.path and not row.device_id for row in rows)


def _row(path: pathlib.Path, membership: node_file.Membership | None) -> DeviceRow:
    try:
        device = directory_device.open_directory(path)
    except (errors.DeviceGoneError, errors.UnformattedDeviceError) as exc:
        if membership is None:
            return DeviceRow(label=path.name, path=str(path), state="new")
        return _missing(path, membership, exc)
    except errors.DeviceError as exc:
        return DeviceRow(label=path.name, path=str(path), state="refused", reason=exc.message)
    try:
        row = _opened_row(device)
        try:
            device_set.check_member(path, device.identity, membership)
        except errors.DeviceError as exc:
            return _refused(row, exc.message)
        return row
    finally:
        device.close()


def _missing(
    path: pathlib.Path, membership: node_file.Membership, exc: errors.DeviceError
) -> DeviceRow:
    for device_id, member in membership.members.items():
        if member.path == str(path):
            return DeviceRow(
                label=member.label or path.name,
                path=str(path),
                state="missing",
                reason=exc.message,
                failure_domain=member.failure_domain,
                device_id=device_id,
            )
    return DeviceRow(
        label=path.name,
        path=str(path),
        state="missing",
        reason=f"no device of this node was ever seen here; `couchestor device add {path}` makes "
        "it one",
    )


def _refused(row: DeviceRow, reason: str) -> DeviceRow:
    return dataclasses.replace(row, state="refused", reason=reason)


def _opened_row(device: directory_device.DirectoryDevice) -> DeviceRow:
    identity = device.identity
    try:
        space = device.space()
        used = sum(report.write_pointer_bytes for report in device.report())
    except errors.DeviceError as exc:
        return DeviceRow(
            label=identity.label,
            path=str(device.path),
            state="missing",
            reason=exc.message,
            failure_domain=identity.failure_domain,
            device_id=identity.device_id,
        )
    return DeviceRow(
        label=identity.label,
        path=str(device.path),
        state="retiring" if identity.retiring else "present",
        reason="gets nothing new; its data is read" if identity.retiring else "",
        health=_health(device.path, space, used),
        failure_domain=identity.failure_domain,
        device_id=identity.device_id,
        capacity_bytes=space.capacity_bytes,
        used_bytes=used,
        available_bytes=space.available_bytes,
    )


def _health(path: pathlib.Path, space: device_port.DeviceSpace, used_bytes: int) -> str:
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return "read-only file system"
    if space.available_bytes < space.capacity_bytes * (1 - NEARLY_FULL_RATIO):
        return "nearly full"
    if space.available_bytes < (space.capacity_bytes - used_bytes) * 0.9:
        return "file system has less room than its zones"
    return "good"


def table(rows: Sequence[DeviceRow]) -> str:
    """The rows for a person, with a line below for each device that is not simply present."""
    if not rows:
        return "no devices"
    heads = ("DEVICE", "STATE", "USED", "CAPACITY", "HEALTH", "FAILURE DOMAIN", "PATH")
    cells = [
        heads,
        *(
            (
                row.label,
                row.state,
                _size(row.used_bytes),
                _size(row.capacity_bytes),
                row.health or "-",
                row.failure_domain or "-",
                row.path,
            )
            for row in rows
        ),
    ]
    widths = [max(len(line[i]) for line in cells) for i in range(len(heads))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]
    notes = [f"{row.label}: {row.state}: {row.reason}" for row in rows if row.reason]
    if any(row.state == "new" for row in rows):
        notes.append("the first start of the node formats what is new")
    return "\n".join([*lines, *([""] if notes else []), *notes])


def _size(count_bytes: int | None) -> str:
    if count_bytes is None:
        return "-"
    for unit, size in (("TiB", units.TIB), ("GiB", units.GIB), ("MiB", units.MIB)):
        if count_bytes >= size:
            return f"{count_bytes / size:.1f} {unit}"
    return f"{count_bytes / units.KIB:.0f} KiB"
