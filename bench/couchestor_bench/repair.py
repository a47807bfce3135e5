"""Rebuild and scrub against what devices and codec can do: ``python -m couchestor_bench.repair``.

A node of directory devices is filled with stripe groups. The scrub takes turns with plain reads of
the same zone files, in 1 MiB steps by as many threads: past the page cache, as the scrub reads, and
by way of it, with the read-ahead of the kernel. The rebuild of a lost device is compared
with two: the slowest of reading k members, decoding and writing durably, plus reading back what
was written, each measured alone on the same files ("bound"); and the same reads and writes done
plainly and all at the same time ("plainly"), which is less where the devices share what is below
them, as folders do. Files are dropped from the page cache before each run; what the host below
caches is not known. The table shows medians over the runs of each length of stripe, which take
turns; a ratio is the median of the ratios, not the ratio of medians.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import mmap
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import uvloop

from couchestor_bench import results
from couchestor_daemon import buffers
from couchestor_daemon.adapters import (
    codec_choice,
    directory_device,
    isal_codec,
    memory_index,
    threaded_media,
    worker_threads,
    zone_files,
)
from couchestor_daemon.app import repairing
from couchestor_daemon.formats import l2p_record, media_records, shard
from couchestor_daemon.ports import device as device_port
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import (
    commit_log,
    group_commit,
    rebuild,
    repair_tools,
    scrub,
    stripe_assembly,
    stripe_groups,
)
from couchestor_daemon.services.catalogue import l2p
from couchestor_domain import errors, events, geometry, ids, units

SHAPE: Final = geometry.StripeGeometry(4, 2)
ZONE_BYTES: Final = 64 * units.MIB
READ_BYTES: Final = units.MIB
THREADS_COUNT: Final = 16
ROUNDS_COUNT: Final = 5
STRIPES_BYTES: Final = (4 * units.MIB, units.MIB, 256 * units.KIB)
COLUMNS: Final = (
    ("plain MB/s", "scrub", "plain_bytes_per_second", 1e6),
    ("by page cache", "scrub", "plain_by_cache_bytes_per_second", 1e6),
    ("scrub MB/s", "scrub", "scrub_bytes_per_second", 1e6),
    ("ratio", "scrub", "ratio", 1.0),
    ("bound MB/s", "rebuild", "bound_bytes_per_second", 1e6),
    ("plainly MB/s", "rebuild", "plainly_bytes_per_second", 1e6),
    ("rebuild MB/s", "rebuild", "rebuild_bytes_per_second", 1e6),
    ("of bound", "rebuild", "ratio", 1.0),
    ("of plainly", "rebuild", "plainly_ratio", 1.0),
    ("CPU ms/MiB", "rebuild", "cpu_ms_per_mib", 1.0),
)
"""Title, measurement, figure and what it is divided by."""


class Silence:
    """Events are not what is measured."""

    def publish(self, event: events.DomainEvent) -> None:
        """Drop it."""


class Node:
    """Seven devices in folders and the parts that write, rebuild and scrub."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.devices: dict[ids.DeviceId, directory_device.DirectoryDevice] = {}
        for number in range(SHAPE.shards_count + 1):
            path = folder / f"d{number}"
            path.mkdir()
            directory_device.format_directory(
                path,
                device_port.DeviceIdentity(
                    node_id=ids.NodeId("a" * 32),
                    device_id=ids.DeviceId(f"{number:032x}"),
                    label=f"d{number}",
                    failure_domain=f"d{number}",
                    zone_count=256,
                    zone_capacity_bytes=ZONE_BYTES,
                    joined_epoch=1,
                ),
            )
            device = directory_device.open_directory(path)
            self.devices[device.identity.device_id] = device
        self.index = memory_index.MemoryIndex()
        self.pool = buffers.BufferPool(64 * units.MIB)
        self.repair_pool = buffers.BufferPool(repairing.POOL_BYTES_MIN)
        self.codec_threads = worker_threads.WorkerThreads(2, "codec")
        self.media = threaded_media.ThreadedMedia(self.devices, lambda device_id, error: None)
        log = commit_log.CommitLog(
            writer="bench",
            index=self.index,
            media=self.media,
            pool=self.pool,
            replicas_count=3,
            publisher=Silence(),
        )
        commit_thread = worker_threads.WorkerThreads(1, "commit")

        async def run_commit(gather: commit_log.Gather) -> None:
            await commit_thread.run(log.commit_gathered, gather)

        self.commits = group_commit.GroupCommit(run_commit)
        self.groups = stripe_groups.StripeGroups(
            writer="bench",
            wanted=SHAPE,
            open_groups_max=1,
            media=self.media,
            index=self.index,
            pool=self.pool,
            choose_codec=lambda shape: codec_choice.choose("rs", shape),
            submit=self.commits.submit,
            run_codec=self.codec_threads.run,
            run_blocking=self.codec_threads.run,
            publisher=Silence(),
        )

    @property
    def tools(self) -> repair_tools.Tools:
        """What rebuild and scrub work with."""
        return repair_tools.Tools(
            index=self.index,
            media=self.media,
            pool=self.repair_pool,
            codecs=codec_choice.by_id,
            run_codec=self.codec_threads.run,
            run_blocking=self.codec_threads.run,
            pace=unpaced,
        )

    async def fill(self, *, total_bytes: int, stripe_bytes: int) -> None:
        """Write mapped stripes of one length, and seal every group but the last."""
        data = np.random.default_rng(1).bytes(stripe_bytes)
        address = 1 << 20
        for _ in range(total_bytes // stripe_bytes):
            stripe = stripe_assembly.StripeBuffer(self.pool, SHAPE, stripe_bytes)
            position = 0
            for view in stripe.fill_views():
                view[:] = data[position : position + len(view)]
                position += len(view)
            place = await self.groups.write_stripe(
                stripe, extent_address=ids.ExtentAddress(address)
            )
            location = l2p_record.StripeLocation(
                *place, stripe.chunk_bytes, stripe_bytes, 0, stripe_bytes
            )
            stripe.release()
            await self.commits.submit(_insert(ids.ExtentAddress(address), location))
            self.groups.settle(place)
            address += stripe_bytes
        await self.groups.drain()

    def sealed(self) -> list[media_records.GroupRecord]:
        """Groups that a rebuild takes."""
        with self.index.read() as reader:
            records = [
                media_records.unpack(media_records.GroupRecord, value)
                for _, value in reader.scan(*media_records.table_range(media_records.GROUPS))
            ]
        return [r for r in records if r.state == media_records.ZoneSetState.SEALED]

    def files(self, records: Sequence[media_records.GroupRecord]) -> list[pathlib.Path]:
        """Zone files of the members of groups."""
        return [
            self.devices[zone.device_id].path / "zones" / zone_files.file_name(zone.zone_index)
            for record in records
            for zone in media_records.zone_addresses(record.members)
        ]


def _insert(
    address: ids.ExtentAddress, location: l2p_record.StripeLocation
) -> commit_log.Operation:
    def apply(txn: index_port.IndexWriter, _: commit_log.Placement) -> None:
        l2p.insert(txn, address, location)

    return commit_log.Operation(apply=apply)


async def unpaced(bytes_count: int) -> None:
    """No pacing."""


def forget(paths: Sequence[pathlib.Path]) -> None:
    """Drop files from the page cache."""
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)


def read_plainly(paths: Sequence[pathlib.Path], *, past_cache: bool = False) -> float:
    """Seconds to read files from end to end, as many at a time as the media have threads."""

    def read(path: pathlib.Path) -> None:
        buffer = mmap.mmap(-1, READ_BYTES)
        fd = os.open(path, os.O_RDONLY | (os.O_DIRECT if past_cache else 0))
        try:
            offset = 0
            while taken := os.preadv(fd, [buffer], offset):
                offset += taken
        finally:
            os.close(fd)

    started = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(THREADS_COUNT) as threads:
        list(threads.map(read, paths))
    return time.perf_counter() - started


def read_either_way(paths: Sequence[pathlib.Path]) -> float:
    """The same past the page cache or by way of it, whichever is faster: what devices can do."""
    taken = []
    for past_cache in (False, True):
        forget(paths)
        taken.append(read_plainly(paths, past_cache=past_cache))
    return min(taken)


def write_plainly(folder: pathlib.Path, total_bytes: int, chunk_bytes: int) -> float:
    """Seconds to write files of a zone each past the page cache, with a flush for each."""
    with buffers.BufferPool(chunk_bytes * 2).acquire(chunk_bytes) as buffer:
        view = buffer.view[:chunk_bytes]
        started = time.perf_counter()
        left, number = total_bytes, 0
        while left > 0:
            path = folder / f"plain-{number}"
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_DIRECT, 0o600)
            try:
                offset = 0
                while offset + chunk_bytes <= min(ZONE_BYTES, left):
                    offset += os.pwrite(fd, view, offset)
                os.fdatasync(fd)
            finally:
                os.close(fd)
            left -= ZONE_BYTES
            number += 1
        taken = time.perf_counter() - started
    for path in folder.glob("plain-*"):
        path.unlink()
    return taken


def all_at_once(
    folder: pathlib.Path,
    survivors: Sequence[pathlib.Path],
    written: Sequence[pathlib.Path],
    *,
    write_bytes: int,
    chunk_bytes: int,
) -> float:
    """Seconds of all that a rebuild does to devices, done plainly and at the same time: survivors
    read by way of the page cache, fresh zones written, and as much read back past it."""
    forget(survivors)
    forget(written)
    started = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(3) as threads:
        for done in (
            threads.submit(read_plainly, survivors),
            threads.submit(write_plainly, folder, write_bytes, chunk_bytes),
            threads.submit(read_plainly, written, past_cache=True),
        ):
            done.result()
    return time.perf_counter() - started


def decode_alone(total_bytes: int, chunk_bytes: int) -> float:
    """Seconds to decode one lost chunk of each stripe until ``total_bytes`` are decoded, on one
    thread, with the checksums that reading and writing it take."""
    codec = codec_choice.choose("rs", SHAPE)
    with buffers.BufferPool(chunk_bytes * 8).acquire(chunk_bytes * SHAPE.shards_count) as buffer:
        chunks = [
            buffer.view[index * chunk_bytes : (index + 1) * chunk_bytes]
            for index in range(SHAPE.shards_count)
        ]
        started = time.perf_counter()
        for _ in range(total_bytes // chunk_bytes):
            for chunk in chunks[1 : 1 + SHAPE.data_shards]:
                shard.checksums(chunk)
            codec.reconstruct(dict(enumerate(chunks[1:5], 1)), {0: chunks[0]})
            shard.checksums(chunks[0])
        return time.perf_counter() - started


async def timed(step: Callable[[], Any], until: Callable[[], bool]) -> float:
    """Seconds of steps until a condition holds."""
    started = time.perf_counter()
    while not until():
        await step()
    return time.perf_counter() - started


def _has_passed(work: scrub.Scrub, group_id: int) -> bool:
    return work.record.position >= group_id


async def measure_scrub(node: Node) -> dict[str, float]:
    """Bytes a second of the scrub and of plain reads of the same files."""
    records = node.sealed()
    paths = node.files(records)
    last = records[-1].group_id
    plain_bytes = sum(path.stat().st_size for path in paths)
    plain: list[float] = []
    cached: list[float] = []
    scrubbed: list[float] = []
    for _ in range(ROUNDS_COUNT):
        forget(paths)
        cached.append(plain_bytes / read_plainly(paths))
        forget(paths)
        plain.append(plain_bytes / read_plainly(paths, past_cache=True))
        work = scrub.Scrub(
            node.tools,
            submit=node.commits.submit,
            period_seconds=1e-6,
            publisher=Silence(),
            now_seconds=time.monotonic,
            now_ns=time.time_ns,
        )
        forget(paths)
        seconds = await timed(work.step, functools.partial(_has_passed, work, last))
        scrubbed.append(work.record.counts.read_bytes / seconds)
        if work.record.counts.damaged_count:
            raise SystemExit("the scrub found damage in what was just written")
    return {
        "plain_bytes_per_second": statistics.median(plain),
        "plain_by_cache_bytes_per_second": statistics.median(cached),
        "scrub_bytes_per_second": statistics.median(scrubbed),
        "ratio": statistics.median(a / b for a, b in zip(scrubbed, plain, strict=True)),
    }


async def measure_rebuild(node: Node, folder: pathlib.Path, chunk_bytes: int) -> dict[str, float]:
    """Bytes a second of the rebuild of a lost device, and the bound."""
    records = node.sealed()
    lost = max(
        {device for record in records for device, _ in record.members},
        key=lambda device: sum(device in dict(record.members) for record in records),
    )
    concerned = [record for record in records if lost in dict(record.members)]
    survivors = [
        path
        for record in concerned
        for path in [
            path for path in node.files([record]) if node.devices[ids.DeviceId(lost)].path.name
            not in path.parts
        ][: SHAPE.data_shards]
    ]  # fmt: skip
    member_bytes = sum(
        max(path.stat().st_size for path in node.files([record])) for record in concerned
    )
    read_seconds = read_either_way(survivors)
    write_seconds = write_plainly(folder, member_bytes, chunk_bytes)
    decode_seconds = decode_alone(member_bytes, chunk_bytes)
    back_seconds = read_either_way(survivors[: len(concerned)])
    at_once_seconds = all_at_once(
        folder,
        survivors,
        survivors[: len(concerned)],
        write_bytes=member_bytes,
        chunk_bytes=chunk_bytes,
    )
    node.media.report_failure(ids.DeviceId(lost), errors.DeviceGoneError("taken out"))
    forget(survivors)
    work = rebuild.Rebuild(
        node.tools,
        submit=node.commits.submit,
        reserve_zones_count=0,
        delay_seconds=0.0,
        publisher=Silence(),
        now_seconds=time.monotonic,
        now_ns=time.time_ns,
    )
    wanted = len(concerned)
    cpu_seconds = time.process_time()
    seconds = await timed(work.step, lambda: work.progress.groups_rebuilt_count >= wanted)
    cpu_seconds = time.process_time() - cpu_seconds
    bound_seconds = max(read_seconds, write_seconds, decode_seconds) + back_seconds
    return {
        "member_bytes": member_bytes,
        "read_seconds": read_seconds,
        "decode_seconds": decode_seconds,
        "write_seconds": write_seconds,
        "read_back_seconds": back_seconds,
        "at_once_seconds": at_once_seconds,
        "rebuild_seconds": seconds,
        "bound_bytes_per_second": member_bytes / bound_seconds,
        "plainly_bytes_per_second": member_bytes / max(at_once_seconds, decode_seconds),
        "rebuild_bytes_per_second": member_bytes / seconds,
        "cpu_ms_per_mib": cpu_seconds * 1000 / (member_bytes / units.MIB),
        "ratio": bound_seconds / seconds,
        "plainly_ratio": max(at_once_seconds, decode_seconds) / seconds,
    }


async def measure(folder: pathlib.Path, *, total_bytes: int, stripe_bytes: int) -> dict[str, Any]:
    """Fill a node, then scrub it, then lose a device and rebuild."""
    node = Node(folder)
    await node.fill(total_bytes=total_bytes, stripe_bytes=stripe_bytes)
    scrubbed = await measure_scrub(node)
    chunk_bytes = SHAPE.chunk_bytes(stripe_bytes)
    rebuilt = await measure_rebuild(node, folder, chunk_bytes)
    node.media.close()
    node.codec_threads.close()
    return {"stripe_bytes": stripe_bytes, "scrub": scrubbed, "rebuild": rebuilt}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write the figures, print a table."""
    parser = argparse.ArgumentParser(prog="couchestor_bench.repair", description=__doc__)
    parser.add_argument("--total-mib", type=int, default=1024, help="user MiB of each run")
    parser.add_argument("--folder", type=pathlib.Path, default=None, help="where to write")
    parser.add_argument("--runs", type=int, default=3, help="of each length of stripe")
    told = parser.parse_args(arguments)
    isal_codec.load_library()
    runs = []
    for _ in range(told.runs):
        for stripe_bytes in STRIPES_BYTES:
            with tempfile.TemporaryDirectory(dir=told.folder) as name:
                runs.append(
                    uvloop.run(
                        measure(
                            pathlib.Path(name),
                            total_bytes=told.total_mib * units.MIB,
                            stripe_bytes=stripe_bytes,
                        )
                    )
                )
    print(
        results.table(
            ["stripe KiB", *(title for title, *_ in COLUMNS)],
            [
                [
                    stripe_bytes // units.KIB,
                    *(
                        statistics.median(
                            run[part][figure] / divisor
                            for run in runs
                            if run["stripe_bytes"] == stripe_bytes
                        )
                        for _, part, figure, divisor in COLUMNS
                    ),
                ]
                for stripe_bytes in STRIPES_BYTES
            ],
        )
    )
    path = results.write("repair", {"total_mib": told.total_mib, "runs": runs})
    print(f"\nraw: {path}")


if __name__ == "__main__":
    main()
