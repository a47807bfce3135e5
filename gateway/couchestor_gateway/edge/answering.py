"""Sending an answer: in one piece, or piece by piece as its client takes it."""

from __future__ import annotations

import logging
from typing import Final, cast

from aiohttp import web

from couchestor_domain import errors, units
from couchestor_gateway.edge import flat_response, request_records, responses

LOG: Final = logging.getLogger("couchestor.gateway")

DRAINED_BYTES_MAX: Final = 64 * units.KIB
"""An unread rest of a body up to this is read and dropped so that the connection survives."""


async def send(
    request: web.BaseRequest,
    reply: responses.Reply,
    trace: request_records.Trace,
    *,
    host_id: str,
    is_draining: bool,
) -> web.StreamResponse:
    """Answer a request, as far as its client lets us; ``trace`` is told what became of it.

    Args:
        host_id: Which process answered.
        is_draining: Whether the connection is to end with this answer.

    Returns:
        What aiohttp is to go on with: sent already if it has a stream, else yet to be sent.
    """
    headers = reply.headers
    trace.status = reply.status
    headers["x-amz-request-id"] = trace.request_id
    headers["x-amz-id-2"] = host_id
    headers["Server"] = "CoucheStor"
    is_last = is_draining or not _body_is_spent(request, trace)
    if request.method == "HEAD" or reply.stream is None:
        if reply.status not in (204, 304):
            headers["Content-Length"] = str(reply.length_bytes)
        body = b"" if request.method == "HEAD" else reply.body
        flat = flat_response.FlatResponse(reply.status, headers, body)
        if is_last:
            flat.force_close()
        trace.bytes_out = len(body)
        # All that aiohttp asks of an answer.
        return cast(web.StreamResponse, flat)
    response = web.StreamResponse(status=reply.status, headers=headers)
    response.content_length = reply.length_bytes
    if is_last:
        response.force_close()
    await _send_stream(request, response, reply, trace)
    return response


async def _send_stream(
    request: web.BaseRequest,
    response: web.StreamResponse,
    reply: responses.Reply,
    trace: request_records.Trace,
) -> None:
    """Write body and pieces; a failure closes the connection short of Content-Length."""
    transport = request.transport
    stream = reply.stream
    assert stream is not None, "only replies with a stream come here"
    try:
        if transport is None:
            raise ConnectionResetError("the client is gone")
        # Empty means written: only then may the store reuse the piece's memory. TLS counts
        # from "at least", so that a limit of zero would never let a writer go on.
        is_tls = transport.get_extra_info("sslcontext") is not None
        transport.set_write_buffer_limits(high=1 if is_tls else 0, low=0)
        await response.prepare(request)
        piece: bytes | memoryview | None = reply.body
        while piece is not None:
            await response.write(piece)
            await request.writer.drain()
            trace.bytes_out += len(piece)
            piece = await anext(stream, None)
    except ConnectionError:
        trace.status = 499  # the client's doing: it left or stopped reading
    except errors.CouchestorError as exc:
        LOG.error("request %s broke off: %s", trace.request_id, exc)
        trace.status = 599
    except Exception:
        LOG.exception("request %s broke off", trace.request_id)
        trace.status = 599
    finally:
        close = getattr(stream, "aclose", None)
        if close is not None:
            await close()
    if trace.bytes_out != reply.length_bytes:
        response.force_close()
        if transport is not None:
            transport.abort()


def _body_is_spent(request: web.BaseRequest, trace: request_records.Trace) -> bool:
    """Whether the connection can carry another request at little cost."""
    content = request.content
    if content.at_eof() or not request.body_exists:
        return True
    if "expect" in request.headers and trace.received_bytes == 0:
        return False  # the client may or may not send it: the framing is lost
    length = request.headers.get("content-length", "")
    if not (length.isascii() and length.isdigit()) or len(length) > 19:
        return False
    return int(length) - trace.received_bytes <= DRAINED_BYTES_MAX
