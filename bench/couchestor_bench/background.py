"""What clients feel of a rebuild, and how fast it is beside them.

``python -m couchestor_bench.background [--runs 5] [--seconds 3]``

Two nodes of seven devices hold the same objects. One of them lost a device while it was stopped,
and rebuilds it on the others while both are loaded in turn with PUT and GET of 4 KiB and of 1 MiB.
A ratio is the median over pairs of adjacent runs, as in ``peers``. A pair counts only if the
rebuild had groups to do at its beginning and its end; the background's speed is limited so that it
lasts. A rebuilt byte takes four to read, one to write and one to read back.

What rebuild and scrub reach alone, against codec and devices, tells ``couchestor_bench.repair``;
the processor time of destage ``couchestor_bench.destage``.
"""

from __future__ import annotations

import argparse
import pathlib
import re
import shutil
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from typing import Any, Final

from couchestor_bench import degraded, load, peers, results, server_process

_KIB: Final = 1024
_MIB: Final = 1024 * _KIB
_DEVICES_COUNT: Final = 7
_FIGURES: Final = ("per_second", "p50_ms", "p99_ms")
_START_SECONDS_MAX: Final = 60.0
_IDLE_SECONDS: Final = 1.0


def gauges(server: server_process.ServerProcess) -> dict[str, float]:
    """What the node says of its rebuild."""
    port = server.command[server.command.index("--metrics-port") + 1]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        page = answer.read().decode()
    names = ("rebuilt_bytes", "rebuild_left_bytes", "rebuild_groups_waiting")
    found = {
        name: re.findall(rf"^couchestor_{name}(?:_total)?(?:{{.*}})? (\S+)$", page, re.M)
        for name in names
    }
    return {name: sum(map(float, values)) for name, values in found.items()}


def fill_ballast(server: server_process.ServerProcess, total_mib: int) -> None:
    """Stripes that nobody reads, so that the rebuild has something to do."""
    degraded.fill(
        server,
        load.Plan(
            host="127.0.0.1",
            port=server.port,
            credentials=server.credentials,
            method="PUT",
            paths=tuple(
                f"/{peers.BUCKET}/ballast/{number:06d}" for number in range(total_mib // 4)
            ),
            size_bytes=4 * _MIB,
            connections=4,
            seconds=0,
        ),
    )


def lose_device(server: server_process.ServerProcess) -> None:
    """Stop, delete the device with the most data shards, start, wait for the rebuild to begin.

    Raises:
        RuntimeError: It did not begin.
    """
    server.terminate()
    devices = server.data_dir.parent / f"{server.data_dir.name}-devices"
    counts = {path: sum(1 for _ in path.glob("zones/*.zone")) for path in sorted(devices.iterdir())}
    shutil.rmtree(max(counts, key=lambda path: counts[path]))
    server.restart()
    deadline = time.monotonic() + _START_SECONDS_MAX
    while not gauges(server)["rebuilt_bytes"]:
        if time.monotonic() > deadline:
            raise RuntimeError(f"no rebuild within {_START_SECONDS_MAX:g} s\n{server.log_tail()}")
        time.sleep(0.2)


def make(place: pathlib.Path, name: str, told: argparse.Namespace) -> server_process.ServerProcess:
    """A node over seven folders."""
    folders = [place / f"{name}-devices" / f"d{number}" for number in range(_DEVICES_COUNT)]
    for folder in folders:
        folder.mkdir(parents=True)
    server = server_process.couchestor(
        place / name,
        options={
            "devices": ",".join(map(str, folders)),
            "device-capacity-bytes": f"{told.device_mib}MiB",
            "zone-bytes": "16MiB",
            "rebuild-delay-seconds": "1",
            "scrub-period-seconds": "0",
            "background-bytes-per-second": f"{told.background_mib}MiB",
        },
    )
    server.name = name
    return server


def compare(
    servers: Sequence[server_process.ServerProcess], told: argparse.Namespace
) -> list[dict[str, Any]]:
    """Raw rows, one for each node, kind of load and run."""
    rebuilding, rows = servers[1], list[dict[str, Any]]()
    for run_index in range(told.runs):
        for size_name, size_bytes in peers.SIZES_BYTES.items():
            for method in ("PUT", "GET"):
                for server in servers if run_index % 2 == 0 else servers[::-1]:
                    time.sleep(_IDLE_SECONDS)
                    before, began = gauges(rebuilding), time.monotonic()
                    plan = peers.plan_for(
                        server,
                        method,
                        size_bytes,
                        connections=told.connections,
                        seconds=told.seconds,
                    )
                    row = peers.measure(server, plan)
                    after, took = gauges(rebuilding), time.monotonic() - began
                    rebuilt = after["rebuilt_bytes"] - before["rebuilt_bytes"]
                    row |= {
                        "server": server.name,
                        "load": f"{method} {size_name}",
                        "run": run_index,
                        "rebuilt_mib_per_second": rebuilt / took / _MIB,
                        "is_beside_rebuild": bool(
                            before["rebuild_groups_waiting"] and after["rebuild_groups_waiting"]
                        ),
                    }
                    rows.append(row)
                    print(
                        f"{server.name:<11}{row['load']} run {run_index}: "
                        f"{row['per_second']:,.0f}/s, p50 {row['p50_ms']:.1f} ms, p99 "
                        f"{row['p99_ms']:.1f} ms, errors {row['error_count']}; rebuild "
                        f"{row['rebuilt_mib_per_second']:.1f} MiB/s",
                        flush=True,
                    )
    return rows


def summary(rows: Sequence[dict[str, Any]]) -> str:
    """Medians of both nodes and of the pairs' ratios, over the pairs that had a rebuild beside."""
    lines: list[list[object]] = []
    for name in dict.fromkeys(row["load"] for row in rows):
        found = {(row["server"], row["run"]): row for row in rows if row["load"] == name}
        runs = sorted({run for _, run in found})
        pairs = [
            (found["rebuilding", run], found["quiet", run])
            for run in runs
            if found["rebuilding", run]["is_beside_rebuild"]
        ]
        line: list[object] = [name, f"{len(pairs)} of {len(runs)}"]
        for figure in _FIGURES:
            if not pairs:
                line += ["-"] * 3
                continue
            ratios = [with_it[figure] / without[figure] for with_it, without in pairs]
            line += [statistics.median(pair[side][figure] for pair in pairs) for side in (0, 1)]
            line.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
        speeds = [pair[0]["rebuilt_mib_per_second"] for pair in pairs]
        lines.append([*line, statistics.median(speeds) if speeds else "-"])
    header = ["load", "pairs"]
    for title in ("req/s", "p50 ms", "p99 ms"):
        header += [f"{title} rebuilding", "quiet", "ratio"]
    return results.table([*header, "rebuild MiB/s"], lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write the raw figures, print the table. Returns 1 if requests failed."""
    parser = argparse.ArgumentParser(prog="couchestor_bench.background", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="measured time of each run")
    parser.add_argument("--runs", type=int, default=5, help="runs of each node and load")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--ballast-mib", type=int, default=2048, help="what is there to rebuild")
    parser.add_argument("--device-mib", type=int, default=4096, help="capacity of a device")
    parser.add_argument(
        "--background-mib",
        type=int,
        default=24,
        help="its reads and writes a second at most; 0: any",
    )
    parser.add_argument("--folder", type=pathlib.Path, help="where both keep their data")
    told = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(dir=told.folder) as folder:
        place = pathlib.Path(folder)
        servers = [make(place, name, told) for name in ("quiet", "rebuilding")]
        try:
            for server in servers:
                server.start()
                peers.make_bucket(server)
                fill_ballast(server, told.ballast_mib)
                for size_bytes in peers.SIZES_BYTES.values():
                    plan = peers.plan_for(
                        server, "PUT", size_bytes, connections=told.connections, seconds=0
                    )
                    degraded.fill(server, plan)
            lose_device(servers[1])
            rows = compare(servers, told)
        finally:
            for server in servers:
                server.kill()
        settings = {key: str(value) for key, value in vars(told).items()}
        path = results.write("background", {"settings": settings, "runs": rows}, data_dir=place)
    print(f"\n{summary(rows)}\n\nraw: {path}")
    return 1 if any(row["error_count"] for row in rows) else 0


if __name__ == "__main__":
    raise SystemExit(main())
