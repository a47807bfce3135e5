"""A target of notices that takes them by HTTP: each is the body of a POST, and a 2xx takes it."""

from __future__ import annotations

from typing import Final

import aiohttp

TIMEOUT_SECONDS: Final = 10.0
"""For a whole exchange."""
_ANSWER_BYTES_MAX: Final = 64 << 10


class Webhook:
    """Implements ``NoticeTarget``.

    Args:
        url: May hold a user's name and password.
        connections_max: At once.
    """

    def __init__(
        self, url: str, *, connections_max: int, timeout_seconds: float = TIMEOUT_SECONDS
    ) -> None:
        self._url = url
        self._connections_max = connections_max
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._session: aiohttp.ClientSession | None = None

    async def deliver(self, message: bytes) -> str:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._connections_max),
                timeout=self._timeout,
                headers={"Content-Type": "application/json", "User-Agent": "CoucheStor"},
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        try:
            # A redirection is an address that nobody has configured.
            async with self._session.post(self._url, data=message, allow_redirects=False) as answer:
                await answer.content.read(_ANSWER_BYTES_MAX)
                return "" if 200 <= answer.status < 300 else f"it answered {answer.status}"
        except TimeoutError:
            return f"it did not answer within {self._timeout.total:g} seconds"
        except aiohttp.ClientConnectorError as exc:
            return f"no connection: {exc.os_error.strerror or type(exc.os_error).__name__}"
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            return f"the exchange failed: {type(exc).__name__}"

    async def close(self) -> None:
        """Let go of the connections."""
        if self._session is not None:
            await self._session.close()
