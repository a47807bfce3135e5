"""`Expect: 100-continue`: a refused upload is answered before its body is sent."""

from __future__ import annotations

import pathlib
import socket
import typing

import pytest
from tests.functional import daemon_process

from couchestor_bench import server_process, signing

_BODY: typing.Final = bytes(range(256)) * 4096
_TIMEOUT_SECONDS: typing.Final = 15

pytestmark = pytest.mark.skipif(daemon_process.is_peer(), reason="our answers byte by byte")


def _head(
    server: server_process.ServerProcess,
    path: str,
    *,
    secret: str = "",
) -> bytes:
    credentials = server.credentials
    if secret:
        credentials = signing.Credentials(access_key=credentials.access_key, secret_key=secret)
    signed = signing.sign_headers(credentials, "PUT", host=server.host, path=path)
    signed |= {"Content-Length": str(len(_BODY)), "Expect": "100-continue"}
    lines = [f"PUT {path} HTTP/1.1", *(f"{name}: {value}" for name, value in signed.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def _answer(stream: typing.BinaryIO) -> tuple[int, dict[str, str], bytes]:
    status = int(stream.readline().split()[1])
    headers: dict[str, str] = {}
    while (line := stream.readline().decode().strip()) != "":
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return status, headers, stream.read(int(headers.get("content-length", 0)))


def test_continue_comes_only_for_a_body_that_is_wanted(tmp_path: pathlib.Path) -> None:
    with daemon_process.running(tmp_path / "node", options={"workers": "1"}) as server:
        path = f"/{daemon_process.BUCKET}/expected"
        with socket.create_connection(("127.0.0.1", server.port), _TIMEOUT_SECONDS) as connection:
            stream = connection.makefile("rb")
            for _ in range(2):  # the connection carries the next request as well
                connection.sendall(_head(server, path))
                assert stream.readline() == b"HTTP/1.1 100 Continue\r\n"
                assert stream.readline() == b"\r\n"
                connection.sendall(_BODY)
                status, headers, _ = _answer(stream)
                assert status == 200
                assert headers["etag"]
        client = daemon_process.boto_client(server)
        stored = client.get_object(Bucket=daemon_process.BUCKET, Key="expected")
        assert stored["Body"].read() == _BODY

        for head, expected in (
            (_head(server, path, secret="x" * 40), (403, b"SignatureDoesNotMatch")),
            (_head(server, "/no-such-bucket/k"), (404, b"NoSuchBucket")),
        ):
            with socket.create_connection(
                ("127.0.0.1", server.port), _TIMEOUT_SECONDS
            ) as connection:
                stream = connection.makefile("rb")
                connection.sendall(head)
                status, headers, body = _answer(stream)
                assert (status, expected[1] in body) == (expected[0], True), (status, body)
                # Whether the body follows is the client's choice: the framing is lost.
                assert headers["connection"] == "close"
                assert stream.read() == b""
