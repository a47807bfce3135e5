"""CoucheStor and SeaweedFS side by side: same load, same machine, runs taken in turn.

``python -m couchestor_bench.peers [--seconds 3] [--runs 7] [--connections 32]``

Both run with their default durability, which differs: CoucheStor answers a PUT when three copies
have been flushed to media, SeaweedFS when one copy is in the page cache. Both servers stay up for
all runs and the generator is shared, so what disturbs the machine disturbs both. A ratio is the
median over pairs of adjacent runs, one of each server: a machine that drifts, as shared ones do,
moves both of a pair alike, but not the first run and the last. The range over the pairs is printed
beside it.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import statistics
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Final

from couchestor_bench import load, results, server_process, signing

BUCKET: Final = "bench"
_KIB: Final = 1024
SIZES_BYTES: Final = {"4 KiB": 4 * _KIB, "1 MiB": 1024 * _KIB}
LOADS: Final = tuple(f"{method} {size}" for size in SIZES_BYTES for method in ("PUT", "GET"))
FIGURES: Final = ("per_second", "p50_ms", "p99_ms", "cpu_us_per_request")
_SET_BYTES_MAX: Final = 64 * 1024 * _KIB
_SET_KEYS_MAX: Final = 2000
_BUCKET_SECONDS_MAX: Final = 30.0
_IDLE_SECONDS: Final = 1.0


def make_bucket(server: server_process.ServerProcess, name: str = BUCKET) -> None:
    """Create the bucket, waiting out a server that is not yet able to.

    Raises:
        RuntimeError: Still refused after 30 s.
    """
    deadline = time.monotonic() + _BUCKET_SECONDS_MAX
    while True:
        headers = signing.sign_headers(
            server.credentials,
            "PUT",
            host=server.host,
            path=f"/{name}",
            payload_sha256=signing.EMPTY_SHA256,
        )
        asked = urllib.request.Request(f"{server.endpoint}/{name}", method="PUT", headers=headers)
        try:
            with urllib.request.urlopen(asked, timeout=10):
                return
        except OSError as exc:
            if isinstance(exc, urllib.error.HTTPError):
                exc.close()
                if exc.code == 409:
                    return
            if time.monotonic() > deadline:
                raise RuntimeError(f"{server.name}: no bucket: {exc}") from exc
            time.sleep(0.5)


def plan_for(
    server: server_process.ServerProcess,
    method: str,
    size_bytes: int,
    *,
    connections: int,
    seconds: float,
    process_count: int = 1,
) -> load.Plan:
    """Load over a fixed set of keys, which fits the memory of either server."""
    count = min(_SET_KEYS_MAX, max(connections, _SET_BYTES_MAX // size_bytes))
    return load.Plan(
        host="127.0.0.1",
        port=server.port,
        credentials=server.credentials,
        method=method,
        paths=tuple(f"/{BUCKET}/{size_bytes}/{i:06d}" for i in range(count)),
        size_bytes=size_bytes,
        connections=connections,
        seconds=seconds,
        process_count=process_count,
    )


def measure(server: server_process.ServerProcess, plan: load.Plan) -> dict[str, object]:
    """One run with the CPU time that the server's processes spent on each request."""
    before = server.cpu_seconds()
    measured = load.run(plan)
    cpu_seconds = server.cpu_seconds() - before
    # The warm-up costs CPU too but is not counted among the requests: take its share out.
    measured_share = plan.seconds / (plan.seconds + plan.warmup_seconds) if plan.seconds else 1.0
    good_count = max(1, len(measured.latencies_seconds))
    return {
        **measured.summary(),
        "cpu_us_per_request": cpu_seconds * measured_share / good_count * 1e6,
        "rss_bytes": sum(server.rss_bytes().values()),
    }


def compare(
    servers: Sequence[server_process.ServerProcess],
    *,
    run_count: int,
    connections: int,
    seconds: float,
    process_count: int = 1,
    loads: Sequence[str] = LOADS,
) -> list[dict[str, object]]:
    """Raw rows, one for each server, method, size and run; the servers take turns."""
    rows: list[dict[str, object]] = []
    for server in servers:
        make_bucket(server)
    for size_name, size_bytes in SIZES_BYTES.items():
        for method in ("PUT", "GET"):
            if f"{method} {size_name}" not in loads:
                continue
            for run_index in range(run_count):
                # Alternating who goes first keeps a drift of the machine from favouring one.
                order = servers if run_index % 2 == 0 else list(reversed(servers))
                for server in order:
                    plan = plan_for(
                        server,
                        method,
                        size_bytes,
                        connections=connections,
                        seconds=seconds,
                        process_count=process_count,
                    )
                    if run_index == 0:
                        _fill(plan)
                    # What the other server left in the page cache must not be written in this
                    # one's time.
                    os.sync()
                    time.sleep(_IDLE_SECONDS)
                    row = measure(server, plan)
                    labels = {"server": server.name, "method": method, "size": size_name}
                    rows.append({**labels, "run": run_index, **row})
                    print(
                        f"{server.name:<12}{method} {size_name} run {run_index}: "
                        f"{row['per_second']:,.0f}/s, p99 {row['p99_ms']:.1f} ms, "
                        f"{row['cpu_us_per_request']:.0f} us CPU, errors {row['error_count']}",
                        flush=True,
                    )
    return rows


def ratios(rows: Sequence[dict[str, object]], ours: str, theirs: str) -> str:
    """Medians of both, and the median of the pairs' ratios, as a table."""
    lines: list[list[object]] = []
    shapes = dict.fromkeys((str(row["method"]), str(row["size"])) for row in rows)
    for method, size in shapes:
        chosen = [row for row in rows if (row["method"], row["size"]) == (method, size)]
        line: list[object] = [f"{method} {size}"]
        for figure in FIGURES:
            pairs = list(
                zip(*(_values(chosen, name, figure) for name in (ours, theirs)), strict=True)
            )
            pair_ratios = [mine / other if other else float("nan") for mine, other in pairs]
            line += [statistics.median(values) for values in zip(*pairs, strict=True)]
            text = f"{statistics.median(pair_ratios):.2f}x"
            if figure == FIGURES[0]:
                text += f" ({min(pair_ratios):.2f} to {max(pair_ratios):.2f})"
            line.append(text)
        errors = sum(int(str(row["error_count"])) for row in chosen)
        lines.append([*line, errors])
    header = ["load"]
    for title in ("req/s", "p50 ms", "p99 ms", "CPU us/req"):
        header += [f"{title} {ours}", theirs, "ratio"]
    return results.table([*header, "errors"], lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run both servers, write the raw figures, print the table. Returns 1 if requests failed."""
    parser = argparse.ArgumentParser(prog="couchestor_bench.peers", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="measured time of each run")
    parser.add_argument("--runs", type=int, default=7, help="runs of each server and load")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--processes", type=int, default=1, help="generator processes")
    parser.add_argument("--only", choices=("couchestor", "seaweedfs"), help="one server alone")
    parser.add_argument(
        "--load", action="append", choices=LOADS, help="this load only; may be repeated"
    )
    parser.add_argument("--folder", type=pathlib.Path, help="where both keep their data")
    told = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(dir=told.folder) as folder:
        place = pathlib.Path(folder)
        makers = {"couchestor": server_process.couchestor, "seaweedfs": server_process.seaweedfs}
        names = [told.only] if told.only else list(makers)
        servers = [makers[name](place / name) for name in names]
        try:
            for server in servers:
                server.start()
            rows = compare(
                servers,
                run_count=told.runs,
                connections=told.connections,
                seconds=told.seconds,
                process_count=told.processes,
                loads=told.load or LOADS,
            )
        finally:
            for server in servers:
                server.kill()
        settings = {key: str(value) for key, value in vars(told).items()}
        path = results.write("peers", {"settings": settings, "runs": rows}, data_dir=place)
    print(f"\n{ratios(rows, names[0], names[-1])}\n\nraw: {path}")
    return 1 if any(row["error_count"] for row in rows) else 0


def _fill(plan: load.Plan) -> None:
    once = load.Plan(
        host=plan.host,
        port=plan.port,
        credentials=plan.credentials,
        method="PUT",
        paths=plan.paths,
        size_bytes=plan.size_bytes,
        connections=min(8, plan.connections),
        seconds=0,
    )
    filled = load.run(once)
    if filled.error_count:
        raise RuntimeError(f"filling failed: {dict(filled.errors)}")


def _values(rows: Sequence[dict[str, object]], server: str, figure: str) -> list[float]:
    """One value for each run, by run."""
    chosen = [row for row in rows if row["server"] == server]
    return [float(str(row[figure])) for row in sorted(chosen, key=lambda row: int(str(row["run"])))]


if __name__ == "__main__":
    raise SystemExit(main())
