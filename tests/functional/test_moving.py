"""Bytes move between the log and stripes under the real daemon, and space comes back by it."""

from __future__ import annotations

import json
import pathlib
import random
import re
import time
import typing
import urllib.request

import botocore.exceptions
import pytest
from tests.functional import daemon_process, node_command

from couchestor_bench import server_process

_KIB: typing.Final = 1024
_OPTIONS: typing.Final = {
    "device-capacity-bytes": "16MiB",
    "zone-bytes": "1MiB",
    "stripe-bytes": "256KiB",
    "workers": "2",
    "zone-grace-seconds": "1",
    "checkpoint-log-bytes": "512KiB",
    "destage-idle-seconds": "1",
    "room-wait-seconds": "1",
}
_DEADLINE_SECONDS: typing.Final = 90.0

pytestmark = pytest.mark.skipif(daemon_process.is_peer(), reason="our log and our groups")


@pytest.mark.timeout(60)
def test_the_log_is_emptied_at_an_orderly_stop_when_it_is_asked_for(
    tmp_path: pathlib.Path,
) -> None:
    options = {**_OPTIONS, "destage-idle-seconds": "3600", "destage-on-stop": "true"}
    with daemon_process.running(tmp_path / "node", options=options) as server:
        client = daemon_process.boto_client(server)
        bodies = {f"k{number}": random.Random(number).randbytes(9000) for number in range(150)}
        for key, body in bodies.items():
            client.put_object(Bucket=daemon_process.BUCKET, Key=key, Body=body)
        began = time.monotonic()
        assert server.terminate() == 0
        assert time.monotonic() - began < 20.0
        assert "the log was emptied before the stop" in server.log_path.read_text("utf-8")
        magic = bodies["k7"][1000:1100]
        holders = [
            path
            for path in (server.data_dir / "devices").glob("*/zones/*.zone")
            if magic in path.read_bytes()
        ]
        content = [path.read_bytes() for path in holders]
        assert any(b"CSTSHARD" in each[:8192] for each in content), "one data shard holds it"
        done = node_command.run("check", "--json", data_dir=server.data_dir)
        assert json.loads(done.stdout) == {"findings": [], "notes": [], "repaired": []}
        server.restart()
        client = daemon_process.boto_client(server)
        for key, body in bodies.items():
            answer = client.get_object(Bucket=daemon_process.BUCKET, Key=key)
            assert answer["Body"].read() == body, key


@pytest.mark.timeout(200)
def test_small_objects_leave_the_log_of_an_idle_node_and_read_back(tmp_path: pathlib.Path) -> None:
    rng = random.Random(1)
    bodies = {
        f"small/{number}": rng.choice([rng.randbytes(3000), b"a line of text\n" * 300])
        for number in range(300)
    }
    total = sum(map(len, bodies.values()))
    with daemon_process.running(tmp_path / "node", options=_OPTIONS) as server:
        client = daemon_process.boto_client(server)
        for key, body in bodies.items():
            client.put_object(Bucket=daemon_process.BUCKET, Key=key, Body=body)
        _wait(server, lambda: _metric(server, "destaged_bytes_total") >= total)
        assert _metric(server, 'compression_payloads_total{outcome="kept"}') > 50
        assert _metric(server, "compression_saved_bytes_total") > 100 * _KIB
        for _ in range(2):
            for key, body in bodies.items():
                answer = client.get_object(Bucket=daemon_process.BUCKET, Key=key)
                assert answer["Body"].read() == body, key
                part = client.get_object(
                    Bucket=daemon_process.BUCKET, Key=key, Range="bytes=100-2100"
                )
                assert part["Body"].read() == body[100:2101], key
            server.kill()
            server.restart()
            client = daemon_process.boto_client(server)


@pytest.mark.timeout(400)
def test_a_full_store_of_which_every_second_object_is_deleted_has_room_again(
    tmp_path: pathlib.Path,
) -> None:
    rng = random.Random(2)
    # With fewer zones the reserve and what three writers have open leave too little of the half.
    options = {**_OPTIONS, "device-capacity-bytes": "24MiB"}
    with daemon_process.running(tmp_path / "node", options=options) as server:
        client = daemon_process.boto_client(server)
        bodies = _fill(client, "old", rng)
        assert len(bodies) > 60
        for key in sorted(bodies)[::2]:
            client.delete_object(Bucket=daemon_process.BUCKET, Key=key)
            del bodies[key]
        fresh: dict[str, bytes] = {}

        def takes_more() -> bool:
            fresh.update(_fill(client, f"new/{len(fresh)}", rng))
            return len(fresh) > len(bodies) // 2

        _wait(server, takes_more)
        for key, body in (bodies | fresh).items():
            answer = client.get_object(Bucket=daemon_process.BUCKET, Key=key)
            assert answer["Body"].read() == body, key


def _fill(client: typing.Any, prefix: str, rng: random.Random) -> dict[str, bytes]:
    """Objects until there is no room; those that were taken."""
    taken: dict[str, bytes] = {}
    while True:
        key, body = f"{prefix}/{len(taken):05d}", rng.randbytes(300 * _KIB)
        try:
            client.put_object(Bucket=daemon_process.BUCKET, Key=key, Body=body)
        except botocore.exceptions.ClientError as exc:
            if exc.response["Error"]["Code"] not in ("InsufficientStorage", "SlowDown"):
                raise
            return taken
        taken[key] = body


def _wait(server: server_process.ServerProcess, condition: typing.Callable[[], bool]) -> None:
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"it takes too long:\n{_said_by(server)}"
        time.sleep(0.5)


def _said_by(server: server_process.ServerProcess) -> str:
    port = server.command[server.command.index("--health-port") + 1]
    status = node_command.run("status", data_dir=server.data_dir, options={"health-port": port})
    listed = node_command.run("device", "list", data_dir=server.data_dir)
    return f"{status.stdout}\n{listed.stdout}\n{server.log_tail()}"


def _metric(server: server_process.ServerProcess, name: str) -> float:
    port = server.command[server.command.index("--metrics-port") + 1]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        page = answer.read().decode()
    found = re.search(rf"^couchestor_{re.escape(name)} (\S+)$", page, re.M)
    return float(found[1]) if found else 0.0
