"""``<data_dir>/node.json``: who the node is and which devices are its members.

{"version": 2, "node_id": "...", "members": {"<device id>": {"joined_epoch": 7, "label": "d3",
 "failure_domain": "d3", "path": "/mnt/d3", "added": false}, ...}, "removed_paths": ["/mnt/d5"]}

Version 1, which is read, had ``joined_epochs`` in place of ``members``. What the file says of a
device stands on the device as well, but for the path of one that joined later, and of one that was
taken out.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import pwd
from collections.abc import Mapping
from typing import Any, Final

from couchestor_daemon.adapters import directory_layout
from couchestor_daemon.app import settings
from couchestor_daemon.ports import device as device_port
from couchestor_domain import errors, ids

VERSION: Final = 2


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A device that has joined the node."""

    joined_epoch: int
    """Number of the start that last saw it."""
    label: str = ""
    failure_domain: str = ""
    path: str = ""
    """Where it was seen last."""
    added: bool = False
    """It joined by ``couchestor device add`` and the configuration need not name it."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """What the file holds."""

    node_id: ids.NodeId
    members: Mapping[str, Member]
    removed_paths: frozenset[str] = frozenset()
    """Where members were that were taken out: left alone although the configuration may name
    them."""

    @property
    def epoch(self) -> int:
        """The last start's number."""
        return max((member.joined_epoch for member in self.members.values()), default=0)


def path_of(told: settings.Settings) -> pathlib.Path:
    """Where the file is."""
    return told.data_dir / "node.json"


def load(told: settings.Settings) -> Membership | None:
    """The membership, or None before the first start.

    Raises:
        ConfigurationError: the file is there but unreadable.
    """
    path = path_of(told)
    try:
        raw = json.loads(path.read_text("utf-8"))
        if raw.get("version", 1) not in (1, VERSION):
            raise ValueError(f"version {raw['version']} is unknown to this program")
        if "members" in raw:
            members = {str(key): _member(value) for key, value in raw["members"].items()}
        else:
            members = {
                str(key): Member(joined_epoch=int(value))
                for key, value in raw["joined_epochs"].items()
            }
        return Membership(
            node_id=ids.NodeId(str(raw["node_id"])),
            members=members,
            removed_paths=frozenset(map(str, raw.get("removed_paths", []))),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as exc:
        raise errors.ConfigurationError(
            f"{path} cannot be read ({exc}); restore it from a backup, or move it away to take the "
            "membership from the devices"
        ) from exc


def _member(raw: Mapping[str, Any]) -> Member:
    return Member(
        joined_epoch=int(raw["joined_epoch"]),
        label=str(raw["label"]),
        failure_domain=str(raw["failure_domain"]),
        path=str(raw["path"]),
        added=bool(raw["added"]),
    )


def save(told: settings.Settings, membership: Membership) -> None:
    """Replace the file durably: after a crash it is the old one or the new one."""
    path = path_of(told)
    temporary = path.with_suffix(".new")
    document = {
        "version": VERSION,
        "node_id": membership.node_id,
        "members": {
            device_id: dataclasses.asdict(member)
            for device_id, member in sorted(membership.members.items())
        },
        "removed_paths": sorted(membership.removed_paths),
    }
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(document, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def with_member(
    membership: Membership,
    identity: device_port.DeviceIdentity,
    path: pathlib.Path,
    *,
    added: bool,
) -> Membership:
    """A membership with one device more, or with one at another place.

    A device whose place it takes is looked for there no more.
    """
    members = {
        device_id: dataclasses.replace(other, added=False) if other.path == str(path) else other
        for device_id, other in membership.members.items()
    }
    members[identity.device_id] = Member(
        joined_epoch=identity.joined_epoch,
        label=identity.label,
        failure_domain=identity.failure_domain,
        path=str(path),
        added=added,
    )
    return dataclasses.replace(
        membership, members=members, removed_paths=membership.removed_paths - {str(path)}
    )


def check_user(told: settings.Settings) -> None:
    """Refuse to work on the files of another user: what root writes, the daemon could not read.

    Raises:
        ConfigurationError: the file belongs to another user than the one of this process.
    """
    try:
        owner = path_of(told).stat().st_uid
    except FileNotFoundError:
        return
    except OSError as exc:
        raise errors.ConfigurationError(f"cannot use {told.data_dir}: {exc.strerror}") from exc
    if owner != os.geteuid():
        try:
            name = pwd.getpwuid(owner).pw_name
        except KeyError:
            name = f"#{owner}"
        raise errors.ConfigurationError(
            f"the node under {told.data_dir} belongs to user {name}: run this as that user "
            f"(sudo -u {name} couchestor ...), or its daemon could not read what this writes"
        )


def with_added_devices(told: settings.Settings) -> settings.Settings:
    """Settings that also name the devices which joined by ``couchestor device add``, and no more
    those that left by ``couchestor device remove``.

    A device that the configuration names by another path than the remembered one has moved: the
    remembered path is left out.

    Raises:
        ConfigurationError: the file is there but unreadable.
    """
    membership = load(told)
    if membership is None:
        return told
    if membership.removed_paths & set(map(str, told.device_paths)):
        kept = [path for path in told.device_paths if str(path) not in membership.removed_paths]
        told = dataclasses.replace(told, devices=tuple(kept))
    added = {key: member for key, member in membership.members.items() if member.added}
    if not added:
        return told
    configured = {_identity_of(path) for path in told.device_paths}
    known_paths = {os.path.realpath(path) for path in told.device_paths}
    extra = tuple(
        pathlib.Path(member.path)
        for device_id, member in sorted(added.items(), key=lambda item: item[1].path)
        if device_id not in configured and os.path.realpath(member.path) not in known_paths
    )
    return dataclasses.replace(told, devices=told.device_paths + extra) if extra else told


def _identity_of(path: pathlib.Path) -> str:
    try:
        return directory_layout.read_identity(path).device_id
    except errors.DeviceError:
        return ""
