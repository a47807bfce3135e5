"""Data moves onto a device that joins and off one that retires, also through kill -9."""

from __future__ import annotations

import json
import pathlib
import random
import time
import typing
import urllib.request
from collections.abc import Callable

import pytest
from tests.functional import daemon_process, node_command, zone_files

from couchestor_bench import server_process

_KIB: typing.Final = 1024
_OPTIONS: typing.Final = {
    "device-capacity-bytes": "40MiB",
    "zone-bytes": "1MiB",
    "stripe-bytes": "512KiB",
    "workers": "1",
    "balance-gap-percent": "6",
    # So that what moves is still on its way when everything is killed.
    "background-bytes-per-second": "12MiB",
    "zone-grace-seconds": "1",
}
_DEADLINE_SECONDS: typing.Final = 60.0

pytestmark = [
    pytest.mark.skipif(daemon_process.is_peer(), reason="our devices, our moves"),
    pytest.mark.timeout(240),
]


def test_a_new_device_takes_its_part_and_a_retiring_one_is_emptied(tmp_path: pathlib.Path) -> None:
    seventh = tmp_path / "disk6"
    with daemon_process.running(tmp_path / "node", options=_OPTIONS) as server:
        data_dir = server.data_dir
        objects = _write(server, "before", 48)
        assert server.terminate() == 0
        seventh.mkdir()
        names = ("device-capacity-bytes", "zone-bytes", "stripe-bytes")
        told = {name: _OPTIONS[name] for name in names}
        added = node_command.run("device", "add", str(seventh), data_dir=data_dir, options=told)
        assert added.returncode == 0, added.stderr
        server.restart()
        _wait(server, lambda node: _balance(node).get("members_moved", 0) >= 2)
        server.kill()
        server.restart()
        _verify(server, objects)
        _wait(server, _is_level)
        assert len(zone_files.with_shards(seventh)) >= 5
        _verify(server, objects)
        assert server.terminate() == 0

        retired = node_command.run("device", "retire", "d1", data_dir=data_dir)
        assert retired.returncode == 0, retired.stderr
        server.restart()
        # Groups of before that are still open are given up at the next write.
        objects |= _write(server, "after", 2)
        _wait(server, lambda node: "d1" in _balance(node).get("draining", {}))
        _wait(server, lambda _: not zone_files.with_shards(data_dir / "devices" / "d1"))
        _verify(server, objects)
        # Nothing depends on it: with two others away as well all is there.
        for name in ("d1", "d0", "d4"):
            server_process.delete_in_use(data_dir / "devices" / name)
        _verify(server, {key: body for key, body in objects.items() if len(body) > 256 * _KIB})


def _write(server: server_process.ServerProcess, prefix: str, count: int) -> dict[str, bytes]:
    client = daemon_process.boto_client(server)
    objects: dict[str, bytes] = {}
    for number in range(count):
        key = f"{prefix}/{number:03d}"
        objects[key] = random.Random(key).randbytes((1024, 512)[number % 2] * _KIB)
        client.put_object(Bucket=daemon_process.BUCKET, Key=key, Body=objects[key])
    return objects


def _verify(server: server_process.ServerProcess, objects: dict[str, bytes]) -> None:
    client = daemon_process.boto_client(server)
    for key, body in objects.items():
        read = client.get_object(Bucket=daemon_process.BUCKET, Key=key)["Body"].read()
        assert read == body, f"{key} of {len(body)} bytes differs"


def _balance(node: dict[str, typing.Any]) -> dict[str, typing.Any]:
    return dict(node.get("balance") or {})


def _is_level(node: dict[str, typing.Any]) -> bool:
    """Nothing is to be moved any more, and the devices are about as full as one another."""
    balance = _balance(node)
    used = [zones["used"] for zones in node.get("zones", {}).values()]
    return balance.get("zones_left") == 0 and len(used) == 7 and max(used) - min(used) <= 4


def _wait(
    server: server_process.ServerProcess, reached: Callable[[dict[str, typing.Any]], bool]
) -> None:
    deadline = time.monotonic() + _DEADLINE_SECONDS
    port = server.command[server.command.index("--health-port") + 1]
    while True:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=5) as answer:
            node = json.load(answer).get("node") or {}
        if reached(node):
            return
        assert time.monotonic() < deadline, node
        time.sleep(0.2)
