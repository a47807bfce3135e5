"""Open zone files of one directory device: a bounded cache of descriptors.

A file is never closed while a command uses it: ``acquire`` counts users, and a file that was
evicted or retired closes when its last user releases it.

The lock is never held while a file is opened or closed: both may wait for the medium, and an event
loop takes the lock.

What is cached is given up when no descriptor is left for what is needed now.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator

from couchestor_daemon.adapters import device_errors
from couchestor_domain import ids

_DIRECT_REFUSED = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTTY}


def file_name(zone: ids.ZoneIndex) -> str:
    """Name of a zone's file inside the zones folder."""
    return f"{zone:08d}.zone"


def zone_of(name: str) -> ids.ZoneIndex | None:
    """Zone a file name stands for, or None for a file that is not ours."""
    stem, dot, suffix = name.partition(".")
    if len(stem) < 8 or not (stem.isascii() and stem.isdigit()) or dot + suffix != ".zone":
        return None
    return ids.ZoneIndex(int(stem))


class ZoneFile:
    """Descriptors of one zone file. The writing ones are used under the zone's write lock only."""

    __slots__ = (
        "_direct_fd",
        "_files",
        "_plain_fd",
        "linked",
        "read_fd",
        "retired",
        "users",
        "zone",
    )

    def __init__(self, zone: ids.ZoneIndex, *, files: ZoneFiles, read_fd: int) -> None:
        self.zone = zone
        self.read_fd = read_fd
        self.users = 0
        self.retired = False
        self.linked = False
        """The folder was synced since this file was opened, so its directory entry is durable."""
        self._files = files
        self._direct_fd: int | None = None
        self._plain_fd: int | None = None

    def plain_fd(self) -> int:
        """Descriptor that writes through the page cache, from memory of any alignment."""
        if self._plain_fd is None:
            self._plain_fd = self._open(0)
        return self._plain_fd

    def direct_fd(self) -> int:
        """Descriptor that writes past the page cache where the file system can do so."""
        if self._direct_fd is None:
            try:
                self._direct_fd = self._open(os.O_DIRECT)
            except OSError as exc:
                if exc.errno not in _DIRECT_REFUSED:
                    raise
                self._direct_fd = self.plain_fd()
        return self._direct_fd

    def read_past_cache(self, buffer: memoryview, offset_bytes: int) -> int:
        """Fill as much of ``buffer`` as the medium gives past the page cache; how much that is.

        A descriptor for each call: the call waits for the medium anyhow, and readers are many.
        """
        filled = 0
        try:
            # By way of the open file: under its name there may be another one by now.
            fd = self._files.open(f"/proc/self/fd/{self.read_fd}", os.O_RDONLY | os.O_DIRECT)
            try:
                while filled < buffer.nbytes:
                    got = os.preadv(fd, [buffer[filled:]], offset_bytes + filled)
                    if got == 0:
                        break
                    filled += got
            finally:
                os.close(fd)
        except OSError as exc:
            if exc.errno not in _DIRECT_REFUSED:
                raise
        return filled

    def _open(self, flags: int) -> int:
        return self._files.open(file_name(self.zone), flags | os.O_WRONLY)

    def close(self) -> None:
        for fd in {self.read_fd, self._direct_fd, self._plain_fd} - {None}:
            assert fd is not None
            os.close(fd)
        self._direct_fd = self._plain_fd = None


class ZoneFiles:
    """Bounded, thread-safe cache of ``ZoneFile`` in order of last use.

    Args:
        folder_fd: The zones folder; owned by the caller.
        limit_count: Files kept open when unused; more are open only while in use.
    """

    def __init__(self, folder_fd: int, *, limit_count: int) -> None:
        self._folder_fd = folder_fd
        self._limit_count = limit_count
        self._files: OrderedDict[ids.ZoneIndex, ZoneFile] = OrderedDict()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def using(self, zone: ids.ZoneIndex, *, create: bool) -> Iterator[ZoneFile | None]:
        """The zone's file, open for as long as the block runs; None when there is none.

        Raises:
            OSError: the file could not be opened or created.
        """
        file = self.acquire(zone, create=create)
        try:
            yield file
        finally:
            if file is not None:
                self.release(file)

    def acquire(self, zone: ids.ZoneIndex, *, create: bool) -> ZoneFile | None:
        """As ``using``, for callers that ``release`` it themselves."""
        with self._lock:
            file = self._files.get(zone)
            if file is not None:
                file.users += 1
                self._files.move_to_end(zone)
                return file
        read_fd = self._open(zone, create=create)
        if read_fd is None:
            return None
        opened = ZoneFile(zone, files=self, read_fd=read_fd)
        unused: list[ZoneFile] = []
        with self._lock:
            file = self._files.setdefault(zone, opened)
            if file is not opened:
                unused.append(opened)  # Another thread was first.
            file.users += 1
            self._files.move_to_end(zone)
            while len(self._files) > self._limit_count:
                unused += self._retired(self._files.popitem(last=False)[1])
        _close(unused)
        return file

    def acquire_cached(self, zone: ids.ZoneIndex) -> ZoneFile | None:
        """The zone's file if it is open already; never waits. ``release`` it afterwards."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            file = self._files.get(zone)
            if file is not None:
                file.users += 1
                self._files.move_to_end(zone)
            return file
        finally:
            self._lock.release()

    def release(self, file: ZoneFile) -> None:
        """End one use of a file."""
        with self._lock:
            file.users -= 1
            is_last = file.retired and file.users == 0
        if is_last:
            file.close()

    def retire(self, file: ZoneFile) -> None:
        """Stop handing out a file whose inode no longer is the zone."""
        unused: list[ZoneFile] = []
        with self._lock:
            if self._files.get(file.zone) is file:
                unused = self._retired(self._files.pop(file.zone))
        _close(unused)

    def forget(self, zone: ids.ZoneIndex) -> None:
        """Stop handing out the zone's file, whichever it is."""
        unused: list[ZoneFile] = []
        with self._lock:
            file = self._files.pop(zone, None)
            if file is not None:
                unused = self._retired(file)
        _close(unused)

    def close(self) -> None:
        """Close every unused file now and the others when their use ends."""
        unused: list[ZoneFile] = []
        with self._lock:
            while self._files:
                unused += self._retired(self._files.popitem()[1])
        _close(unused)

    def open_count(self) -> int:
        """Files in the cache."""
        with self._lock:
            return len(self._files)

    def open(self, name: str, flags: int) -> int:
        """A descriptor of a file in the folder, in place of cached ones if there is no other.

        Raises:
            OSError: as ``os.open``.
        """
        flags |= os.O_CLOEXEC
        try:
            return os.open(name, flags, 0o600, dir_fd=self._folder_fd)
        except OSError as exc:
            if exc.errno not in device_errors.DESCRIPTORS or not self._close_unused():
                raise
        return os.open(name, flags, 0o600, dir_fd=self._folder_fd)

    def _close_unused(self) -> bool:
        """Whether any was closed."""
        unused: list[ZoneFile] = []
        with self._lock:
            for zone in [zone for zone, file in self._files.items() if not file.users]:
                unused += self._retired(self._files.pop(zone))
        _close(unused)
        return bool(unused)

    def _open(self, zone: ids.ZoneIndex, *, create: bool) -> int | None:
        # Read-only, so that reads still work when the file system was remounted read-only.
        try:
            return self.open(file_name(zone), os.O_RDONLY)
        except FileNotFoundError:
            if not create:
                return None
        return self.open(file_name(zone), os.O_RDONLY | os.O_CREAT)

    @staticmethod
    def _retired(file: ZoneFile) -> list[ZoneFile]:
        """Mark a file below the lock; what is to be closed after it."""
        file.retired = True
        return [] if file.users else [file]


def _close(files: Iterable[ZoneFile]) -> None:
    for file in files:
        file.close()
