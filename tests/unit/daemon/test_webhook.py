"""A target that takes notices by HTTP: only a 2xx in time takes one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import test_utils, web

from couchestor_daemon.adapters import webhook


class Site:
    """A web server that answers as it is told."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bytes, Any]] = []
        self.release = asyncio.Event()
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.path_qs, await request.read(), request.headers))
        status = int(request.path.strip("/"))
        if status == 0:
            await self.release.wait()
        return web.Response(status=status or 200, headers={"Location": "/200"})


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    made = Site()
    app = web.Application()
    app.router.add_route("*", "/{status}", made.handle)
    async with test_utils.TestServer(app, host="127.0.0.1") as server:
        made.url = f"http://127.0.0.1:{server.port}"
        yield made


async def _deliver(url: str, *, timeout_seconds: float = 5.0) -> str:
    hook = webhook.Webhook(url, connections_max=2, timeout_seconds=timeout_seconds)
    try:
        return await hook.deliver(b'{"Records":[]}')
    finally:
        await hook.close()


@pytest.mark.parametrize(
    ("status", "refusal"),
    [
        (200, ""),
        (202, ""),
        (204, ""),
        (302, "it answered 302"),
        (400, "it answered 400"),
        (503, "it answered 503"),
    ],
)
async def test_only_a_success_takes_a_notice(site: Site, status: int, refusal: str) -> None:
    assert await _deliver(f"{site.url}/{status}?a=b") == refusal
    ((target, body, headers),) = site.seen
    assert (target, body) == (f"/{status}?a=b", b'{"Records":[]}')
    assert headers["Content-Type"] == "application/json"
    assert headers["User-Agent"] == "CoucheStor"


async def test_credentials_of_the_url_are_sent_and_not_told(site: Site) -> None:
    url = site.url.replace("http://", "http://user:secret@")
    assert await _deliver(f"{url}/500") == "it answered 500"
    assert site.seen[0][2]["Authorization"].startswith("Basic ")


async def test_one_that_does_not_answer_is_not_waited_for(site: Site) -> None:
    refusal = await _deliver(f"{site.url}/0", timeout_seconds=0.05)
    site.release.set()
    assert refusal == "it did not answer within 0.05 seconds"


async def test_one_that_is_not_there(unused_tcp_port_of_nobody: int) -> None:
    refusal = await _deliver(f"http://user:secret@127.0.0.1:{unused_tcp_port_of_nobody}/200")
    assert refusal.startswith("no connection: ")
    assert "secret" not in refusal


@pytest.fixture
def unused_tcp_port_of_nobody() -> int:
    """A port on which nothing listens."""
    port: int = test_utils.unused_port()
    return port
