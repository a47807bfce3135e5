"""What the heat of a fleet costs the operator: ``python -m couchestor_bench.heat --volumes 10000``.

A process of its own answers range queries as Prometheus does; this one asks, reads and scores, and
counts its own processor time and the most memory that it ever had.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

from aiohttp import web

from couchestor_bench import results
from couchestor_domain import units
from couchestor_operator.adapters import (
    prometheus,
    prometheus_access,
    prometheus_query,
    system_clock,
)
from couchestor_operator.control import heat

WINDOW_SECONDS = 3600.0


def answer(form: dict[str, str], volumes_count: int) -> bytes:
    """What Prometheus would say of that many volumes, with labels and digits as it has them."""
    start_seconds, step_seconds = float(form["start"]), float(form["step"])
    count = round((float(form["end"]) - start_seconds) / step_seconds) + 1
    result = [
        {
            "metric": {
                "volume": f"pvc-00000000-0000-4000-8000-{volume:012d}",
                "node": f"node-{volume % 100}",
                "instance": f"10.0.0.{volume % 100}:9502",
                "job": "mayastor-metrics-exporter",
                "namespace": "mayastor",
            },
            "values": [
                [start_seconds + index * step_seconds, f"{volume / 7 + index:.14f}"]
                for index in range(count)
            ],
        }
        for volume in range(volumes_count)
    ]
    data = {"resultType": "matrix", "result": result}
    return json.dumps({"status": "success", "data": data}, separators=(",", ":")).encode()


def serve(volumes_count: int) -> None:
    """Answer on a free port, which is printed, until standard input ends."""

    async def handle(request: web.Request) -> web.StreamResponse:
        form = {name: str(value) for name, value in (await request.post()).items()}
        response = web.Response(body=answer(form, volumes_count), content_type="application/json")
        response.enable_compression()
        return response

    async def run() -> None:
        application = web.Application()
        application.router.add_post(prometheus_access.RANGE_PATH, handle)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        print(runner.addresses[0][1], flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await runner.cleanup()

    asyncio.run(run())


async def measure(url: str, *, volumes_count: int, rounds_count: int) -> dict[str, object]:
    """Ask that often; processor seconds of this process and its memory."""
    before_bytes = _peak_bytes()
    cpu_seconds: list[float] = []
    longest_block_seconds = 0.0
    async with prometheus.opened(
        prometheus_access.Access(url=url, deadline_seconds=120),
        prometheus_query.OPENEBS,
        trust=heat.Trust(),
        clock=system_clock.SystemClock(),
    ) as source:
        for _ in range(rounds_count):
            asked = asyncio.ensure_future(source.measure(WINDOW_SECONDS))
            started_seconds = time.process_time()
            turn_seconds = time.perf_counter()
            while not asked.done():
                await asyncio.sleep(0.001)
                longest_block_seconds = max(
                    longest_block_seconds, time.perf_counter() - turn_seconds
                )
                turn_seconds = time.perf_counter()
            reading = asked.result()
            cpu_seconds.append(time.process_time() - started_seconds)
            known = sum(isinstance(score, heat.HeatScore) for score in reading.scores.values())
            if known != volumes_count:
                raise SystemExit(f"{known} of {volumes_count} volumes have a score")
    return {
        "volumes": volumes_count,
        "cpu_seconds_median": statistics.median(cpu_seconds),
        "cpu_seconds": cpu_seconds,
        "longest_block_seconds": longest_block_seconds,
        "resident_before_mib": before_bytes / units.MIB,
        "resident_peak_mib": _peak_bytes() / units.MIB,
    }


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * units.KIB


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write the figures, print them."""
    parser = argparse.ArgumentParser(prog="couchestor_bench.heat", description=__doc__)
    parser.add_argument("--volumes", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    told = parser.parse_args(arguments)
    if told.serve:
        serve(told.volumes)
        return
    command = [sys.executable, "-m", "couchestor_bench.heat", "--serve"]
    with subprocess.Popen(
        [*command, "--volumes", str(told.volumes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}"
        found = asyncio.run(measure(url, volumes_count=told.volumes, rounds_count=told.rounds))
        assert server.stdin is not None
        server.stdin.close()
    for name, value in found.items():
        print(f"{name:>24} {value}")
    print(f"\nraw: {results.write('heat', found)}")


if __name__ == "__main__":
    main()
