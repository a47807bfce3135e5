"""The HTTP server of ``admin_api``: on loopback, for whoever signs with the root credentials.

Every worker listens on the same port. Bodies, headers and requests at a time are bounded; what is
not signed is refused before its body is read.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
from typing import Final

import msgspec
from aiohttp import web

from couchestor_daemon.adapters import system_clock
from couchestor_daemon.app import admin_api, credentials_file
from couchestor_domain import errors, units
from couchestor_gateway.edge import connection
from couchestor_gateway.protocol import admin_signature

BODY_BYTES_MAX: Final = 64 * units.KIB
REQUESTS_MAX: Final = 32
CONNECTIONS_MAX: Final = 64
BODY_SECONDS_MAX: Final = 10.0
_log = logging.getLogger("couchestor.admin")


async def start(
    api: admin_api.AdminApi,
    *,
    root: credentials_file.RootCredentials,
    host: str,
    port: int,
) -> web.ServerRunner:
    """Listen; ``cleanup`` of what is returned ends it. Raises ConfigurationError."""
    door = _Door(api, root)
    server = _BoundedServer(
        door.handle,
        stall_seconds=BODY_SECONDS_MAX,
        access_log=None,
        max_line_size=8 * units.KIB,
        max_field_size=8 * units.KIB,
        max_headers=64,
        keepalive_timeout=15.0,
    )
    runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, reuse_port=True).start()
    except OSError as exc:
        await runner.cleanup()
        raise errors.ConfigurationError(
            f"cannot serve tenants on {host}:{port}: {exc.strerror or exc}; choose another with"
            " --admin-port"
        ) from exc
    return runner


class _Refused(asyncio.Protocol):
    """A connection that is closed at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


class _BoundedServer(connection.Server):
    """Anybody on the machine may connect: they are not to take the descriptors that S3 needs."""

    def __call__(self) -> web.RequestHandler:
        if len(self.connections) >= CONNECTIONS_MAX:
            return _Refused()  # type: ignore[return-value] # all that asyncio asks of one
        return super().__call__()


class _Door:
    def __init__(self, api: admin_api.AdminApi, root: credentials_file.RootCredentials) -> None:
        self._api = api
        self._root = root
        self._now_ns = system_clock.SystemClock().now_ns
        self._in_flight_count = 0

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; never raises but for cancellation."""
        self._in_flight_count += 1
        try:
            answer = await self._answer(request)
        except Exception:
            _log.exception("a request of an administrator failed")
            answer = admin_api.refused(500, "Failed", "the node's log says why")
        finally:
            self._in_flight_count -= 1
        response = web.Response(
            status=answer.status,
            body=msgspec.json.encode(answer.document) + b"\n",
            content_type="application/json",
            headers={"Cache-Control": "no-store"},
        )
        if not request.content.at_eof():
            response.force_close()
        return response

    async def _answer(self, request: web.BaseRequest) -> admin_api.Answer:
        if self._in_flight_count > REQUESTS_MAX:
            return admin_api.refused(503, "TryAgain", "too many requests at a time")
        path, _, query = request.raw_path.partition("?")
        headers = {name.lower(): value for name, value in request.headers.items()}
        refusal = admin_signature.refusal(
            request.method,
            path,
            headers,
            access_key=self._root.access_key,
            secret_key=self._root.secret_key,
            now_seconds=self._now_ns() / units.NS_PER_SECOND,
        )
        if refusal is not None:
            return admin_api.refused(403, "AccessDenied", refusal)
        if query:
            return admin_api.refused(400, "Invalid", "there are no queries here")
        body = await self._body(request)
        if body is None:
            return admin_api.refused(
                413, "TooLong", f"the body has more than {BODY_BYTES_MAX} bytes or does not end"
            )
        digest = hashlib.sha256(body).hexdigest()
        if not hmac.compare_digest(digest, headers["x-amz-content-sha256"]):
            return admin_api.refused(
                400, "BadDigest", "the body is not the one that x-amz-content-sha256 says"
            )
        return await self._api.answer(request.method, path, body)

    @staticmethod
    async def _body(request: web.BaseRequest) -> bytes | None:
        length = request.content_length
        if length is not None and length > BODY_BYTES_MAX:
            return None
        pieces = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS_MAX):
                async for piece in request.content.iter_any():
                    pieces += piece
                    if len(pieces) > BODY_BYTES_MAX:
                        return None
        except TimeoutError:
            return None
        return bytes(pieces)
