"""Devices are added, retired, taken out and brought back while the daemon serves."""

from __future__ import annotations

import json
import pathlib
import random
import shutil
import subprocess
import time
import typing
from collections.abc import Callable

import pytest
from tests.functional import daemon_process, node_command

from couchestor_bench import server_process

_KIB: typing.Final = 1024
_MIB: typing.Final = 1024 * _KIB
_SMALL: typing.Final = {
    "device-capacity-bytes": "64MiB",
    "zone-bytes": "1MiB",
    "stripe-bytes": "512KiB",
    "workers": "2",
    "zone-grace-seconds": "1",
    "rebuild-delay-seconds": "1",
}

pytestmark = [
    pytest.mark.skipif(daemon_process.is_peer(), reason="our devices, our membership"),
    pytest.mark.timeout(240),
]


def _device(server: server_process.ServerProcess, *words: str) -> str:
    """The line of a command that is carried out."""
    done = _try_device(server, *words)
    assert done.returncode == 0, f"{done.stderr}\n{server.log_tail()}"
    return done.stdout.strip()


def _try_device(
    server: server_process.ServerProcess, *words: str
) -> subprocess.CompletedProcess[str]:
    return node_command.run("device", *words, data_dir=server.data_dir)


def _write(
    server: server_process.ServerProcess, prefix: str, *, count: int = 12
) -> dict[str, bytes]:
    client = daemon_process.boto_client(server)
    objects: dict[str, bytes] = {}
    for number in range(count):
        key = f"{prefix}/{number:02d}"
        size = _MIB + 7 if number % 3 == 0 else 90 * _KIB
        objects[key] = random.Random(key).randbytes(size)
        client.put_object(Bucket=daemon_process.BUCKET, Key=key, Body=objects[key])
    return objects


def _verify(server: server_process.ServerProcess, objects: dict[str, bytes]) -> None:
    client = daemon_process.boto_client(server)
    for key, body in objects.items():
        read = client.get_object(Bucket=daemon_process.BUCKET, Key=key)["Body"].read()
        assert read == body, f"{key} of {len(body)} bytes differs"


def _rows(server: server_process.ServerProcess) -> dict[str, dict[str, typing.Any]]:
    rows = json.loads(_device(server, "list", "--json"))
    return {row["label"]: row for row in rows}


def _zones(device: pathlib.Path) -> int:
    return len(list((device / "zones").iterdir()))


def _wait(what: Callable[[], object], said: Callable[[], object], *, seconds: float = 30.0) -> None:
    ends = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < ends, said()
        time.sleep(0.2)


def test_a_device_joins_serves_empties_and_leaves_while_the_node_serves(
    tmp_path: pathlib.Path,
) -> None:
    with daemon_process.running(tmp_path / "node", options=_SMALL) as server:
        objects = _write(server, "six")
        seventh = tmp_path / "disk6"
        seventh.mkdir()
        assert "added device disk6" in (line := _device(server, "add", str(seventh)))
        assert line.endswith("it is in service")
        assert _rows(server)["disk6"]["state"] == "present"
        objects |= _write(server, "seven")
        assert _zones(seventh) >= 2
        again = _try_device(server, "add", str(seventh))
        assert "in service already" in again.stderr
        refused = _try_device(server, "remove", "disk6")
        assert "is in service: `couchestor device retire disk6`" in refused.stderr

        assert "is retiring" in _device(server, "retire", "disk6")
        assert _rows(server)["disk6"]["state"] == "retiring"
        early = _try_device(server, "remove", "disk6")
        assert "the index refers to" in early.stderr
        objects |= _write(server, "retired", count=6)
        _wait(
            lambda: _try_device(server, "remove", "disk6").returncode == 0,
            lambda: _try_device(server, "remove", "disk6").stderr,
        )
        assert "disk6" not in _rows(server)
        shutil.rmtree(seventh)
        _verify(server, objects)
        assert server.terminate() == 0
        server.restart()
        _verify(server, objects)
