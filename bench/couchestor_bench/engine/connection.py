"""One HTTP connection of the generator."""

from __future__ import annotations

import asyncio
import typing
from typing import Final

from couchestor_bench.engine import driver as drivers
from couchestor_bench.engine import http_answers, operations, signed_requests

_JOINED_BYTES_MAX: Final = 64 * 1024
"""A body up to this is copied behind its head: one write costs less than two."""


class Connection(asyncio.Protocol):
    """``driver.Link`` over a transport. ``closed`` is done once it is of no more use."""

    def __init__(self, driver: drivers.Driver, closed: asyncio.Future[None]) -> None:
        self._driver, self.closed = driver, closed
        self.operation: operations.Operation | None = None
        self.intended = self.begun = 0.0
        self._transport: asyncio.Transport | None = None
        self._reader = http_answers.AnswerReader()
        self._is_closed = False

    def send(self, request: signed_requests.Request) -> None:
        assert self._transport is not None
        self._reader.expect(headless=request.headless, keep=request.keeps_body)
        body = request.body
        if not body:
            self._transport.write(request.head)
        elif len(body) <= _JOINED_BYTES_MAX:
            self._transport.write(b"".join((request.head, body)))
        else:
            self._transport.writelines((request.head, body))

    def abort(self, failure: str) -> None:
        self._close(failure)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not asyncio's by inheritance.
        self._transport = typing.cast(asyncio.Transport, transport)
        self._driver.on_free(self)

    def data_received(self, data: bytes) -> None:
        if self.operation is None:
            self._close("MalformedAnswer")
            return
        try:
            answer = self._reader.feed(data)
        except http_answers.AnswerError:
            self._close("MalformedAnswer")
            return
        if answer is not None:
            self._answered(answer)

    def eof_received(self) -> None:
        answer = self._reader.end() if self.operation is not None else None
        if answer is not None:
            self._driver.on_answer(self, answer)
        self._close("ConnectionLost")

    def connection_lost(self, exc: Exception | None) -> None:
        self._close("ConnectionLost")

    def _answered(self, answer: http_answers.Answer) -> None:
        assert self._transport is not None
        # A server that answers before it has read the body may not read the rest of it at all.
        usable = not answer.closes and not self._transport.get_write_buffer_size()
        if usable:
            self._driver.on_answer(self, answer)
            if self.operation is None:
                self._driver.on_free(self)
            return
        self._driver.on_answer(self, answer)
        self._close("ConnectionLost")

    def _close(self, failure: str) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        if not self.closed.done():
            self.closed.set_result(None)
        if self._transport is not None:
            self._transport.abort()
        self._driver.on_lost(self, failure)
