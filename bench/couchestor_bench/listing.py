"""Time of one listing page in a small and in a large bucket.

``python -m couchestor_bench.listing [--counts 10000,1000000] [--server couchestor]``
"""

from __future__ import annotations

import argparse
import http.client
import pathlib
import random
import re
import statistics
import tempfile
import time
from collections.abc import Sequence
from typing import Final

from couchestor_bench import load, peers, results, server_process, signing

_BATCH_KEYS: Final = 10_000
_PAGE_KEYS: Final = 1000
_SAMPLE_COUNT: Final = 50


def fill(server: server_process.ServerProcess, bucket: str, count: int) -> None:
    """Create ``count`` empty objects in a new bucket.

    Raises:
        RuntimeError: One was refused.
    """
    peers.make_bucket(server, bucket)
    for first in range(0, count, _BATCH_KEYS):
        # Signed batch by batch, because a signature is only good for some minutes.
        numbers = range(first, min(count, first + _BATCH_KEYS))
        plan = load.Plan(
            host="127.0.0.1",
            port=server.port,
            credentials=server.credentials,
            method="PUT",
            paths=tuple(f"/{bucket}/{number:09d}" for number in numbers),
            connections=32,
            seconds=0,
        )
        filled = load.run(plan)
        if filled.error_count:
            raise RuntimeError(f"filling failed: {dict(filled.errors)}")


def page_times(server: server_process.ServerProcess, bucket: str, count: int) -> list[float]:
    """Seconds of pages of 1,000 keys that begin at random places.

    Raises:
        RuntimeError: A page was refused or not what was written.
    """
    dice, times = random.Random(count), []
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    for _ in range(_SAMPLE_COUNT):
        start = dice.randrange(max(1, count - _PAGE_KEYS - 1))
        query = {
            "list-type": "2",
            "max-keys": str(_PAGE_KEYS),
            "start-after": f"{start:09d}",
        }
        path = f"/{bucket}"
        headers = signing.sign_headers(
            server.credentials, "GET", host=server.host, path=path, query=query
        )
        begin = time.perf_counter()
        connection.request("GET", f"{path}?{signing.encode_query(query)}", headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        times.append(time.perf_counter() - begin)
        keys = re.findall(rb"<Key>(\d+)</Key>", body)
        wanted = range(start + 1, min(count, start + 1 + _PAGE_KEYS))
        if answer.status != 200 or [int(key) for key in keys] != list(wanted):
            raise RuntimeError(f"page after {start}: {answer.status}, {len(keys)} keys")
    connection.close()
    return times


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write the raw figures, print a table."""
    parser = argparse.ArgumentParser(prog="couchestor_bench.listing", description=__doc__)
    parser.add_argument("--counts", default="10000,1000000", help="objects, comma separated")
    parser.add_argument("--server", choices=("couchestor", "seaweedfs"), default="couchestor")
    parser.add_argument("--folder", type=pathlib.Path, help="where the server keeps its data")
    told = parser.parse_args(argv)
    rows: list[list[object]] = []
    raw: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(dir=told.folder) as folder:
        place = pathlib.Path(folder) / "node"
        ours = told.server == "couchestor"
        make = server_process.couchestor if ours else server_process.seaweedfs
        with make(place) as server:
            for count in (int(word) for word in told.counts.split(",")):
                fill(server, f"list-{count}", count)
                times = page_times(server, f"list-{count}", count)
                raw[str(count)] = times
                rows.append([count, statistics.median(times) * 1000, max(times) * 1000])
        path = results.write("listing", {"server": told.server, "seconds": raw}, data_dir=place)
    print(results.table(["objects", "median page ms", "slowest ms"], rows))
    print(f"\nraw: {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
