"""What moving a payload from the log to a stripe costs: ``python -m couchestor_bench.destage``.

Devices in memory, the index as a node has it: the figure is processor time of the whole path, from
reading the log to the commit that switches the entries, and leaves out the kernel's part of writes.
"""

from __future__ import annotations

import argparse
import asyncio
import pathlib
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import xxhash

from couchestor_bench import results
from couchestor_daemon import buffers
from couchestor_daemon.adapters import (
    codec_choice,
    inline_media,
    isal_codec,
    lmdb_index,
    memory_device,
)
from couchestor_daemon.formats import l2p_record, media_records
from couchestor_daemon.ports import device as device_port
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import (
    commit_log,
    compression,
    evacuation,
    group_commit,
    payload_reader,
    relocation,
    segment_source,
    stripe_groups,
    stripe_reader,
)
from couchestor_daemon.services.catalogue import l2p
from couchestor_domain import events, geometry, ids, units

CODING: Final = geometry.StripeGeometry(4, 2)
PAYLOADS_PER_COMMIT: Final = 32


class Bench:
    """Six devices, a log full of payloads, and the parts of destage."""

    def __init__(self, folder: pathlib.Path, *, stripe_bytes: int, saving_percent: int) -> None:
        devices = {}
        for number in range(CODING.shards_count):
            identity = device_port.DeviceIdentity(
                node_id=ids.NodeId("a" * 32),
                device_id=ids.DeviceId(f"{number:032x}"),
                label=f"d{number}",
                failure_domain=f"d{number}",
                zone_count=64,
                zone_capacity_bytes=64 * units.MIB,
                joined_epoch=1,
            )
            devices[identity.device_id] = memory_device.MemoryDevice(identity)
        self.media = inline_media.InlineMedia(devices, lambda device_id, error: None)
        self.index = lmdb_index.LmdbIndex(folder / "index", map_size_bytes=4 * units.GIB)
        pool = buffers.BufferPool(64 * units.MIB)
        self._log = commit_log.CommitLog(
            writer="maintenance",
            index=self.index,
            media=self.media,
            pool=pool,
            replicas_count=CODING.parity_shards + 1,
            publisher=self,
        )
        commits = group_commit.GroupCommit(self._commit)
        groups = stripe_groups.StripeGroups(
            writer="maintenance",
            wanted=CODING,
            open_groups_max=1,
            media=self.media,
            index=self.index,
            pool=pool,
            choose_codec=lambda shape: codec_choice.choose("rs", shape),
            submit=commits.submit,
            run_codec=self.run,
            run_blocking=self.run,
            publisher=self,
        )
        stripes = stripe_reader.StripeReader(
            self.media,
            codecs=codec_choice.by_id,
            publisher=self,
            on_damage=lambda group, offset, shard, reason: None,
        )
        moving = relocation.Relocation(
            groups=groups,
            index=self.index,
            payloads=payload_reader.PayloadReader(
                index=self.index, media=self.media, stripes=stripes
            ),
            stripes=stripes,
            pool=pool,
            stripe_bytes=stripe_bytes,
            squeeze=compression.Compression(saving_percent=saving_percent),
            run_codec=self.run,
            submit=commits.submit,
            pace=self.pace,
            publisher=self,
        )
        self._evacuation = evacuation.Evacuation(moving, stripe_bytes=stripe_bytes)

    def publish(self, event: events.DomainEvent) -> None:
        """Nobody listens."""

    async def pace(self, byte_count: int) -> None:
        """As fast as it goes."""

    async def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """In place of a pool."""
        return function(*args)

    async def _commit(self, gather: commit_log.Gather) -> None:
        self._log.commit_gathered(gather)

    def load(self, payloads: Sequence[bytes]) -> None:
        """Into the log, as PUTs of small objects leave them."""
        address = units.MIB
        for first in range(0, len(payloads), PAYLOADS_PER_COMMIT):
            operations = []
            for payload in payloads[first : first + PAYLOADS_PER_COMMIT]:
                operations.append(_put(ids.ExtentAddress(address), payload))
                address += len(payload)
            self._log.commit(operations)
            for operation in operations:
                if operation.error is not None:
                    raise operation.error

    async def empty_the_log(self) -> int:
        """Move everything; how many entries that were."""
        start, stop = media_records.table_range(media_records.SEGMENTS)
        with self.index.read() as reader:
            records = [
                media_records.unpack(media_records.SegmentRecord, value)
                for _, value in reader.scan(start, stop)
            ]
        sources = [
            segment_source.SegmentSource(
                record,
                index=self.index,
                media=self.media,
                run_blocking=self.run,
                pace=self.pace,
            )
            for record in records
        ]
        moved_count = 0
        while True:
            moved = await self._evacuation.step(lambda: sources.pop(0) if sources else None)
            if moved is None:
                return moved_count
            moved_count += moved.switched_count


def _put(address: ids.ExtentAddress, payload: bytes) -> commit_log.Operation:
    def apply(txn: index_port.IndexWriter, place: commit_log.Placement) -> None:
        location = l2p_record.JournalLocation(
            place.segment_id,
            place.offset_bytes,
            place.length_bytes,
            xxhash.xxh3_64_intdigest(payload),
        )
        l2p.insert(txn, address, location)
        # The size of an object's record, which a walk of the log passes over.
        txn.put(b"o" + address.to_bytes(8, "big") + b"key" * 8, bytes(200))

    return commit_log.Operation(apply=apply, payload=payload)


def payload_of(kind: str, number: int, size_bytes: int) -> bytes:
    """``random`` or ``text``, always the same of one number."""
    rng = random.Random(number)
    if kind == "random":
        return rng.randbytes(size_bytes)
    line = '{"at": %d, "level": "info", "said": "hello"}\n'
    lines = [line % rng.getrandbits(40) for _ in range(size_bytes // 40 + 1)]
    return "".join(lines).encode()[:size_bytes]


def measure(kind: str, *, count: int, size_bytes: int, saving_percent: int) -> float:
    """Processor seconds to move one payload."""
    with tempfile.TemporaryDirectory(prefix="couchestor-bench-") as folder:
        bench = Bench(
            pathlib.Path(folder), stripe_bytes=4 * units.MIB, saving_percent=saving_percent
        )
        bench.load([payload_of(kind, number, size_bytes) for number in range(count)])
        started = time.process_time()
        moved_count = asyncio.run(bench.empty_the_log())
        taken_seconds = time.process_time() - started
        bench.index.close()
    if moved_count != count:
        raise SystemExit(f"{moved_count} of {count} payloads moved; the figures mean nothing")
    return taken_seconds / count


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write the figures, print a table."""
    parser = argparse.ArgumentParser(prog="couchestor_bench.destage", description=__doc__)
    parser.add_argument("--count", type=int, default=20_000, help="payloads to move")
    parser.add_argument("--size-kib", type=int, default=4, help="KiB of each")
    parser.add_argument("--runs", type=int, default=3, help="the least time of so many counts")
    told = parser.parse_args(arguments)
    isal_codec.load_library()
    rows: list[dict[str, object]] = []
    for kind, saving_percent in (("random", 101), ("random", 30), ("text", 30)):
        taken = [
            measure(
                kind,
                count=told.count,
                size_bytes=told.size_kib * units.KIB,
                saving_percent=saving_percent,
            )
            for _ in range(told.runs)
        ]
        rows.append(
            {
                "payloads": kind,
                "compression": "off" if saving_percent > 100 else "on",
                "us_per_payload": 1e6 * min(taken),
            }
        )
    print(results.table(list(rows[0]), [list(row.values()) for row in rows]))
    figures = {"count": told.count, "size_kib": told.size_kib, "destage": rows}
    print(f"\nraw: {results.write('destage', figures)}")


if __name__ == "__main__":
    main()
