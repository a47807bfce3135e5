"""Answers written in one piece: the bytes that a client gets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest
from aiohttp import web

from couchestor_gateway.edge import connection, flat_response


async def _answers(make: Callable[[], flat_response.FlatResponse], sent: bytes) -> bytes:
    """What a real connection carries back until it ends, or has been quiet for long."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        return cast(web.StreamResponse, make())

    server = connection.Server(handle, stall_seconds=5.0, access_log=None)
    listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    try:
        reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname()[:2])
        writer.write(sent)
        got = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        if b"Content-Length: 4" in got:
            got += await asyncio.wait_for(reader.readexactly(4), 5)
        if b"close" in got:
            assert await asyncio.wait_for(reader.read(), 5) == b"", "nothing follows the answer"
        writer.close()
        await writer.wait_closed()
        return got
    finally:
        listening.close()
        await server.shutdown(1.0)


def _plain() -> flat_response.FlatResponse:
    return flat_response.FlatResponse(200, {"Content-Length": "4", "ETag": '"é"'}, b"body")


async def test_status_headers_and_body_come_as_given() -> None:
    got = await _answers(_plain, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    head, _, body = got.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[:3] == [b"HTTP/1.1 200 OK", b"Content-Length: 4", 'ETag: "é"'.encode()]
    assert lines[3].startswith(b"Date: ")
    assert lines[3].endswith(b" GMT")
    assert len(lines) == 4, "a connection that goes on is not spoken of in HTTP/1.1"
    assert body == b"body"


async def test_a_body_may_be_lent() -> None:
    lent = bytearray(b"body")

    def make() -> flat_response.FlatResponse:
        return flat_response.FlatResponse(200, {"Content-Length": "4"}, memoryview(lent))

    assert (await _answers(make, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")).endswith(b"\r\n\r\nbody")


async def test_the_last_answer_of_a_connection_says_so_and_closes_it() -> None:
    def make() -> flat_response.FlatResponse:
        response = _plain()
        response.force_close()
        return response

    assert b"\r\nConnection: close\r\n" in await _answers(
        make, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
    )
    asked = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    assert b"\r\nConnection: close\r\n" in await _answers(_plain, asked)


async def test_an_older_client_is_answered_in_its_version() -> None:
    got = await _answers(_plain, b"GET / HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n")
    assert got.startswith(b"HTTP/1.0 200 OK\r\n")
    assert b"\r\nConnection: keep-alive\r\n" in got


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: b", "a\nb", "a\rb", "a\0b"])
@pytest.mark.parametrize("place", ["name", "value"])
def test_a_header_cannot_hold_another_one(value: str, place: str) -> None:
    headers = {value: "x"} if place == "name" else {"x": value}
    with pytest.raises(ValueError, match="line break"):
        flat_response.FlatResponse(200, headers, b"")
