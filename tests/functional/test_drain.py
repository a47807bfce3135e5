"""SIGTERM in the middle of an upload: it is finished, answered and kept."""

from __future__ import annotations

import http.client
import json
import pathlib
import random
import signal
import socket
import time
import typing
import urllib.error
import urllib.request

import pytest
from tests.functional import daemon_process

from couchestor_bench import server_process, signing
from couchestor_daemon.app import stop_mark
from couchestor_daemon.services import recovery_table

_BODY: typing.Final = random.Random(7).randbytes(9 << 20)

pytestmark = pytest.mark.skipif(daemon_process.is_peer(), reason="our way of stopping")


def test_sigterm_lets_a_running_upload_finish(tmp_path: pathlib.Path) -> None:
    (health_port,) = server_process.free_ports(1)
    options = {"workers": "2", "health-port": str(health_port)}
    with daemon_process.running(tmp_path / "node", options=options) as server:
        path = f"/{daemon_process.BUCKET}/slow"
        headers = signing.sign_headers(server.credentials, "PUT", host=server.host, path=path)
        headers["Content-Length"] = str(len(_BODY))
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.putrequest("PUT", path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        half = len(_BODY) // 2
        connection.send(_BODY[:half])
        time.sleep(0.3)  # the request is under way, not waiting in the backlog

        process = server.tree()[0]
        process.send_signal(signal.SIGTERM)
        _wait_until_draining(health_port)
        time.sleep(0.3)  # both workers have been told
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port), 5)

        for start in range(half, len(_BODY), 1 << 20):
            connection.send(_BODY[start : start + (1 << 20)])
            time.sleep(0.1)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
        assert process.wait(30) == 0
        server.kill()
        server.restart()
        client = daemon_process.boto_client(server)
        read = client.get_object(Bucket=daemon_process.BUCKET, Key="slow")["Body"].read()
        assert read == _BODY


def test_a_stop_that_cuts_a_stalled_upload_off_is_clean(tmp_path: pathlib.Path) -> None:
    options = {"workers": "1", "drain-seconds": "0.5"}
    with daemon_process.running(tmp_path / "node", options=options) as server:
        path = f"/{daemon_process.BUCKET}/stalled"
        headers = signing.sign_headers(server.credentials, "PUT", host=server.host, path=path)
        headers["Expect"] = "100-continue"
        lines = [f"PUT {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        with socket.create_connection(("127.0.0.1", server.port), 30) as connection:
            head = "\r\n".join([*lines, f"Content-Length: {len(_BODY)}", "", ""])
            connection.sendall(head.encode())
            assert connection.recv(64).startswith(b"HTTP/1.1 100")
            assert server.terminate() == 0
        log = server.log_path.read_text()
        assert "1 requests cut off by shutdown" in log
        assert "killing what is left" not in log
        stop = stop_mark.last_stop(server.data_dir)
        assert stop is recovery_table.LastStop.CLEAN


def _wait_until_draining(port: int) -> None:
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                pass
        except urllib.error.HTTPError as exc:
            with exc:
                reasons = json.load(exc)["reasons"]
            if reasons == ["the node is draining"]:
                return
        time.sleep(0.02)
    raise AssertionError("the node never said that it drains")
