"""A closed-loop load generator that costs little CPU: raw protocol, requests signed beforehand.

Each connection sends its next prepared request when the last answer is whole. Nothing is signed,
hashed, parsed beyond status and length, or allocated per byte while the clock runs, because the
generator shares its machine with the server it measures.
"""

from __future__ import annotations

import array
import asyncio
import collections
import concurrent.futures
import hashlib
import multiprocessing
import time
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import uvloop

from couchestor_bench import signing

_HEAD_BYTES_MAX: typing.Final = 64 * 1024
_STALL_SECONDS_MAX: typing.Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run of one kind of request.

    Args:
        method: GET or PUT (or HEAD, DELETE).
        paths: Cycled through; not encoded.
        size_bytes: Body of a PUT, expected body of a GET.
        connections: Requests in flight.
        seconds: Measured time after ``warmup_seconds``; 0: each path exactly once.
        signed_payload: Send the body's SHA-256, which the server then has to verify.
        process_count: Generators; connections are divided among them.
    """

    host: str
    port: int
    credentials: signing.Credentials
    method: str
    paths: tuple[str, ...]
    size_bytes: int = 0
    connections: int = 16
    seconds: float = 5.0
    warmup_seconds: float = 1.0
    signed_payload: bool = True
    process_count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a run gave. ``latencies_seconds`` holds good answers only, in no particular order."""

    latencies_seconds: np.ndarray[tuple[int], np.dtype[np.float64]]
    seconds: float
    total_count: int
    errors: Mapping[str, int] = field(default_factory=dict)

    @property
    def per_second(self) -> float:
        return len(self.latencies_seconds) / self.seconds

    @property
    def error_count(self) -> int:
        return sum(self.errors.values())

    def percentile_ms(self, percent: float) -> float:
        """NaN when nothing succeeded."""
        if not len(self.latencies_seconds):
            return float("nan")
        return float(np.percentile(self.latencies_seconds, percent)) * 1000

    def summary(self) -> dict[str, object]:
        """The figures for a JSON file."""
        return {
            "per_second": self.per_second,
            "p50_ms": self.percentile_ms(50),
            "p90_ms": self.percentile_ms(90),
            "p99_ms": self.percentile_ms(99),
            "max_ms": self.percentile_ms(100),
            "good_count": len(self.latencies_seconds),
            "total_count": self.total_count,
            "error_count": self.error_count,
            "errors": dict(self.errors),
            "seconds": self.seconds,
        }


def run(plan: Plan) -> Measured:
    """Carry out a plan and wait for it."""
    if plan.process_count <= 1:
        return _merge([_run_here(plan, 0)])
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(plan.process_count, mp_context=spawn) as pool:
        indexes = range(plan.process_count)
        return _merge(list(pool.map(_run_here, [plan] * plan.process_count, indexes)))


def prepare(plan: Plan, paths: Sequence[str]) -> list[bytes]:
    """The head of each request, signed now; good for 15 minutes by the rules of S3."""
    body = body_of(plan.size_bytes) if plan.method == "PUT" else b""
    digest = hashlib.sha256(body).hexdigest() if plan.signed_payload else signing.UNSIGNED_PAYLOAD
    host = f"{plan.host}:{plan.port}"
    heads = []
    for path in paths:
        headers = signing.sign_headers(
            plan.credentials, plan.method, host=host, path=path, payload_sha256=digest
        )
        if plan.method == "PUT":
            headers["content-length"] = str(len(body))
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        target = signing.encode_path(path)
        heads.append(f"{plan.method} {target} HTTP/1.1\r\n{lines}\r\n".encode())
    return heads


def body_of(size_bytes: int) -> bytes:
    """Content that does not compress, the same in every run."""
    return np.random.default_rng(1).bytes(size_bytes)


class _Tally:
    """Shared by the connections of one process."""

    def __init__(self, plan: Plan, heads: list[bytes]) -> None:
        self.heads = heads
        self.body = body_of(plan.size_bytes) if plan.method == "PUT" else b""
        self.expected_bytes = plan.size_bytes if plan.method == "GET" else -1
        self.is_headless = plan.method == "HEAD"
        self.once = plan.seconds == 0
        self.next_index = 0
        begin = time.perf_counter()
        self.count_from = begin if self.once else begin + plan.warmup_seconds
        self.count_until = float("inf") if self.once else self.count_from + plan.seconds
        self.latencies = array.array("d")
        self.errors: collections.Counter[str] = collections.Counter()
        self.total_count = 0

    def take(self) -> bytes | None:
        """The next request, None when the run is over."""
        index = self.next_index
        if self.once:
            if index >= len(self.heads):
                return None
        elif time.perf_counter() >= self.count_until:
            return None
        self.next_index = index + 1
        return self.heads[index % len(self.heads)]


class _Connection(asyncio.Protocol):
    def __init__(self, tally: _Tally, done: asyncio.Future[None]) -> None:
        self._tally, self._done = tally, done
        self._transport: asyncio.Transport | None = None
        self._head = b""
        self._left_bytes = -1
        self._status = 0
        self._body_bytes = 0
        self._begun = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not asyncio's by inheritance.
        self._transport = typing.cast(asyncio.Transport, transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        if self._left_bytes >= 0:
            self._consume(len(data))
            return
        head = self._head + data if self._head else data
        end = head.find(b"\r\n\r\n")
        if end < 0:
            if len(head) > _HEAD_BYTES_MAX:
                self._fail("answer's head too long")
            self._head = head
            return
        self._head = b""
        self._status = int(head[9:12])
        length = _content_length(head[:end])
        if length < 0 and self._status != 204:
            self._fail("answer without a length")
            return
        self._left_bytes = self._body_bytes = 0 if self._tally.is_headless else max(length, 0)
        self._consume(len(head) - end - 4)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._fail(f"connection lost: {exc!r}")

    def _consume(self, size_bytes: int) -> None:
        self._left_bytes -= size_bytes
        if self._left_bytes > 0:
            return
        if self._left_bytes < 0:
            self._fail("answer longer than declared")
            return
        self._left_bytes = -1
        tally, now = self._tally, time.perf_counter()
        if tally.count_from <= self._begun and now <= tally.count_until:
            tally.total_count += 1
            expected = tally.expected_bytes
            if not 200 <= self._status < 300:
                tally.errors[f"status {self._status}"] += 1
            elif expected >= 0 and self._body_bytes != expected:
                tally.errors[f"body of {self._body_bytes} bytes"] += 1
            else:
                tally.latencies.append(now - self._begun)
        self._send()

    def _send(self) -> None:
        assert self._transport is not None
        head = self._tally.take()
        if head is None:
            self._finish()
            return
        self._begun = time.perf_counter()
        body = self._tally.body
        if not body:
            self._transport.write(head)
        elif len(body) <= _HEAD_BYTES_MAX:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))

    def _fail(self, reason: str) -> None:
        self._tally.errors[reason] += 1
        self._tally.total_count += 1
        self._finish()

    def _finish(self) -> None:
        if not self._done.done():
            self._done.set_result(None)
        if self._transport is not None:
            self._transport.close()


def _content_length(head: bytes) -> int:
    lowered = head.lower()
    at = lowered.find(b"\r\ncontent-length:")
    if at < 0:
        return -1
    end = lowered.find(b"\r\n", at + 2)
    return int(lowered[at + 17 : end if end >= 0 else len(lowered)])


@dataclass(frozen=True, slots=True)
class _Part:
    """What one generator process hands back."""

    latencies: bytes
    errors: dict[str, int]
    total_count: int
    seconds: float


def _run_here(plan: Plan, index: int) -> _Part:
    paths = plan.paths[index :: plan.process_count]
    heads = prepare(plan, paths)
    share = len(range(index, plan.connections, plan.process_count))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_drive(plan, heads, share))


async def _drive(plan: Plan, heads: list[bytes], connection_count: int) -> _Part:
    loop = asyncio.get_running_loop()
    tally = _Tally(plan, heads)
    begin = time.perf_counter()
    endings: list[asyncio.Future[None]] = []
    while True:
        # A connection that failed is replaced, or an error would silently lower the concurrency.
        endings = [each for each in endings if not each.done()]
        over = tally.next_index >= len(heads) if tally.once else _is_over(tally)
        if over:
            break
        for _ in range(connection_count - len(endings)):
            ending: asyncio.Future[None] = loop.create_future()
            try:
                await loop.create_connection(
                    lambda ending=ending: _Connection(tally, ending),  # type: ignore[misc]
                    plan.host,
                    plan.port,
                )
            except OSError as exc:
                tally.errors[f"connect: {exc.strerror}"] += 1
                tally.total_count += 1
                await asyncio.sleep(0.05)
                break
            endings.append(ending)
        if endings:
            await asyncio.wait(endings, timeout=0.25, return_when=asyncio.FIRST_COMPLETED)
    if endings:
        _, stalled = await asyncio.wait(endings, timeout=_STALL_SECONDS_MAX)
        if stalled:
            tally.errors["no answer"] += len(stalled)
            tally.total_count += len(stalled)
    took = time.perf_counter() - begin
    seconds = took if tally.once else plan.seconds
    return _Part(tally.latencies.tobytes(), dict(tally.errors), tally.total_count, seconds)


def _is_over(tally: _Tally) -> bool:
    """Whether a timed run has reached its end."""
    return time.perf_counter() >= tally.count_until


def _merge(parts: Sequence[_Part]) -> Measured:
    errors: collections.Counter[str] = collections.Counter()
    for part in parts:
        errors.update(part.errors)
    return Measured(
        latencies_seconds=np.concatenate([np.frombuffer(part.latencies) for part in parts]),
        seconds=max(part.seconds for part in parts),
        total_count=sum(part.total_count for part in parts),
        errors=dict(errors),
    )
