"""A folder as a device: one file per zone, write pointer = file size.

Several processes share a device; each zone has one writer at a time, and any process may reset a
zone. So nothing about a zone is remembered: its size and its link count are asked at every
command, which also notices a folder that was deleted while we hold its files.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import threading
from collections.abc import Collection, Iterator, Sequence
from typing import Final

from couchestor_daemon.adapters import device_errors, directory_layout, zone_files, zone_rules
from couchestor_daemon.formats import identity as identity_format
from couchestor_daemon.ports import device as device_port
from couchestor_domain import errors, ids, units

OPEN_FILES_COUNT_MAX: Final = 256
_RWF_DSYNC: Final = os.RWF_DSYNC
_RWF_NOWAIT: Final = os.RWF_NOWAIT


def format_directory(path: str | pathlib.Path, identity: device_port.DeviceIdentity) -> None:
    """Make a folder (created if missing) a device, durably.

    Raises:
        ForeignDeviceError: the folder holds something else, or another device of ours.
        DeviceCorruptError: the folder has an identity that does not verify.
    """
    directory_layout.format_folder(pathlib.Path(path), identity)


def open_directory(
    path: str | pathlib.Path, *, open_files_count_max: int = OPEN_FILES_COUNT_MAX
) -> DirectoryDevice:
    """Open a formatted folder. Does not lock it: see ``DirectoryDevice.lock``.

    Raises:
        DeviceGoneError: no such folder.
        UnformattedDeviceError: the folder carries no identity.
        DeviceCorruptError: its identity does not verify, or its zones folder is missing.
    """
    folder = pathlib.Path(path)
    identity = directory_layout.read_identity(folder)
    return DirectoryDevice(folder, identity, open_files_count_max=open_files_count_max)


class DirectoryDevice:
    """``ports.device.ZonedDevice`` on a folder. Thread-safe; may be inherited over fork."""

    def __init__(
        self,
        path: pathlib.Path,
        identity: device_port.DeviceIdentity,
        *,
        open_files_count_max: int = OPEN_FILES_COUNT_MAX,
    ) -> None:
        self.path = path
        self._place = str(path)
        self._identity = identity
        self._folder_fd = directory_layout.open_zones(path, identity.device_id)
        self._files = zone_files.ZoneFiles(self._folder_fd, limit_count=open_files_count_max)
        self._locks_lock = threading.Lock()
        self._locks: dict[ids.ZoneIndex, threading.Lock] = {}
        self._unflushed: set[ids.ZoneIndex] = set()
        self._closed = False

    @property
    def identity(self) -> device_port.DeviceIdentity:
        return self._identity

    def lock(self) -> int:
        """Take the folder for this process and its children; returns an inheritable descriptor.

        Raises:
            DeviceInUseError: another daemon holds it; names the path and the process.
        """
        return directory_layout.lock(self.path, self._identity.device_id)

    def write_identity(self, identity: device_port.DeviceIdentity) -> None:
        """Replace the identity, e.g. with a newer ``joined_epoch``. Atomic and durable."""
        assert identity.device_id == self._identity.device_id, identity.device_id
        with self._mapped("write identity"):
            self._check_present()
            directory_layout.replace_identity(self.path, identity_format.pack(identity))
        self._identity = identity

    def reread_identity(self) -> None:
        """Learn what another process has written about this device.

        Raises:
            DeviceError: the folder is gone, or carries another device by now.
        """
        found = directory_layout.read_identity(self.path)
        if found.device_id != self._identity.device_id:
            raise errors.ForeignDeviceError(
                f"{self.path} carries device {found.label} ({found.device_id}) by now, not "
                f"{self._identity.label} ({self._identity.device_id})"
            )
        self._identity = found

    def is_folder_of(self, path: pathlib.Path) -> bool:
        """Whether the folder that is open here is the one at ``path``."""
        try:
            mine, there = os.fstat(self._folder_fd), os.stat(path / directory_layout.ZONES)
        except OSError:
            return False
        return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)

    def check_present(self) -> None:
        """Raises DeviceGoneError when the folder was deleted; touches nothing on the medium."""
        with self._mapped("look"):
            self._check_present()

    def report(self) -> Sequence[device_port.ZoneReport]:
        with self._mapped("report"):
            self._check_present()
            reports = [
                zone_rules.zone_report(self._identity, zone, _pointer(size))
                for zone, size in self._zone_sizes()
                if size > 0
            ]
        return sorted(reports)

    def read(
        self,
        zone: ids.ZoneIndex,
        offset_bytes: int,
        buffer: memoryview,
        *,
        past_cache: bool = False,
    ) -> None:
        zone_rules.check_range(
            self._identity, zone, offset_bytes=offset_bytes, length_bytes=buffer.nbytes
        )
        # Here and in ``write`` without context managers, which cost more than the bookkeeping.
        filled = 0
        try:
            found = self._acquire_current(zone, create=False)
            if found is None:
                self._check_present()
            else:
                file, _ = found
                try:
                    if past_cache:
                        filled = file.read_past_cache(buffer, offset_bytes)
                    while filled < buffer.nbytes:
                        got = os.preadv(file.read_fd, [buffer[filled:]], offset_bytes + filled)
                        if got == 0:
                            break
                        filled += got
                finally:
                    self._files.release(file)
        except OSError as exc:
            raise self._translated(exc, "read", zone) from exc
        if filled < buffer.nbytes:
            buffer[filled:] = bytes(buffer.nbytes - filled)

    def try_read(self, zone: ids.ZoneIndex, offset_bytes: int, buffer: memoryview) -> bool:
        """Fill ``buffer`` if that takes no waiting. Never opens a file, never waits for the medium.

        After False the buffer's content is undefined.
        """
        file = self._files.acquire_cached(zone)
        if file is None:
            return False
        try:
            if os.fstat(file.read_fd).st_nlink == 0:
                return False  # Reset elsewhere, or the folder is gone: ``read`` finds out which.
            got = os.preadv(file.read_fd, [buffer], offset_bytes, _RWF_NOWAIT)
        except OSError:
            return False  # Would wait, is not supported, or fails: ``read`` says which.
        finally:
            self._files.release(file)
        return got == buffer.nbytes

    def write(
        self, zone: ids.ZoneIndex, offset_bytes: int, data: memoryview, *, durable: bool
    ) -> None:
        zone_rules.check_range(
            self._identity, zone, offset_bytes=offset_bytes, length_bytes=data.nbytes
        )
        with self._zone_lock(zone):
            try:
                found = self._acquire_current(zone, create=True, offset_bytes=offset_bytes)
                assert found is not None
                file, size_bytes = found
                try:
                    self._append(file, size_bytes, offset_bytes, data, durable=durable)
                finally:
                    self._files.release(file)
            except OSError as exc:
                raise self._translated(exc, "write", zone) from exc

    def flush(self, zones: Collection[ids.ZoneIndex]) -> None:
        for zone in sorted(set(zones)):
            zone_rules.check_zone(self._identity, zone)
            with self._mapped("flush", zone):
                self._flush(zone)

    def reset(self, zone: ids.ZoneIndex) -> None:
        zone_rules.check_zone(self._identity, zone)
        with self._zone_lock(zone), self._mapped("reset", zone):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(zone_files.file_name(zone), dir_fd=self._folder_fd)
            self._files.forget(zone)
            self._unflushed.discard(zone)
            self._check_present()
            # Even when there was no file: an unlink of a process that died may be volatile still.
            os.fsync(self._folder_fd)

    def space(self) -> device_port.DeviceSpace:
        capacity = self._identity.zone_count * self._identity.zone_capacity_bytes
        with self._mapped("space"):
            self._check_present()
            used = sum(size for _, size in self._zone_sizes())
            below = os.fstatvfs(self._folder_fd)
        return device_port.DeviceSpace(
            capacity, max(0, min(capacity - used, below.f_bavail * below.f_frsize))
        )

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._files.close()
            os.close(self._folder_fd)
            self._folder_fd = -1

    def _flush(self, zone: ids.ZoneIndex) -> None:
        # Forgotten before the sync: a write that ends during the sync is not covered by it.
        wrote = zone in self._unflushed
        self._unflushed.discard(zone)
        try:
            with self._files.using(zone, create=False) as file:
                if file is not None:
                    try:
                        os.fdatasync(file.read_fd)
                        self._link(file)
                    except OSError as exc:
                        raise self._translated(exc, "flush", zone, is_sync=True) from exc
                    if wrote:
                        self._check_linked(file)
                elif wrote:
                    raise self._gone(f"{zone_files.file_name(zone)} was deleted before its flush")
                else:
                    self._check_present()
        except BaseException:
            if wrote:
                self._unflushed.add(zone)
            raise

    def _append(
        self,
        file: zone_files.ZoneFile,
        size_bytes: int,
        offset_bytes: int,
        data: memoryview,
        *,
        durable: bool,
    ) -> None:
        pointer = _pointer(size_bytes)
        zone_rules.check_pointer(
            self._identity, file.zone, offset_bytes=offset_bytes, pointer_bytes=pointer
        )
        try:
            self._write_all(file, offset_bytes, data, durable=durable)
        except OSError as exc:
            if exc.errno in device_errors.UNHARMED and os.fstat(file.read_fd).st_size != size_bytes:
                os.ftruncate(file.plain_fd(), size_bytes)
            raise
        if durable:
            # Deleted meanwhile is as good as deleted a moment later: the next command notices.
            self._link(file)
        else:
            self._unflushed.add(file.zone)

    def _write_all(
        self, file: zone_files.ZoneFile, offset_bytes: int, data: memoryview, *, durable: bool
    ) -> None:
        flags = _RWF_DSYNC if durable else 0
        fd = file.direct_fd()
        done = 0
        while done < data.nbytes:
            rest = data[done:] if done else data
            try:
                done += os.pwritev(fd, [rest], offset_bytes + done, flags)
            except OSError as exc:
                # Memory that is not block-aligned, or the odd rest of a short write.
                if exc.errno != errno.EINVAL or fd == file.plain_fd():
                    raise
                fd = file.plain_fd()

    def _link(self, file: zone_files.ZoneFile) -> None:
        # A synced file whose directory entry is lost with the power is lost as a whole.
        if not file.linked:
            os.fsync(self._folder_fd)
            file.linked = True

    def _check_linked(self, file: zone_files.ZoneFile) -> None:
        if os.fstat(file.read_fd).st_nlink == 0:
            self._files.retire(file)
            raise self._gone(f"{zone_files.file_name(file.zone)} was deleted under the daemon")

    def _check_present(self) -> None:
        if os.fstat(self._folder_fd).st_nlink == 0:
            raise self._gone("its folder was deleted")

    def _gone(self, why: str) -> errors.DeviceGoneError:
        return errors.DeviceGoneError(
            f"device {self._identity.label} at {self.path} is gone: {why}",
            device=self._identity.device_id,
            path=str(self.path),
        )

    def _acquire_current(
        self, zone: ids.ZoneIndex, *, create: bool, offset_bytes: int = 0
    ) -> tuple[zone_files.ZoneFile, int] | None:
        """The file that is the zone now, not one another process has reset since it was opened,
        and its size. One look for both: each call of the system hands the interpreter over.

        To be released by the caller.
        """
        while True:
            file = self._files.acquire(zone, create=create)
            if file is None:
                return None
            try:
                status = os.fstat(file.read_fd)
                if status.st_nlink:
                    return file, status.st_size
                self._files.retire(file)
                if create and offset_bytes:
                    # Its writer goes on where it stopped, so no reset was meant.
                    raise self._gone(f"{zone_files.file_name(zone)} was deleted under the daemon")
            except BaseException:
                self._files.release(file)
                raise
            self._files.release(file)

    def _zone_sizes(self) -> Iterator[tuple[ids.ZoneIndex, int]]:
        # A description of its own: scandir moves the offset, which duplicates share over fork.
        fd = self._files.open(".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    zone = zone_files.zone_of(entry.name)
                    if zone is not None and zone < self._identity.zone_count:
                        with contextlib.suppress(FileNotFoundError):  # Reset meanwhile.
                            yield zone, entry.stat(follow_symlinks=False).st_size
        finally:
            os.close(fd)

    def _zone_lock(self, zone: ids.ZoneIndex) -> threading.Lock:
        with self._locks_lock:
            return self._locks.setdefault(zone, threading.Lock())

    def _mapped(
        self, command: str, zone: ids.ZoneIndex | None = None
    ) -> contextlib.AbstractContextManager[None]:
        return device_errors.mapped(
            command, place=self._place_of(zone), device=self._identity.device_id
        )

    def _translated(
        self, exc: OSError, command: str, zone: ids.ZoneIndex, *, is_sync: bool = False
    ) -> errors.DeviceError:
        return device_errors.from_os_error(
            exc,
            command=command,
            place=self._place_of(zone),
            device=self._identity.device_id,
            is_sync=is_sync,
        )

    def _place_of(self, zone: ids.ZoneIndex | None) -> str:
        return self._place if zone is None else f"{self._place}/zones/{zone_files.file_name(zone)}"


def _pointer(size_bytes: int) -> int:
    """Write pointer of a file: a write cut short by a crash may leave less than a block."""
    return units.align_up(size_bytes, units.BLOCK_BYTES)
