"""Memory of a server while one large object streams in and out of it.

``python -m couchestor_bench.memory [--size-mib 4096] [--server couchestor]``
"""

from __future__ import annotations

import argparse
import http.client
import pathlib
import tempfile
import threading
import time
import types
from collections.abc import Iterator, Sequence
from typing import Final, Self

from couchestor_bench import load, peers, results, server_process, signing

_MIB: Final = 1024 * 1024
_SAMPLE_SECONDS: Final = 0.1
_SETTLE_SECONDS: Final = 3.0
_TIMEOUT_SECONDS: Final = 600.0
_PATH: Final = f"/{peers.BUCKET}/large"


class Watch:
    """Samples the resident memory of each process of a server while it is entered."""

    def __init__(self, server: server_process.ServerProcess) -> None:
        self._server = server
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.first = server.rss_bytes()
        self.peak = dict(self.first)

    def growth_bytes(self) -> dict[int, int]:
        """Peak over the first sample, by pid."""
        return {pid: peak - self.first.get(pid, 0) for pid, peak in self.peak.items()}

    def _sample(self) -> None:
        while not self._stop.wait(_SAMPLE_SECONDS):
            for pid, size in self._server.rss_bytes().items():
                self.peak[pid] = max(size, self.peak.get(pid, 0))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()


def stream_put(server: server_process.ServerProcess, size_mib: int) -> float:
    """PUT one object in a single request. Returns seconds.

    Raises:
        RuntimeError: Refused.
    """
    block = load.body_of(_MIB)

    def blocks() -> Iterator[bytes]:
        for _ in range(size_mib):
            yield block

    headers = signing.sign_headers(server.credentials, "PUT", host=server.host, path=_PATH)
    headers["content-length"] = str(size_mib * _MIB)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=_TIMEOUT_SECONDS)
    begin = time.perf_counter()
    try:
        connection.request("PUT", _PATH, body=blocks(), headers=headers)
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise RuntimeError(f"PUT: {answer.status} {text[:300]!r}")
    return time.perf_counter() - begin


def stream_get(server: server_process.ServerProcess, size_mib: int) -> float:
    """GET it back, comparing every byte. Returns seconds.

    Raises:
        RuntimeError: Refused, cut short or different.
    """
    block = load.body_of(_MIB)
    headers = signing.sign_headers(server.credentials, "GET", host=server.host, path=_PATH)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=_TIMEOUT_SECONDS)
    begin = time.perf_counter()
    try:
        connection.request("GET", _PATH, headers=headers)
        answer = connection.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"GET: {answer.status}")
        for index in range(size_mib):
            if answer.read(_MIB) != block:
                raise RuntimeError(f"GET differs within MiB {index}")
        if answer.read(1):
            raise RuntimeError("GET is longer than what was written")
    finally:
        connection.close()
    return time.perf_counter() - begin


def measure(server: server_process.ServerProcess, size_mib: int) -> dict[str, object]:
    """Idle memory, then growth and speed of one streamed PUT and GET."""
    peers.make_bucket(server)
    time.sleep(_SETTLE_SECONDS)
    figures: dict[str, object] = {
        "server": server.name,
        "size_mib": size_mib,
        "idle_rss_bytes": server.rss_bytes(),
    }
    for name, action in (("put", stream_put), ("get", stream_get)):
        with Watch(server) as watch:
            took = action(server, size_mib)
        figures[f"{name}_seconds"] = took
        figures[f"{name}_mib_per_second"] = size_mib / took
        figures[f"{name}_growth_bytes"] = watch.growth_bytes()
    return figures


def main(argv: Sequence[str] | None = None) -> int:
    """Measure one server, write the raw figures, print a table."""
    parser = argparse.ArgumentParser(prog="couchestor_bench.memory", description=__doc__)
    parser.add_argument("--size-mib", type=int, default=4096)
    parser.add_argument("--server", choices=("couchestor", "seaweedfs"), default="couchestor")
    parser.add_argument("--folder", type=pathlib.Path, help="where the server keeps its data")
    told = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(dir=told.folder) as folder:
        place = pathlib.Path(folder) / "node"
        ours = told.server == "couchestor"
        make = server_process.couchestor if ours else server_process.seaweedfs
        with make(place) as server:
            figures = measure(server, told.size_mib)
        path = results.write("memory", figures, data_dir=place)
    rows: list[list[object]] = []
    idle, put, get = (
        figures[name] for name in ("idle_rss_bytes", "put_growth_bytes", "get_growth_bytes")
    )
    assert isinstance(idle, dict)
    assert isinstance(put, dict)
    assert isinstance(get, dict)
    for pid in idle:
        rows.append([str(pid), *(each.get(pid, 0) / _MIB for each in (idle, put, get))])
    print(results.table(["pid", "idle MiB", "PUT growth MiB", "GET growth MiB"], rows))
    print(f"\nraw: {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
