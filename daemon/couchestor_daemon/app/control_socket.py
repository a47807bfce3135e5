"""``<data_dir>/control.sock``: how a command reaches the supervisor of the node that runs there.

One JSON line each way on a unix socket of mode 0600:

    -> {"version": 1, "command": "add", "path": "/mnt/d6", "label": "d6", ...}
    <- {"line": "added device d6 ..."} or {"error": "...", "is_usage": true}

Only processes of the node's own user are heard. The socket is bound and reached through the data
directory's descriptor, because the path of a socket may be 107 bytes long and a folder's more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pathlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Final

import msgspec

from couchestor_daemon.adapters import worker_threads
from couchestor_domain import errors

NAME: Final = "control.sock"
VERSION: Final = 1
LINE_BYTES_MAX: Final = 64 << 10
REQUEST_SECONDS_MAX: Final = 5.0
REPLY_SECONDS_MAX: Final = 180.0
CONNECTIONS_MAX: Final = 8
_PEER: Final = struct.Struct("3i")

_log = logging.getLogger("couchestor.control")


class Request(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One command about devices. ``name`` is a label, an id or a path of a member."""

    version: int = VERSION
    command: str
    name: str = ""
    path: str = ""
    label: str = ""
    failure_domain: str = ""
    undo: bool = False


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line for the person who asked, or why not."""

    line: str = ""
    error: str = ""
    is_usage: bool = False
    """The command was wrong, rather than the moment or a device."""


Handler = Callable[[Request], Awaitable[str]]
"""Carries out one request; raises CouchestorError."""


def ask(data_dir: pathlib.Path, request: Request) -> str | None:
    """Have the running node carry out a command.

    Returns:
        Its line; None when no node listens there: it is stopped, or about to be.

    Raises:
        ConfigurationError: it refused the command.
        NodeError: it could not carry it out, or did not answer in time.
    """
    with _connection(data_dir) as connection:
        if connection is None:
            return None
        connection.settimeout(REPLY_SECONDS_MAX)
        received = b""
        try:
            connection.sendall(msgspec.json.encode(request) + b"\n")
            while not received.endswith(b"\n") and len(received) <= LINE_BYTES_MAX:
                if not (more := connection.recv(LINE_BYTES_MAX)):
                    break
                received += more
            reply = msgspec.json.decode(received, type=Reply)
        except (OSError, msgspec.MsgspecError) as exc:
            raise errors.NodeError(
                f"the node under {data_dir} took the command and did not answer ({exc}): see "
                "`couchestor device list`, then repeat the command, which finishes what was begun"
            ) from exc
    if reply.error:
        raise (errors.ConfigurationError if reply.is_usage else errors.NodeError)(reply.error)
    return reply.line


@contextlib.contextmanager
def _connection(data_dir: pathlib.Path) -> Iterator[socket.socket | None]:
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        try:
            connection.connect(stack.enter_context(_address(data_dir)))
        except OSError:
            yield None
        else:
            yield connection


@contextlib.contextmanager
def _address(data_dir: pathlib.Path) -> Iterator[str]:
    folder = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{NAME}"
    finally:
        os.close(folder)


@contextlib.asynccontextmanager
async def serving(data_dir: pathlib.Path, handle: Handler) -> AsyncIterator[None]:
    """Listen for commands; the caller holds the lock of the data directory.

    A node that cannot listen serves all the same: commands then want it stopped.
    """
    threads = worker_threads.WorkerThreads(1, "control")
    server: asyncio.Server | None = None
    try:
        try:
            listener = await threads.run(_listener, data_dir)
            server = await asyncio.start_unix_server(
                _Door(handle).open, sock=listener, limit=LINE_BYTES_MAX, backlog=CONNECTIONS_MAX
            )
        except OSError as exc:
            _log.warning("devices can be changed only while the node is stopped: %s", exc)
        yield
    finally:
        if server is not None:
            server.close()
            await threads.run(_forget, data_dir)
        threads.close()


def _listener(data_dir: pathlib.Path) -> socket.socket:
    _forget(data_dir)  # of a node that was killed: nobody else binds here
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    before = os.umask(0o177)
    try:
        with _address(data_dir) as address:
            listener.bind(address)
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(before)
    return listener


def _forget(data_dir: pathlib.Path) -> None:
    (data_dir / NAME).unlink(missing_ok=True)


class _Door:
    def __init__(self, handle: Handler) -> None:
        self._handle = handle
        self._inside_count = 0

    async def open(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: one request, one reply."""
        self._inside_count += 1
        try:
            reply = await self._reply(reader, writer)
            writer.write(msgspec.json.encode(reply) + b"\n")
            async with asyncio.timeout(REQUEST_SECONDS_MAX):
                await writer.drain()
        except (OSError, TimeoutError):
            pass  # whoever asked is gone; what it asked for has been done or refused
        finally:
            self._inside_count -= 1
            writer.close()

    async def _reply(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Reply:
        credentials = writer.get_extra_info("socket").getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size
        )
        _, user_id, _ = _PEER.unpack(credentials)
        try:
            # First: who is cut off while it still sends does not see what it is told.
            async with asyncio.timeout(REQUEST_SECONDS_MAX):
                line = await reader.readuntil(b"\n")
            if user_id != os.geteuid():
                return Reply(error=f"user {user_id} does not own this node", is_usage=True)
            if self._inside_count > CONNECTIONS_MAX:
                return Reply(error="too many commands at a time: repeat it when others have ended")
            request = msgspec.json.decode(line, type=Request)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError) as exc:
            return Reply(error=f"not one line within the limits: {exc}", is_usage=True)
        except msgspec.MsgspecError as exc:
            return Reply(error=f"not a command: {exc}", is_usage=True)
        if request.version != VERSION:
            return Reply(
                error=f"the running node speaks version {VERSION} of commands, not "
                f"{request.version}: use the program it runs",
                is_usage=True,
            )
        try:
            return Reply(line=await self._handle(request))
        except errors.CouchestorError as exc:
            return Reply(error=exc.message, is_usage=isinstance(exc, errors.ConfigurationError))
