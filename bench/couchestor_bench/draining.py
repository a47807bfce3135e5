"""Emptying a retiring device by copying its members and by relocation, taking turns:
``python -m couchestor_bench.draining``.

A node of seven directory devices is filled with stripe groups of full stripes, and the device that
holds the most members retires. The figure is what its members hold, over the time until no sealed
group has one there. Files are dropped from the page cache before each run; what the host below
caches is not known.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import dataclasses
import pathlib
import statistics
import tempfile
import time
from collections.abc import Sequence
from typing import Any, Final

from couchestor_bench import repair, results
from couchestor_daemon.adapters import codec_choice, isal_codec, threaded_media
from couchestor_daemon.formats import media_records
from couchestor_daemon.services import (
    compression,
    evacuation,
    group_source,
    member_moves,
    payload_reader,
    relocation,
    replacement_zones,
    stripe_groups,
    stripe_reader,
)
from couchestor_domain import ids, units

ROUNDS_COUNT: Final = 3

Members = Sequence[media_records.GroupRecord]


async def filled(folder: pathlib.Path, *, total_bytes: int, stripe_bytes: int) -> repair.Node:
    """A node with data."""
    node = repair.Node(folder)
    await node.fill(total_bytes=total_bytes, stripe_bytes=stripe_bytes)
    return node


def retire(node: repair.Node) -> tuple[threaded_media.ThreadedMedia, ids.DeviceId, Members]:
    """Devices as a process sees them that starts now, the retiring one, and what is on it."""
    records = node.sealed()
    counts = collections.Counter(device for record in records for device, _ in record.members)
    leaving = ids.DeviceId(counts.most_common(1)[0][0])
    device = node.devices[leaving]
    device.write_identity(dataclasses.replace(device.identity, retiring=True))
    repair.forget(node.files(records))
    concerned = [record for record in records if leaving in dict(record.members)]
    return (
        threaded_media.ThreadedMedia(node.devices, lambda device_id, error: None),
        leaving,
        concerned,
    )


def held_bytes(node: repair.Node, leaving: ids.DeviceId, concerned: Members) -> int:
    """What the members on a device hold."""
    of_device = node.devices[leaving].path
    return sum(path.stat().st_size for path in node.files(concerned) if of_device in path.parents)


async def by_copying(node: repair.Node) -> float:
    """Bytes a second."""
    media, leaving, concerned = retire(node)
    total_bytes = held_bytes(node, leaving, concerned)
    work = member_moves.MemberMoves(
        dataclasses.replace(node.tools, media=media),
        zones=replacement_zones.ReplacementZones(
            index=node.index,
            media=media,
            submit=node.commits.submit,
            reserve_zones_count=0,
            publisher=repair.Silence(),
        ),
        wanted=repair.SHAPE,
        reserve_zones_count=0,
        limits=member_moves.Limits(gap_percent=100),
        must_wait=lambda: False,
        publisher=repair.Silence(),
        now_seconds=time.monotonic,
    )
    started = time.perf_counter()
    while any(leaving in dict(record.members) for record in node.sealed()):
        waits = await work.step()
        assert waits < member_moves.LOOK_SECONDS or not any(
            leaving in dict(record.members) for record in node.sealed()
        ), work.progress
    seconds = time.perf_counter() - started
    media.close()
    return total_bytes / seconds


async def by_relocation(node: repair.Node, *, stripe_bytes: int) -> float:
    """Bytes a second: of the members that leave, not of what is moved for it."""
    media, leaving, concerned = retire(node)
    total_bytes = held_bytes(node, leaving, concerned)
    groups = stripe_groups.StripeGroups(
        writer="maintenance",
        wanted=repair.SHAPE,
        open_groups_max=1,
        media=media,
        index=node.index,
        pool=node.pool,
        choose_codec=lambda shape: codec_choice.choose("rs", shape),
        submit=node.commits.submit,
        run_codec=node.codec_threads.run,
        run_blocking=node.codec_threads.run,
        publisher=repair.Silence(),
    )
    stripes = stripe_reader.StripeReader(
        media,
        codecs=codec_choice.by_id,
        publisher=repair.Silence(),
        on_damage=lambda group, offset, shard, reason: None,
        run_codec=node.codec_threads.run,
    )
    moving = relocation.Relocation(
        groups=groups,
        index=node.index,
        payloads=payload_reader.PayloadReader(index=node.index, media=media, stripes=stripes),
        stripes=stripes,
        pool=node.pool,
        stripe_bytes=stripe_bytes,
        memory_bytes=node.pool.limit_bytes // 2,
        squeeze=compression.Compression(saving_percent=101),
        run_codec=node.codec_threads.run,
        submit=node.commits.submit,
        pace=repair.unpaced,
        publisher=repair.Silence(),
    )
    emptying = evacuation.Evacuation(moving, stripe_bytes=stripe_bytes)
    left = list(concerned)

    def next_source() -> evacuation.Source | None:
        if not left:
            return None
        return group_source.GroupSource(
            left.pop(0),
            index=node.index,
            media=media,
            stripes=stripes,
            run_blocking=node.codec_threads.run,
            pace=repair.unpaced,
        )

    started = time.perf_counter()
    while await emptying.step(next_source) is not None:
        pass
    seconds = time.perf_counter() - started
    await groups.drain()
    media.close()
    return total_bytes / seconds


async def measure(
    folder: pathlib.Path | None, *, total_bytes: int, stripe_bytes: int
) -> dict[str, Any]:
    """Pairs of runs, each on a node of its own."""
    found: dict[str, list[float]] = {"copying": [], "relocation": []}
    for _ in range(ROUNDS_COUNT):
        for way in found:
            with tempfile.TemporaryDirectory(dir=folder) as name:
                node = await filled(
                    pathlib.Path(name), total_bytes=total_bytes, stripe_bytes=stripe_bytes
                )
                if way == "copying":
                    speed = await by_copying(node)
                else:
                    speed = await by_relocation(node, stripe_bytes=stripe_bytes)
                found[way].append(speed)
                node.media.close()
                node.codec_threads.close()
    return {
        "stripe_bytes": stripe_bytes,
        "copying_bytes_per_second": found["copying"],
        "relocation_bytes_per_second": found["relocation"],
        "ratios": [a / b for a, b in zip(*found.values(), strict=True)],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write the figures, print a table."""
    parser = argparse.ArgumentParser(prog="couchestor_bench.draining", description=__doc__)
    parser.add_argument("--total-mib", type=int, default=1024, help="user MiB of each run")
    parser.add_argument("--folder", type=pathlib.Path, default=None, help="where to write")
    told = parser.parse_args(arguments)
    isal_codec.load_library()
    rows = []
    lines = []
    for stripe_bytes in (4 * units.MIB, units.MIB):
        row = asyncio.run(
            measure(told.folder, total_bytes=told.total_mib * units.MIB, stripe_bytes=stripe_bytes)
        )
        rows.append(row)
        lines.append(
            [
                stripe_bytes // units.KIB,
                statistics.median(row["copying_bytes_per_second"]) / 1e6,
                statistics.median(row["relocation_bytes_per_second"]) / 1e6,
                statistics.median(row["ratios"]),
            ]
        )
    print(results.table(["stripe KiB", "copying MB/s", "relocation MB/s", "ratio"], lines))
    path = results.write("draining", {"total_mib": told.total_mib, "runs": rows})
    print(f"\nraw: {path}")


if __name__ == "__main__":
    main()
