"""A target of notices: an HTTP server on a loopback port of its own."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
import time
import typing
from collections.abc import Iterator

from couchestor_bench import server_process

Record = dict[str, typing.Any]


class WebhookServer:
    """What was sent to a port, while something listens there."""

    def __init__(self) -> None:
        self.port = server_process.free_ports(1)[0]
        self.status = 200
        self.attempts_count = 0
        self.records: list[Record] = []
        self.headers: list[dict[str, str]] = []
        self._changed = threading.Condition()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/notices?a=b"

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take what is sent for the body of the block."""
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.add(body, dict(self.headers))
                self.send_response(outer.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                return

        server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def add(self, body: bytes, headers: dict[str, str]) -> None:
        """One request."""
        with self._changed:
            self.attempts_count += 1
            self.headers.append(headers)
            if self.status == 200:
                self.records += json.loads(body)["Records"]
            self._changed.notify_all()

    def wait_for(self, keys: set[str], *, seconds: float = 30.0) -> list[Record]:
        """All records once each key has been told of; fails when that takes too long."""
        ends = time.monotonic() + seconds
        with self._changed:
            while not keys <= {each["s3"]["object"]["key"] for each in self.records}:
                in_time = self._changed.wait(max(0.0, ends - time.monotonic()))
                assert in_time, f"not told of all: {self.records}"
            return list(self.records)

    def wait_for_count(self, bucket: str, count: int, *, seconds: float = 30.0) -> list[Record]:
        """What was told of a bucket, in the order of its changes, once it is so much.

        What comes more than once is given once.
        """
        ends = time.monotonic() + seconds
        with self._changed:
            while len(found := self._of(bucket)) < count:
                in_time = self._changed.wait(max(0.0, ends - time.monotonic()))
                assert in_time, f"{len(found)} of {count} changes: {self.records}"
            return [found[sequencer] for sequencer in sorted(found)]

    def _of(self, bucket: str) -> dict[str, Record]:
        return {
            each["s3"]["object"]["sequencer"]: each
            for each in self.records
            if each["s3"]["bucket"]["name"] == bucket
        }

    def wait_for_attempts(self, count: int, *, seconds: float = 30.0) -> None:
        """Wait until so many requests have come; fails when that takes too long."""
        ends = time.monotonic() + seconds
        with self._changed:
            while self.attempts_count < count:
                in_time = self._changed.wait(max(0.0, ends - time.monotonic()))
                assert in_time, f"{self.attempts_count} attempts"
