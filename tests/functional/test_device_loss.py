"""Two of six devices vanish while the daemon serves: nothing is missed, writing goes on."""

from __future__ import annotations

import json
import pathlib
import random
import time
import typing
import urllib.request

import pytest
from tests.functional import daemon_process

from couchestor_bench import server_process

_KIB: typing.Final = 1024
_SIZES: typing.Final = (0, 1, 4 * _KIB, 100 * _KIB, 128 * _KIB, 300 * _KIB, 1024 * _KIB)
_LOST: typing.Final = ("d1", "d4")


@pytest.mark.skipif(daemon_process.is_peer(), reason="the peer keeps one copy")
@pytest.mark.timeout(240)
@pytest.mark.parametrize("crash", [False, True], ids=["stopped", "killed"])
def test_two_of_six_devices_can_be_lost_while_serving(tmp_path: pathlib.Path, crash: bool) -> None:
    (health_port,) = server_process.free_ports(1)
    options = {"health-port": str(health_port)}
    with daemon_process.running(tmp_path / "node", options=options) as server:
        objects = _write(server, "before", 42)
        objects |= _write(server, "large", 1, size_bytes=21 * 1024 * _KIB + 3)
        for name in _LOST:
            server_process.delete_in_use(server.data_dir / "devices" / name)
        _wait_until_told(health_port, server.log_path)
        _verify(server, objects)
        objects |= _write(server, "after", 42)
        _verify(server, objects)
        if crash:
            server.kill()
        else:
            assert server.terminate() == 0
        server.restart()
        _verify(server, objects)
        objects |= _write(server, "restarted", 14)
        _verify(server, objects)


def _write(
    server: server_process.ServerProcess, prefix: str, count: int, *, size_bytes: int = -1
) -> dict[str, bytes]:
    client = daemon_process.boto_client(server)
    objects: dict[str, bytes] = {}
    for i in range(count):
        key = f"{prefix}/{i:03d}"
        size = size_bytes if size_bytes >= 0 else _SIZES[i % len(_SIZES)]
        objects[key] = random.Random(key).randbytes(size)
        client.put_object(Bucket=daemon_process.BUCKET, Key=key, Body=objects[key])
    return objects


def _wait_until_told(health_port: int, log_path: pathlib.Path) -> None:
    """Until health names both devices, which nobody need have used; so does the log."""
    deadline = time.monotonic() + 30
    while True:
        with urllib.request.urlopen(f"http://127.0.0.1:{health_port}/readyz", timeout=5) as answer:
            warnings = json.load(answer)["warnings"]
        told = [warning for warning in warnings if "is out of service: " in warning]
        if len(told) == len(_LOST):
            break
        assert time.monotonic() < deadline, warnings
        time.sleep(0.05)
    log = log_path.read_text()
    for name, warning in zip(_LOST, sorted(told), strict=True):
        assert warning.startswith(f"device {name} is out of service: ")
        lines = [line for line in log.splitlines() if f"event_device_label={name}" in line]
        assert any(" WARNING " in line and "health changed" in line for line in lines), lines


def _verify(server: server_process.ServerProcess, objects: dict[str, bytes]) -> None:
    client = daemon_process.boto_client(server)
    listed = client.list_objects_v2(Bucket=daemon_process.BUCKET).get("Contents", [])
    assert [row["Key"] for row in listed] == sorted(objects)
    for key, body in objects.items():
        read = client.get_object(Bucket=daemon_process.BUCKET, Key=key)["Body"].read()
        assert read == body, f"{key} of {len(body)} bytes differs"
