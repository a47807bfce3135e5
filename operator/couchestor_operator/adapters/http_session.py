"""A client session for one server, and a thread for the files that calls to it need."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from concurrent import futures
from dataclasses import dataclass

import aiohttp

from couchestor_operator.adapters import http_access


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSession:
    """Use ``opened``."""

    client: aiohttp.ClientSession
    files: futures.Executor

    async def authorization(self, access: http_access.Access) -> str | None:
        """The value of the Authorization header now, None without credentials.

        Raises:
            ControlPlaneError: (``UNAVAILABLE`` of the access) the token cannot be had.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.files, http_access.authorization, access)


@contextlib.asynccontextmanager
async def opened(
    access: http_access.Access, *, connections_count: int
) -> AsyncIterator[HttpSession]:
    """A session until the end of the block.

    Raises:
        ConfigurationError: a certificate file cannot be used.
    """
    files = futures.ThreadPoolExecutor(1, thread_name_prefix="credentials")
    try:
        loop = asyncio.get_running_loop()
        context = await loop.run_in_executor(files, http_access.ssl_context, access)
        # Bodies are decompressed here, within their bound; proxies of the environment are not for
        # tokens; cookies would be a memory of their own.
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=connections_count, ssl=True if context is None else context
            ),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=access.deadline_seconds),
        ) as client:
            yield HttpSession(client=client, files=files)
    finally:
        # A file system that hangs must not hold the loop.
        files.shutdown(wait=False, cancel_futures=True)
