"""The folder of a directory device: what is in it, who it is, who holds it.

<path>/identity         superblock (formats.identity), replaced by rename
<path>/identity.lock    flock held by the daemon; text: its process id
<path>/zones/           one file per written zone: %08d.zone, write pointer = file size
"""

from __future__ import annotations

import errno
import fcntl
import os
import pathlib
from typing import Final

from couchestor_daemon.adapters import device_errors
from couchestor_daemon.formats import identity as identity_format
from couchestor_daemon.ports import device as device_port
from couchestor_domain import errors

IDENTITY: Final = "identity"
IDENTITY_NEW: Final = "identity.new"
LOCK: Final = "identity.lock"
ZONES: Final = "zones"
_BENIGN: Final = frozenset({IDENTITY_NEW, LOCK, ZONES, "lost+found"})
"""What a half-finished format or an empty file system leaves."""


def format_folder(path: pathlib.Path, identity: device_port.DeviceIdentity) -> None:
    """Make the folder a device. Repeating it with the same device id is harmless.

    Durability: on media when this returns; a crash before leaves a folder that can be formatted.

    Raises:
        ForeignDeviceError: the folder holds something else, or another device of ours.
        DeviceCorruptError: the folder has an identity that does not verify.
    """
    superblock = identity_format.pack(identity)
    with device_errors.mapped("format", place=str(path), device=identity.device_id):
        path.mkdir(parents=True, exist_ok=True)
        names = {entry.name for entry in path.iterdir()}
        if IDENTITY in names:
            present = read_identity(path)
            if present.device_id != identity.device_id:
                raise errors.ForeignDeviceError(
                    f"{path} is already device {present.label} ({present.device_id}) of node "
                    f"{present.node_id}: empty the folder to give it away",
                    path=str(path),
                    device=present.device_id,
                )
        else:
            check_unused(path)
        (path / ZONES).mkdir(exist_ok=True)
        replace_identity(path, superblock)
        # The folder's own entry must survive too, or the whole device vanishes with the power.
        _sync_folder(path.parent)


def check_unused(path: pathlib.Path) -> None:
    """Refuse a folder that holds anything but what a half-finished format leaves.

    Raises:
        ForeignDeviceError: it does.
        OSError: the folder cannot be read.
    """
    names = {entry.name for entry in path.iterdir()}
    if names - _BENIGN or (ZONES in names and any((path / ZONES).iterdir())):
        raise errors.ForeignDeviceError(
            f"{path} is not empty and is not a CoucheStor device: choose an empty folder",
            path=str(path),
        )


def replace_identity(path: pathlib.Path, superblock: bytes) -> None:
    """Atomically and durably replace the identity file. Raises OSError."""
    fd = os.open(path / IDENTITY_NEW, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        written = os.write(fd, superblock)
        if written != len(superblock):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(path / IDENTITY_NEW, path / IDENTITY)
    _sync_folder(path)


def read_identity(path: pathlib.Path) -> device_port.DeviceIdentity:
    """Who the folder says it is.

    Raises:
        DeviceGoneError: no such folder.
        UnformattedDeviceError: no identity in the folder.
        DeviceCorruptError: the identity does not verify.
    """
    with device_errors.mapped("open", place=str(path), device=str(path)):
        if not path.is_dir():
            raise errors.DeviceGoneError(f"{path} is not a folder (not mounted?)", path=str(path))
        try:
            superblock = (path / IDENTITY).read_bytes()
        except FileNotFoundError as exc:
            raise errors.UnformattedDeviceError(
                f"{path} carries no identity: format it first", path=str(path)
            ) from exc
    try:
        return identity_format.unpack(superblock)
    except errors.DeviceError as exc:
        # Renamed into place only when complete, so anything else in the file is damage.
        raise errors.DeviceCorruptError(
            f"{path / IDENTITY} is damaged: {exc}", path=str(path)
        ) from exc


def open_zones(path: pathlib.Path, device: str) -> int:
    """Descriptor of the zones folder, its entries made durable.

    Raises:
        DeviceCorruptError: the folder is missing although the device was formatted.
    """
    with device_errors.mapped("open", place=str(path), device=device):
        try:
            fd = os.open(path / ZONES, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise errors.DeviceCorruptError(
                f"{path} has an identity but no {ZONES} folder: its data was deleted",
                path=str(path),
                device=device,
            ) from exc
        try:
            os.fsync(fd)  # A process that died may have left entries that are only in memory.
        except OSError:
            os.close(fd)
            raise
        return fd


def lock(path: pathlib.Path, device: str) -> int:
    """Take the folder for this process and its children.

    Returns:
        An inheritable descriptor; the lock lasts until every copy of it is closed.

    Raises:
        DeviceInUseError: another process holds it; ``context['pid']`` is its id when known.
    """
    with device_errors.mapped("lock", place=str(path), device=device):
        fd = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _lock_fd(fd, path, device)
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode("ascii"), 0)
            os.set_inheritable(fd, True)
        except BaseException:
            os.close(fd)
            raise
        return fd


def _lock_fd(fd: int, path: pathlib.Path, device: str) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        text = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
        pid = int(text) if text.isascii() and text.isdigit() else None
        raise errors.DeviceInUseError(
            f"{path} is held by another daemon (process {pid or 'unknown'}): stop it first",
            path=str(path),
            device=device,
            pid=pid,
        ) from exc


def _sync_folder(path: pathlib.Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
