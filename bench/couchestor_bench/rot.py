"""Rot in one of a hundred blocks of all shards of a real node: is every one found and repaired?

``python -m couchestor_bench.rot [--total-mib 512] [--percent 1] [--seed 1]``

A node is filled and stopped. In the files of its zones one byte is flipped in so many of all 4 KiB
blocks of shards that something leads to, by seed, in no more shards of a stripe than it has parity.
The node is started again and left alone: its scrub reads everything, its rebuild brings back what
does not verify. Over when each rotted shard is byte for byte what it was, wherever it is now, and a
whole pass of the scrub has found nothing any more. Ends with status 1 when that does not happen.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import pathlib
import random
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import xxhash

from couchestor_bench import degraded, load, peers, results, server_process
from couchestor_daemon.adapters import directory_layout, lmdb_index, zone_files
from couchestor_daemon.app import preparation
from couchestor_daemon.formats import frame, l2p_record, media_records, shard
from couchestor_domain import ids, units

SIZES_BYTES: Final = (4 * units.MIB, 512 * units.KIB, 160 * units.KIB)
"""Of the objects: a full stripe each, and shorter ones; a third of the bytes each."""
ZONE_BYTES: Final = 16 * units.MIB
POLL_SECONDS: Final = 0.5


class Shard(NamedTuple):
    """A shard of a stripe that something leads to."""

    group_id: int
    offset_bytes: int
    chunk_bytes: int
    shard_index: int


class Node:
    """The folders of a node, read beside it."""

    def __init__(self, data_dir: pathlib.Path) -> None:
        self._data_dir = data_dir
        self._zones = {
            ids.DeviceId(directory_layout.read_identity(path).device_id): path / "zones"
            for path in sorted((data_dir / "devices").iterdir())
        }

    @contextlib.contextmanager
    def _groups(self) -> Iterator[tuple[dict[int, media_records.GroupRecord], Any]]:
        index = lmdb_index.LmdbIndex(
            self._data_dir / "index", map_size_bytes=preparation.INDEX_MAP_BYTES, read_only=True
        )
        try:
            with index.read() as reader:
                groups = {
                    record.group_id: record
                    for _, value in reader.scan(*media_records.table_range(media_records.GROUPS))
                    for record in [media_records.unpack(media_records.GroupRecord, value)]
                }
                yield groups, reader
        finally:
            index.close()

    def shards(self) -> list[Shard]:
        """Every shard of every stripe that the L2P leads to."""
        with self._groups() as (groups, reader):
            places = set()
            for _, value in reader.scan(*media_records.table_range(l2p_record.TABLE)):
                found = l2p_record.unpack(value)
                if not isinstance(found, l2p_record.JournalLocation):
                    places.add((found.group_id, found.stripe_offset_bytes, found.chunk_bytes))
            return [
                Shard(*place, index)
                for place in sorted(places)
                for index in range(len(groups[place[0]].members))
            ]

    def parity_shards(self) -> int:
        """Least of all groups."""
        with self._groups() as (groups, _):
            return min(record.parity_shards for record in groups.values())

    def files(self, shards: Sequence[Shard]) -> list[pathlib.Path | None]:
        """Where shards are now; None: what lived in the group was moved, verified, to another."""
        with self._groups() as (groups, _):
            found: list[pathlib.Path | None] = []
            for each in shards:
                if each.group_id not in groups:
                    found.append(None)
                    continue
                device_id, zone = groups[each.group_id].members[each.shard_index]
                name = zone_files.file_name(ids.ZoneIndex(zone))
                found.append(self._zones[ids.DeviceId(device_id)] / name)
            return found

    def digests(self, shards: Sequence[Shard]) -> list[int | None]:
        """Of the bytes of shards, where they are now; of none when the file is being replaced, and
        None when their group is gone."""
        found: list[int | None] = []
        for each, path in zip(shards, self.files(shards), strict=True):
            if path is None:
                found.append(None)
                continue
            try:
                with path.open("rb") as file:
                    file.seek(each.offset_bytes)
                    content = file.read(shard.shard_bytes(each.chunk_bytes))
            except FileNotFoundError:
                content = b""
            found.append(xxhash.xxh3_64_intdigest(content))
        return found


def rot(node: Node, rng: random.Random, percent: float) -> tuple[list[Shard], int, int]:
    """Flip bytes; the shards that were hurt, and how many blocks of how many.

    Raises:
        SystemExit: so many cannot rot without losing a stripe.
    """
    shards, parity_shards = node.shards(), node.parity_shards()
    blocks = [
        (number, block)
        for number, each in enumerate(shards)
        for block in range(1 + -(-each.chunk_bytes // units.BLOCK_BYTES))
    ]
    wanted = -(-int(len(blocks) * percent) // 100)
    hurt: dict[tuple[int, int], set[int]] = {}
    files = node.files(shards)
    flipped = 0
    chosen: set[int] = set()
    rng.shuffle(blocks)
    for number, block in blocks:
        each = shards[number]
        indexes = hurt.setdefault(each[:2], set())
        if len(indexes | {each.shard_index}) > parity_shards:
            continue
        indexes.add(each.shard_index)
        chosen.add(number)
        path = files[number]
        assert path is not None, "nothing is moved while the node is stopped"
        _flip(path, each.offset_bytes + _place(each, block, rng))
        flipped += 1
        if flipped == wanted:
            return [shards[number] for number in sorted(chosen)], flipped, len(blocks)
    raise SystemExit(f"only {flipped} of {wanted} blocks can rot: write more, or rot less")


def _place(each: Shard, block: int, rng: random.Random) -> int:
    """A byte of a block that is not padding; block 0 is the header's."""
    if block == 0:
        return rng.randrange(frame.FRAME_BYTES + shard.FIXED.size)
    start = (block - 1) * units.BLOCK_BYTES
    length = min(units.BLOCK_BYTES, each.chunk_bytes - start)
    return shard.header_bytes(each.chunk_bytes) + start + rng.randrange(length)


def _flip(path: pathlib.Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        (value,) = file.read(1)
        file.seek(offset)
        file.write(bytes([value ^ 0xFF]))


def status(server: server_process.ServerProcess) -> dict[str, Any]:
    """What the node says of itself."""
    port = server.command[server.command.index("--health-port") + 1]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=10) as answer:
        found: dict[str, Any] = json.load(answer).get("node") or {}
    return found


def wait(
    server: server_process.ServerProcess,
    *,
    node: Node,
    hurt: Sequence[Shard],
    before: Sequence[int | None],
    deadline_seconds: float,
) -> dict[str, float]:
    """Until everything is repaired; seconds until every shard was back, and until a whole pass has
    found nothing; shards still damaged at the deadline; shards rebuilt, and moved with their
    group."""
    began = time.monotonic()
    moved_count = 0
    left = list(range(len(hurt)))
    repaired_seconds = 0.0
    passes: dict[str, dict[str, Any]] = {}
    while True:
        said = status(server)
        scrub = said.get("scrub") or {}
        for each in (scrub.get("last") or {}, scrub.get("now") or {}):
            if each.get("ended_at"):
                passes[str(each["began_at"])] = each
        if left:
            digests = node.digests([hurt[number] for number in left])
            moved_count += digests.count(None)
            left = [
                n
                for n, digest in zip(left, digests, strict=True)
                if digest is not None and digest != before[n]
            ]
            repaired_seconds = time.monotonic() - began
        newest = passes[max(passes)] if passes else {}
        is_quiet = not left and newest and not newest["shards_damaged"]
        if is_quiet or time.monotonic() - began > deadline_seconds:
            return {
                "left": len(left),
                "moved": moved_count,
                "passes": len(passes),
                "seconds_until_repaired": repaired_seconds,
                "seconds_until_a_clean_pass": time.monotonic() - began if is_quiet else -1.0,
                "found_in_one_pass": max((p["shards_damaged"] for p in passes.values()), default=0),
                "rebuilt": sum(each["shards_rebuilt"] for each in passes.values())
                + scrub.get("shards_rebuilt_since", 0),
            }
        time.sleep(POLL_SECONDS)


def main(argv: Sequence[str] | None = None) -> int:
    """Rot, wait, write the figures. Returns 1 when something stays damaged."""
    parser = argparse.ArgumentParser(prog="couchestor_bench.rot", description=__doc__)
    parser.add_argument("--total-mib", type=int, default=512, help="user MiB")
    parser.add_argument("--percent", type=float, default=1.0, help="of all blocks of shards")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--deadline-seconds", type=float, default=600.0)
    parser.add_argument("--folder", type=pathlib.Path, default=None, help="where to write")
    told = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(dir=told.folder) as name:
        # Twice what the shards take, for the rebuild, and as much again for log and checkpoints.
        capacity = max(1024, told.total_mib) * units.MIB
        server = server_process.couchestor(
            pathlib.Path(name) / "node",
            options={
                "device-capacity-bytes": str(capacity),
                "zone-bytes": str(ZONE_BYTES),
                "scrub-period-seconds": "5",
                "zone-grace-seconds": "1",
            },
        )
        with server:
            peers.make_bucket(server)
            for size_bytes in SIZES_BYTES:
                count = max(1, told.total_mib * units.MIB // size_bytes // len(SIZES_BYTES))
                paths = tuple(f"/{peers.BUCKET}/{size_bytes}/{n:06d}" for n in range(count))
                degraded.fill(server, _plan(server, paths, size_bytes))
            if server.terminate():
                raise SystemExit(f"the node did not stop in order:\n{server.log_tail()}")
            node = Node(server.data_dir)
            every = node.shards()
            digests = dict(zip(every, node.digests(every), strict=True))
            hurt, flipped, blocks = rot(node, random.Random(told.seed), told.percent)
            before = [digests[each] for each in hurt]
            unharmed = sum(a == b for a, b in zip(before, node.digests(hurt), strict=True))
            assert not unharmed, f"{unharmed} shards are as they were"
            server.restart()
            found = wait(
                server,
                node=node,
                hurt=hurt,
                before=before,
                deadline_seconds=told.deadline_seconds,
            )
    row = {
        "shards": len(every),
        "blocks": blocks,
        "blocks_rotted": flipped,
        "shards_rotted": len(hurt),
        **found,
    }
    print(results.table(list(row), [list(row.values())]))
    settings = {key: str(value) for key, value in vars(told).items() if key != "folder"}
    print(f"\nraw: {results.write('rot', {'settings': settings, 'runs': [row]})}")
    if found["left"] or found["seconds_until_a_clean_pass"] < 0:
        print(f"{found['left']} of {len(hurt)} shards are still damaged", file=sys.stderr)
        return 1
    return 0


def _plan(
    server: server_process.ServerProcess, paths: tuple[str, ...], size_bytes: int
) -> load.Plan:
    return load.Plan(
        host="127.0.0.1",
        port=server.port,
        credentials=server.credentials,
        method="PUT",
        paths=paths,
        size_bytes=size_bytes,
        connections=4,
        seconds=0,
    )


if __name__ == "__main__":
    raise SystemExit(main())
