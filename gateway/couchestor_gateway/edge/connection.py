"""Client connections: aiohttp's own, except that what is not HTTP is refused as S3 refuses.

aiohttp answers a request it cannot parse in plain text and logs a traceback for each, so that
anyone who can reach the port could fill the log.
"""

from __future__ import annotations

import logging
import secrets
from http import HTTPStatus
from typing import Final

import aiohttp
from aiohttp import web

from couchestor_gateway.edge import responses
from couchestor_gateway.protocol import s3_error

LOG: Final = logging.getLogger("couchestor.gateway")


class Server(web.Server):
    """Makes a ``Connection`` for every client."""

    def __call__(self) -> web.RequestHandler:
        return Connection(self, loop=self._loop, **self._kwargs)


class Connection(web.RequestHandler):
    """One client's connection."""

    __slots__ = ()

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


def _refusal(exc: BaseException | None) -> s3_error.S3Error:
    if isinstance(exc, aiohttp.http_exceptions.LineTooLong):
        return s3_error.make("RequestHeaderSectionTooLarge")
    return s3_error.make("BadRequest", "An error occurred when parsing the HTTP request.")
