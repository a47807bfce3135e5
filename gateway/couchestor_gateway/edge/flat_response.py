"""An answer whose body is at hand, written in one piece.

In place of ``aiohttp.web.Response``, which makes a multidict of the headers, looks for
cookies, compression and chunking, and serialises it again: some hundredths of a small request.
"""

from __future__ import annotations

import http
import time
from collections.abc import Mapping
from typing import Final

import aiohttp
from aiohttp import web

from couchestor_gateway.protocol import timestamps

_STATUS_LINES: Final = {
    status.value: f" {status.value} {status.phrase}\r\n" for status in http.HTTPStatus
}


class FlatResponse:
    """What aiohttp asks of an answer: ``prepare``, ``write_eof``, ``keep_alive``.

    Args:
        headers: As they are to be sent, ``Content-Length`` among them; ``Date`` and ``Connection``
            are added.

    Raises:
        ValueError: a header holds what would end its line.
    """

    __slots__ = ("_body", "_head", "_is_sent", "_status", "keep_alive")

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes | memoryview) -> None:
        lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
        head = "".join(lines)
        count = len(lines)
        if head.count("\n") != count or head.count("\r") != count or "\0" in head:
            raise ValueError("a header of the answer holds a line break")
        self._status = status
        self._head = head
        self._body = body
        self._is_sent = False
        self.keep_alive: bool | None = None
        """Whether the connection goes on, once prepared; False before: it is to end."""

    def force_close(self) -> None:
        """End the connection after this answer."""
        self.keep_alive = False

    async def prepare(self, request: web.BaseRequest) -> None:
        """Hand everything to the transport, once.

        Raises:
            ConnectionResetError: the client is gone.
        """
        if self._is_sent:
            return
        self._is_sent = True
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        if self.keep_alive is None:
            self.keep_alive = request.keep_alive
        is_old = request.version < aiohttp.HttpVersion11
        connection = ""
        if self.keep_alive and is_old:
            connection = "Connection: keep-alive\r\n"
        elif not self.keep_alive and not is_old:
            connection = "Connection: close\r\n"
        date = f"Date: {timestamps.http_date(time.time_ns())}\r\n"
        begin = "HTTP/1.0" if is_old else "HTTP/1.1"
        head = (f"{begin}{_STATUS_LINES[self._status]}{self._head}{date}{connection}\r\n").encode()
        # Joined: one call of the system, and the transport keeps nothing of a lent body.
        transport.write(b"".join((head, self._body)) if self._body else head)

    async def write_eof(self) -> None:
        """Nothing is left to write."""
