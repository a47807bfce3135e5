"""Devices are added, retired, taken out and brought back while the daemon serves."""

from __future__ import annotations

import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import threading
import time
import typing
import urllib.request
from collections.abc import Callable

import pytest
from tests.functional import daemon_process, node_command, zone_files

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


def _zones(device: pathlib.Path) -> set[tuple[int, int]]:
    """Of each zone the file that it is, as an emptied one that is written to again is another, and
    its length."""
    found = zone_files.status_of(device)
    return {(status.st_ino, status.st_size) for status in found.values()}


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
        # Sixteen stripes: two groups more than the one that was open, if any, has room for.
        objects |= _write(server, "seven", count=24)
        assert len(_zones(seventh)) >= 2
        again = _try_device(server, "add", str(seventh))
        assert "in service already" in again.stderr
        refused = _try_device(server, "remove", "disk6")
        assert "is in service: `couchestor device retire disk6`" in refused.stderr

        assert "is retiring" in _device(server, "retire", "disk6")
        assert _rows(server)["disk6"]["state"] == "retiring"
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


def _workers(server: server_process.ServerProcess) -> dict[str, int]:
    port = server.command[server.command.index("--health-port") + 1]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=5) as answer:
        children = json.load(answer)["children"]
    return {child["name"]: child["pid"] for child in children if child["state"] == "ready"}


def test_a_device_that_was_missing_comes_back_and_a_worker_killed_meanwhile_learns_of_another(
    tmp_path: pathlib.Path,
) -> None:
    with daemon_process.running(tmp_path / "node", options=_SMALL) as server:
        third, away = server.data_dir / "devices" / "d3", tmp_path / "away"
        objects = _write(server, "six", count=4)
        assert server.terminate() == 0
        shutil.copytree(server.data_dir / "devices" / "d4", tmp_path / "old-copy")
        third.rename(away)
        server.restart()
        objects |= _write(server, "five", count=4)
        assert _rows(server)["d3"]["state"] == "missing"
        away.rename(third)
        assert _rows(server)["d3"]["state"] == "failed"
        stale = _try_device(server, "attach", str(tmp_path / "old-copy"))
        assert "is an old copy of device d4" in stale.stderr
        before = _zones(third)
        line = _device(server, "attach", str(third))
        assert line == f"device d3 at {third} is in service again"
        assert _rows(server)["d3"]["state"] == "present"
        objects |= _write(server, "again", count=4)
        # In a zone of its own, or in a group that was open when the device went.
        assert _zones(third) - before

        # One worker does not answer: nobody may use the device yet. Its successor finds it.
        slow = _workers(server)["worker-0"]
        os.kill(slow, signal.SIGSTOP)
        seventh = tmp_path / "disk6"
        seventh.mkdir()
        said: list[subprocess.CompletedProcess[str]] = []
        adding = threading.Thread(
            target=lambda: said.append(_try_device(server, "add", str(seventh)))
        )
        adding.start()
        members = server.data_dir / "node.json"
        _wait(lambda: "disk6" in members.read_text(), members.read_text)
        second = _try_device(server, "retire", "d1")
        assert "another change of devices is under way (add " in second.stderr
        assert adding.is_alive()
        assert not _zones(seventh)
        os.kill(slow, signal.SIGKILL)
        adding.join(timeout=30)
        assert [done.stderr for done in said] == [""]
        assert said[0].stdout.strip().endswith("it is in service")
        _wait(lambda: _workers(server).get("worker-0", slow) != slow, lambda: _workers(server))
        assert _rows(server)["disk6"]["state"] == "present"
        objects |= _write(server, "seven", count=24)
        assert len(_zones(seventh)) >= 2
        _verify(server, objects)
