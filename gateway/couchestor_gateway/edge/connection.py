"""Client connections: aiohttp's own, but for two things.

aiohttp answers a request it cannot parse in plain text and logs a traceback for each, so that
anyone who can reach the port could fill the log: here it is refused as S3 refuses.

aiohttp waits for ever for a client that does not take its answer: here such a client is cut off,
once it has taken not a byte for a while. One that is slow, but goes on reading, gets everything.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import logging
import secrets
import termios
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final

import aiohttp
from aiohttp import web

from couchestor_gateway.edge import responses
from couchestor_gateway.protocol import s3_error

LOG: Final = logging.getLogger("couchestor.gateway")


class Server(web.Server):
    """Makes a ``Connection`` for every client.

    Args:
        stall_seconds: Longest time a client that has an answer to take takes nothing of it.
        options: As aiohttp's.
    """

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        *,
        stall_seconds: float,
        **options: Any,
    ) -> None:
        super().__init__(handler, **options)
        self._stall_seconds = stall_seconds

    def __call__(self) -> web.RequestHandler:
        return Connection(self, loop=self._loop, stall_seconds=self._stall_seconds, **self._kwargs)


class Connection(web.RequestHandler):
    """One client's connection."""

    __slots__ = ("_stall_seconds", "_stall_timer")

    def __init__(
        self,
        manager: Server,
        *,
        loop: asyncio.AbstractEventLoop,
        stall_seconds: float,
        **options: Any,
    ) -> None:
        super().__init__(manager, loop=loop, **options)
        self._stall_seconds = stall_seconds
        self._stall_timer: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        """Called by the transport once it holds bytes that the client has no room for."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """Called by the transport once the client has taken enough of them."""
        self._unwatch()
        super().resume_writing()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Called by the transport at its end."""
        self._unwatch()
        super().connection_lost(exc)

    def _watch(self) -> None:
        if self.transport is not None:
            self._stall_timer = self._loop.call_later(
                self._stall_seconds, self._judge, _untaken_bytes(self.transport)
            )

    def _judge(self, untaken_bytes: int) -> None:
        if self.transport is None:
            return
        if _untaken_bytes(self.transport) >= untaken_bytes:
            self.transport.abort()
        else:
            self._watch()

    def _unwatch(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what could not be parsed; the connection closes after it.

        Raises:
            ConnectionError: an answer has begun already.
        """
        if status == HTTPStatus.BAD_REQUEST:
            error = _refusal(exc)
            LOG.debug("request from %s refused: %s", request.remote, message)
        else:
            error = s3_error.make("InternalError")
            LOG.error("request from %s failed", request.remote, exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun; no other can be sent")
        reply = responses.failure(
            error, resource="", request_id=secrets.token_hex(8).upper(), host_id="", head=False
        )
        reply.headers["Server"] = "CoucheStor"
        response = web.Response(status=reply.status, headers=reply.headers, body=bytes(reply.body))
        response.force_close()
        return response


def _untaken_bytes(transport: asyncio.Transport) -> int:
    """Bytes written that the client's machine has not acknowledged.

    The kernel's queue counts too: it asks for more only when a third of it is free, which at the
    pace of a slow client takes longer than any sensible limit.
    """
    queued = array.array("i", [0])
    descriptor: int = transport.get_extra_info("socket").fileno()
    fcntl.ioctl(descriptor, termios.TIOCOUTQ, queued)
    return transport.get_write_buffer_size() + queued[0]


def _refusal(exc: BaseException | None) -> s3_error.S3Error:
    if isinstance(exc, aiohttp.http_exceptions.LineTooLong) or _has_too_many_headers(exc):
        return s3_error.make("RequestHeaderSectionTooLarge")
    return s3_error.make("BadRequest", "An error occurred when parsing the HTTP request.")


def _has_too_many_headers(exc: BaseException | None) -> bool:
    # aiohttp has no class for it, only these words.
    return (
        isinstance(exc, aiohttp.http_exceptions.BadHttpMessage)
        and exc.message == "Too many headers received"
    )
