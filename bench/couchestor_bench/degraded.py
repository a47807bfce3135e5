"""GET throughput with one device gone, beside the same node with all of them.

``python -m couchestor_bench.degraded [--seconds 3] [--runs 7] [--connections 16]``

Two nodes with the same objects serve at once and are loaded in turn. The device folder of one of
them that holds the most data shards is deleted under it, the worst a single loss can do: a read
that wanted a chunk of it reads parity instead and decodes. Both nodes leave their groups as they
are, also those that are sealed nearly empty, which a node would pack together within seconds: so
the loss stays as bad as it was. How many stripes are decoded is counted in a pass of its own, over
every object once.
"""

from __future__ import annotations

import argparse
import collections
import pathlib
import re
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from typing import Final

from couchestor_bench import load, peers, results, server_process
from couchestor_daemon.formats import zone_header

_KIB: Final = 1024
_SET_BYTES: Final = 256 * 1024 * _KIB
_IDLE_SECONDS: Final = 1.0
_OPTIONS: Final = {"reclaim-dead-percent": "100", "rebuild-delay-seconds": "86400"}
"""Nothing is moved off the device that is gone."""
_DEGRADED: Final = re.compile(r"^couchestor_degraded_reads_total (\S+)$", re.MULTILINE)


def data_shards_by_device(data_dir: pathlib.Path) -> collections.Counter[pathlib.Path]:
    """How many stripe groups have a data shard on each embedded device."""
    counts: collections.Counter[pathlib.Path] = collections.Counter()
    for path in sorted(data_dir.glob("devices/*/zones/*.zone")):
        with path.open("rb") as file:
            block = memoryview(file.read(zone_header.ZONE_HEADER_BYTES))
        header = zone_header.unpack(block)
        device = path.parents[1]
        counts[device] += 0
        if header is not None and header.role is zone_header.ZoneRole.GROUP:
            counts[device] += header.member_index < header.data_shards
    return counts


def degraded_reads(metrics_url: str) -> float:
    """Reads served by decoding so far. Raises RuntimeError when the page does not say."""
    with urllib.request.urlopen(metrics_url, timeout=10) as answer:
        found = _DEGRADED.search(answer.read().decode())
    if found is None:
        raise RuntimeError(f"{metrics_url} does not count degraded reads")
    return float(found[1])


def fill(server: server_process.ServerProcess, plan: load.Plan) -> None:
    """PUT every object of ``plan`` once. Raises RuntimeError when one is refused."""
    written = load.run(
        load.Plan(
            host=plan.host,
            port=plan.port,
            credentials=plan.credentials,
            method="PUT",
            paths=plan.paths,
            size_bytes=plan.size_bytes,
            connections=8,
            seconds=0,
        )
    )
    if written.error_count:
        raise RuntimeError(f"{server.name}: filling failed: {dict(written.errors)}")


def plan_of(
    server: server_process.ServerProcess, size_bytes: int, connections: int, seconds: float
) -> load.Plan:
    """GETs over a set of objects that fits the page cache."""
    count = max(connections, _SET_BYTES // size_bytes)
    return load.Plan(
        host="127.0.0.1",
        port=server.port,
        credentials=server.credentials,
        method="GET",
        paths=tuple(f"/{peers.BUCKET}/{number:06d}" for number in range(count)),
        size_bytes=size_bytes,
        connections=connections,
        seconds=seconds,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write the raw figures, print the table. Returns 1 if requests failed."""
    parser = argparse.ArgumentParser(prog="couchestor_bench.degraded", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="measured time of each run")
    parser.add_argument("--runs", type=int, default=7, help="runs of each node")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--size-kib", type=int, default=1024, help="size of the objects")
    told = parser.parse_args(argv)
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        metrics_port = server_process.free_ports(1)[0]
        metrics_url = f"http://127.0.0.1:{metrics_port}/metrics"
        healthy = server_process.couchestor(place / "healthy", options=_OPTIONS)
        wounded = server_process.couchestor(
            place / "degraded", options={**_OPTIONS, "metrics-port": str(metrics_port)}
        )
        wounded.name = "degraded"
        servers = [healthy, wounded]
        try:
            for server in servers:
                server.start()
                peers.make_bucket(server)
                fill(server, plan_of(server, told.size_kib * _KIB, told.connections, 0))
            (victim, shards_count), *_ = data_shards_by_device(wounded.data_dir).most_common(1)
            server_process.delete_in_use(victim)
            print(f"deleted {victim.name}: {shards_count} groups had a data shard on it")
            for run_index in range(told.runs):
                for server in servers if run_index % 2 == 0 else servers[::-1]:
                    time.sleep(_IDLE_SECONDS)
                    plan = plan_of(server, told.size_kib * _KIB, told.connections, told.seconds)
                    row = peers.measure(server, plan)
                    rows.append({**row, "server": server.name, "run": run_index})
                    print(
                        f"{server.name:<12}run {run_index}: {row['per_second']:,.0f}/s, "
                        f"{row['cpu_us_per_request']:.0f} us CPU, errors {row['error_count']}",
                        flush=True,
                    )
            before = degraded_reads(metrics_url)
            once = load.run(plan_of(wounded, told.size_kib * _KIB, told.connections, 0))
            decoded_count = degraded_reads(metrics_url) - before
        finally:
            for server in servers:
                server.kill()
        settings = {key: str(value) for key, value in vars(told).items()}
        decoded = {"gets_count": once.total_count, "decoded_count": decoded_count}
        path = results.write(
            "degraded", {"settings": settings, "runs": rows, "once": decoded}, data_dir=place
        )
    print(f"\n{_summary(rows, decoded_count / once.total_count)}\n\nraw: {path}")
    return 1 if any(row["error_count"] for row in rows) else 0


def _summary(rows: Sequence[dict[str, object]], decoded_share: float) -> str:
    def values(server: str, figure: str) -> list[float]:
        chosen = sorted(
            (row for row in rows if row["server"] == server), key=lambda row: int(str(row["run"]))
        )
        return [float(str(row[figure])) for row in chosen]

    line: list[object] = []
    for figure in ("per_second", "cpu_us_per_request"):
        pairs = list(zip(values("degraded", figure), values("couchestor", figure), strict=True))
        ratios = [mine / other for mine, other in pairs]
        line += [statistics.median(column) for column in zip(*pairs, strict=True)]
        line.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    header = ["GET/s one device gone", "all there", "ratio", "CPU us/GET", "all there", "ratio"]
    return results.table([*header, "stripes decoded per GET"], [[*line, decoded_share]])


if __name__ == "__main__":
    raise SystemExit(main())
