"""What a node tells about itself: metrics of all processes, health with reasons, log lines."""

from __future__ import annotations

import http.client
import json
import pathlib
import signal
import threading
import time
import typing
import urllib.error
import urllib.request

import prometheus_client.parser
import pytest
from tests.functional import daemon_process, node_command

from couchestor_bench import server_process, signing

_PUTS: typing.Final = 40
"""Each on a connection of its own, so that both workers take some."""

pytestmark = pytest.mark.skipif(daemon_process.is_peer(), reason="our pages and logs")


def _get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.read().decode()
    except OSError:
        return 0, ""


def _put(server: server_process.ServerProcess, key: str) -> str:
    """Put on a new connection; tells which worker process answered."""
    path = f"/{daemon_process.BUCKET}/{key}"
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        headers = signing.sign_headers(server.credentials, "PUT", host=server.host, path=path)
        connection.request("PUT", path, body=b"0123456789", headers=headers)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
        return answer.headers["x-amz-id-2"]
    finally:
        connection.close()


def test_metrics_of_all_processes_are_one_page(tmp_path: pathlib.Path) -> None:
    (port,) = server_process.free_ports(1)
    options = {"workers": "2", "metrics-port": str(port)}
    with daemon_process.running(tmp_path / "node", options=options) as server:
        answered_by = {_put(server, f"k{number}") for number in range(_PUTS)}
        assert len(answered_by) == 2
        status, text = _get(f"http://127.0.0.1:{port}/metrics")
        assert status == 200
        samples = [
            sample
            for family in prometheus_client.parser.text_string_to_metric_families(text)
            for sample in family.samples
        ]

        def values(name: str, **labels: str) -> list[float]:
            return [
                sample.value
                for sample in samples
                if sample.name == name and labels.items() <= sample.labels.items()
            ]

        put = {"operation": "PutObject"}
        assert values("couchestor_requests_total", status="200", **put) == [_PUTS]
        assert values("couchestor_request_seconds_count", **put) == [_PUTS]
        assert values("couchestor_received_bytes_total") == [10 * _PUTS]
        for child in ("worker-0", "worker-1", "maintenance"):
            assert values("couchestor_child_ready", child=child) == [1.0]
            assert values("couchestor_child_resident_bytes", child=child)[0] > 0
        assert values("couchestor_device_healthy") == [1.0] * 6
        assert _get(f"http://127.0.0.1:{port}/")[0] == 404


def test_health_tells_why_the_node_is_not_ready(tmp_path: pathlib.Path) -> None:
    (port,) = server_process.free_ports(1)
    options = {"workers": "1", "health-port": str(port)}
    server = server_process.couchestor(tmp_path / "node", options=options)
    starting = threading.Thread(target=server.start)
    starting.start()
    reasons: set[str] = set()
    try:
        reasons |= _reasons_until(port, 200)
        starting.join()
        assert reasons <= {"the node is preparing", "the node is starting"}
        assert reasons, "it cannot have been ready at once"
        assert _get(f"http://127.0.0.1:{port}/livez")[0] == 200

        children = json.loads(_get(f"http://127.0.0.1:{port}/status")[1])["children"]
        (worker,) = (child["pid"] for child in children if child["name"] == "worker-0")
        for member in server.tree():
            if member.pid == worker:
                member.kill()
        assert "no worker is ready" in _reasons_until(port, 503)
        _reasons_until(port, 200)
        said = node_command.run(
            "status", data_dir=server.data_dir, options={"health-port": str(port)}
        )
        assert said.returncode == 0, said.stderr
        assert said.stdout.startswith("the node takes requests\n")
        assert "restarted 1 times, last SIGKILL" in said.stdout
    finally:
        starting.join()
        server.kill()
    said = node_command.run("status", data_dir=server.data_dir, options={"health-port": str(port)})
    assert said.returncode == 2
    assert f"no node answers at http://127.0.0.1:{port}/status" in said.stderr


def _reasons_until(port: int, wanted: int) -> set[str]:
    """What /readyz gave as reasons until it answered with a status."""
    seen: set[str] = set()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        status, text = _get(f"http://127.0.0.1:{port}/readyz")
        if status == 503:
            seen.update(json.loads(text)["reasons"])
        if status == wanted:
            return seen
        time.sleep(0.02)
    raise AssertionError(f"/readyz never answered {wanted}; it said {seen}")


def test_json_lines_carry_the_request_id_the_client_was_told(tmp_path: pathlib.Path) -> None:
    options = {"log-json": "true", "access-log": "true", "workers": "2"}
    with daemon_process.running(tmp_path / "node", options=options) as server:
        client = daemon_process.boto_client(server)
        answer = client.put_object(Bucket=daemon_process.BUCKET, Key="a b\n", Body=b"x")
        request_id = answer["ResponseMetadata"]["RequestId"]
        with pytest.raises(client.exceptions.NoSuchKey) as caught:
            client.get_object(Bucket=daemon_process.BUCKET, Key="absent")
        failed_id = caught.value.response["ResponseMetadata"]["RequestId"]
        server.tree()[0].send_signal(signal.SIGHUP)
        assert server.terminate() == 0
        text = server.log_path.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert all({"time", "level", "logger", "pid", "message"} <= line.keys() for line in lines)
    by_id = {line["request_id"]: line for line in lines if "request_id" in line}
    assert by_id[request_id]["path"] == f"/{daemon_process.BUCKET}/a%20b%0A"
    assert by_id[request_id]["status"] == 200
    assert by_id[failed_id]["status"] == 404
    assert server.credentials.secret_key not in text
