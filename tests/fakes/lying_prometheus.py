"""An HTTP server on loopback that answers range queries with whatever a test wants."""

from __future__ import annotations

import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field

from aiohttp import web

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
Points = Iterable[tuple[object, object]]


@dataclass(slots=True)
class Asked:
    """A request as it arrived."""

    path: str
    headers: Mapping[str, str]
    form: Mapping[str, str]


@dataclass(slots=True)
class LyingPrometheus:
    """Answers every request with ``answer``, and remembers it in ``asked``."""

    answer: Answer
    url: str = ""
    asked: list[Asked] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Any request to any path."""
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.asked.append(Asked(path=request.path, headers=request.headers, form=form))
        return await self.answer(request)


@contextlib.asynccontextmanager
async def served(
    answer: Answer, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[LyingPrometheus]:
    """A server on a free port until the end of the block."""
    server = LyingPrometheus(answer)
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.handle)
    # What a client that went away has not taken is not waited for.
    runner = web.AppRunner(application, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        scheme = "http" if tls is None else "https"
        server.url = f"{scheme}://127.0.0.1:{runner.addresses[0][1]}"
        yield server
    finally:
        await runner.cleanup()


def matrix(*series: tuple[Mapping[str, object], Points], **more: object) -> bytes:
    """A successful answer of series given as labels and points; ``more`` stands beside the data."""
    result = [
        {"metric": dict(labels), "values": [list(point) for point in points]}
        for labels, points in series
    ]
    answer = {"status": "success", "data": {"resultType": "matrix", "result": result}}
    return json.dumps(answer | more).encode()


def sending(body: bytes, status: int = 200, **headers: str) -> Answer:
    """An answer of these bytes; ``_`` in the name of a header is a dash."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(
            body=body, status=status, headers={"Content-Type": "application/json"} | named
        )

    return answer


def complaining(status: int, kind: str, text: str, **headers: str) -> Answer:
    """An error as Prometheus words it."""
    body = json.dumps({"status": "error", "errorType": kind, "error": text}).encode()
    return sending(body, status, **headers)
