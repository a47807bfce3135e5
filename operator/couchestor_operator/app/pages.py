"""Health, readiness and metrics over HTTP, from the very event loop whose health they tell."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent import futures
from typing import NamedTuple

from aiohttp import web

from couchestor_domain import errors


class Page(NamedTuple):
    """An answer."""

    status: int
    content_type: str
    body: bytes


class Address(NamedTuple):
    """Where to listen; an empty host is every address."""

    host: str
    port: int


@contextlib.asynccontextmanager
async def served(
    address: Address,
    pages: Mapping[str, Callable[[], Page]],
    *,
    option: str,
    in_thread: bool = False,
) -> AsyncIterator[Address]:
    """Serve GET of these paths until the end of the block.

    Args:
        option: Which one the address was given by, for errors.
        in_thread: Whether pages are made in a thread, since that takes long or reads files.

    Returns:
        Where it listens: of port 0 the one that was found.

    Raises:
        ConfigurationError: the address cannot be listened on.
    """

    async def answer(request: web.Request) -> web.Response:
        build = pages.get(request.path)
        if build is None:
            return web.Response(status=404, text=f"not found; try {', '.join(pages)}\n")
        if in_thread:
            page = await asyncio.get_running_loop().run_in_executor(makers, build)
        else:
            page = build()
        return web.Response(
            status=page.status, body=page.body, headers={"Content-Type": page.content_type}
        )

    makers = futures.ThreadPoolExecutor(1, thread_name_prefix="pages")
    application = web.Application()
    application.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, address.host or None, address.port)
        try:
            await site.start()
        except OSError as exc:
            raise errors.ConfigurationError(
                f"cannot listen on {address.host}:{address.port}: {exc.strerror or exc}; choose "
                f"another address with {option}"
            ) from exc
        found = runner.addresses[0]
        yield Address(found[0], found[1])
    finally:
        await runner.cleanup()
        makers.shutdown(wait=False, cancel_futures=True)
