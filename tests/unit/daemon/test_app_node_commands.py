"""`couchestor status` of what is no node: one line, whoever answers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from couchestor_daemon.app import child_status, health_server, settings, status_request
from couchestor_domain import errors

_HOST = "127.0.0.1"


@pytest.fixture
def banner_port() -> Iterator[int]:
    """A server that speaks first, and something else than HTTP."""
    with socket.create_server((_HOST, 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"SSH-2.0-x\r\n")
                connection.recv(1000)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def test_another_protocol_is_no_node(banner_port: int) -> None:
    with pytest.raises(errors.ConfigurationError, match=r"no node answers at .*SSH-2\.0-x\);"):
        status_request.ask(settings.Settings(health_port=banner_port))


@pytest.mark.parametrize("page", [b"[1]", b'"ready"', b"7", b"{}", b'{"ready": true}'])
def test_another_page_is_no_node(page: bytes) -> None:
    other = health_server.PageServer(
        host=_HOST,
        port=0,
        name="health",
        pages={"/status": lambda: (200, "application/json", page)},
    )
    other.start()
    try:
        with pytest.raises(errors.ConfigurationError, match="is no node: start one, or name its"):
            status_request.ask(settings.Settings(health_port=other.port))
    finally:
        other.close()


def test_a_node_is_one() -> None:
    node = health_server.PageServer(
        host=_HOST, port=0, name="health", pages=health_server.health_pages(child_status.Board())
    )
    node.start()
    try:
        assert status_request.ask(settings.Settings(health_port=node.port))["ready"] is False
    finally:
        node.close()
