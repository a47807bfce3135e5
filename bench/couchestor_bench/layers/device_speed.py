"""How fast a folder is as a device: durable appends and reads from the medium, through the port.

Everything happens in a new folder below the one that is named, which is deleted at the end.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pathlib
import secrets
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np

from couchestor_bench import failures
from couchestor_bench.reports import histogram
from couchestor_daemon.adapters import directory_device
from couchestor_daemon.ports import device as device_port
from couchestor_domain import errors, ids, units

ZONE_BYTES: Final = 16 * units.MIB
_FILL_BYTES: Final = units.MIB
_SEED: Final = 1
Row = dict[str, str | float | int]
Step = Callable[[int], None]
"""One operation of a thread, which is told how many it has done before."""


def measure(
    folder: pathlib.Path,
    *,
    sizes_bytes: Sequence[int],
    depths: Sequence[int],
    seconds: float,
    space_bytes: int,
    progress: Callable[[str], None],
) -> Iterator[Row]:
    """One row for each kind of command, size and depth (threads at once).

    Args:
        sizes_bytes: Of each command; multiples of 4 KiB that divide a zone of 16 MiB.
        seconds: Time for each row.
        space_bytes: What is written at most at any time.

    Raises:
        BenchmarkError: The folder cannot be used.
    """
    zone_count = space_bytes // ZONE_BYTES
    if zone_count < max(depths):
        raise failures.BenchmarkError(
            f"--space {space_bytes:,} bytes is too little for a depth of {max(depths)}: each "
            f"thread writes to zones of its own of {ZONE_BYTES:,} bytes"
        )
    with _device(folder, zone_count) as device:
        for size_bytes in sizes_bytes:
            for depth in depths:
                progress(f"durable writes, {size_bytes:,} bytes, depth {depth}")
                makers = [
                    _Appends(device, zones, size_bytes) for zones in _shares(zone_count, depth)
                ]
                yield _row("write, durable", size_bytes, depth, *_timed(makers, seconds))
        progress("filling for reads")
        _fill(device, zone_count)
        for title, kind in (("read, sequential", _Scans), ("read, random", _Picks)):
            for size_bytes in sizes_bytes:
                for depth in depths:
                    progress(f"{title}, {size_bytes:,} bytes, depth {depth}")
                    shares = _shares(zone_count, depth)
                    readers = [kind(device, zones, size_bytes) for zones in shares]
                    yield _row(title, size_bytes, depth, *_timed(readers, seconds))


class _Appends:
    """Appends to one zone after the other; a zone is emptied before its turn comes again."""

    def __init__(self, device: device_port.ZonedDevice, zones: range, size_bytes: int) -> None:
        self._device, self._zones = device, zones
        self._data = _memory(size_bytes)
        self._per_zone = ZONE_BYTES // size_bytes

    def prepare(self, done_count: int) -> None:
        if done_count % self._per_zone == 0:
            self._device.reset(self._zone(done_count))

    def __call__(self, done_count: int) -> None:
        offset = done_count % self._per_zone * len(self._data)
        self._device.write(self._zone(done_count), offset, self._data, durable=True)

    def _zone(self, done_count: int) -> ids.ZoneIndex:
        return ids.ZoneIndex(self._zones[done_count // self._per_zone % len(self._zones)])


class _Scans:
    """Reads zones from one end to the other, past the page cache."""

    def __init__(self, device: device_port.ZonedDevice, zones: range, size_bytes: int) -> None:
        self._device, self._zones = device, zones
        self._buffer = _memory(size_bytes)
        self._places_count = len(zones) * ZONE_BYTES // size_bytes

    def prepare(self, done_count: int) -> None:
        """Nothing."""

    def __call__(self, done_count: int) -> None:
        self._read(done_count % self._places_count)

    def _read(self, place: int) -> None:
        zone, offset = divmod(place * len(self._buffer), ZONE_BYTES)
        zone_index = ids.ZoneIndex(self._zones[zone])
        self._device.read(zone_index, offset, self._buffer, past_cache=True)


class _Picks(_Scans):
    """Reads anywhere, past the page cache."""

    def __init__(self, device: device_port.ZonedDevice, zones: range, size_bytes: int) -> None:
        super().__init__(device, zones, size_bytes)
        random = np.random.default_rng((_SEED, zones.start))
        self._places = random.integers(0, self._places_count, 1 << 14).tolist()

    def __call__(self, done_count: int) -> None:
        self._read(self._places[done_count % len(self._places)])


class _Worker(threading.Thread):
    """Does one kind of command until the time is over."""

    def __init__(self, step: _Appends | _Scans, start: threading.Barrier, seconds: float) -> None:
        super().__init__(daemon=True)
        self._step, self._start, self._seconds = step, start, seconds
        self.taken: list[float] = []
        self.ended = 0.0
        self.error: errors.CouchestorError | None = None

    def run(self) -> None:
        try:
            self._step.prepare(0)
            # Twice: opening a file for the first time is not what is measured.
            self._step(0)
            self._start.wait()
            self._drive()
        except errors.CouchestorError as exc:
            self.error = exc
            self._start.abort()
        except threading.BrokenBarrierError:
            return

    def _drive(self) -> None:
        clock, step, taken = time.perf_counter, self._step, self.taken
        ends = clock() + self._seconds
        done_count = 1
        while True:
            step.prepare(done_count)
            begun = clock()
            if begun >= ends:
                break
            step(done_count)
            taken.append(clock() - begun)
            done_count += 1
        self.ended = clock()


def _timed(steps: Sequence[_Appends | _Scans], seconds: float) -> tuple[histogram.Histogram, float]:
    """All threads at once. Returns how long each command took, and the whole."""
    begun: list[float] = []
    start = threading.Barrier(len(steps), action=lambda: begun.append(time.perf_counter()))
    workers = [_Worker(step, start, seconds) for step in steps]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    failed = [worker.error for worker in workers if worker.error is not None]
    if failed:
        raise failures.BenchmarkError(f"the device failed: {failed[0].message}") from failed[0]
    counted = histogram.Histogram()
    for worker in workers:
        counted.record_seconds(worker.taken)
    return counted, max(worker.ended for worker in workers) - begun[0]


def _row(what: str, size_bytes: int, depth: int, taken: histogram.Histogram, seconds: float) -> Row:
    rate = taken.count / seconds
    return {
        "what": what,
        "size": f"{size_bytes // units.KIB} KiB",
        "depth": f"depth {depth}",
        "mb_per_second": rate * size_bytes / 1e6,
        "commands_per_second": rate,
        "p50_us": taken.percentile_ns(50) / 1000,
        "p99_us": taken.percentile_ns(99) / 1000,
        "max_us": taken.max_ns / 1000,
    }


def _fill(device: device_port.ZonedDevice, zone_count: int) -> None:
    data = _memory(_FILL_BYTES)
    for zone in map(ids.ZoneIndex, range(zone_count)):
        device.reset(zone)
        for offset in range(0, ZONE_BYTES, _FILL_BYTES):
            device.write(zone, offset, data, durable=False)
    device.flush([ids.ZoneIndex(zone) for zone in range(zone_count)])


def _shares(zone_count: int, depth: int) -> list[range]:
    """Zones of each thread: a zone has one writer."""
    each = zone_count // depth
    return [range(index * each, (index + 1) * each) for index in range(depth)]


def _memory(size_bytes: int) -> memoryview:
    """Page-aligned, of bytes that do not compress."""
    view = memoryview(mmap.mmap(-1, size_bytes))
    view[:] = np.random.default_rng(_SEED).bytes(size_bytes)
    return view


@contextlib.contextmanager
def _device(folder: pathlib.Path, zone_count: int) -> Iterator[device_port.ZonedDevice]:
    try:
        mode = os.stat(folder).st_mode
    except OSError as exc:
        raise failures.BenchmarkError(f"cannot use {folder}: {exc.strerror}") from exc
    if not stat.S_ISDIR(mode):
        raise failures.BenchmarkError(
            f"{folder} is no folder: devices are folders so far; mount a file system and name it"
        )
    place = folder / f"couchestor-bench-{secrets.token_hex(4)}"
    identity = device_port.DeviceIdentity(
        node_id=ids.NodeId(secrets.token_hex(16)),
        device_id=ids.DeviceId(secrets.token_hex(16)),
        label="bench",
        failure_domain="bench",
        zone_count=zone_count,
        zone_capacity_bytes=ZONE_BYTES,
        joined_epoch=1,
    )
    try:
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, place, ignore_errors=True)
            directory_device.format_directory(place, identity)
            device = directory_device.open_directory(place)
            stack.callback(device.close)
            yield device
    except errors.DeviceError as exc:
        raise failures.BenchmarkError(f"the device failed: {exc.message}") from exc
