"""What a checkpoint and a clean stop save at the next start, by the real daemon."""

from __future__ import annotations

import json
import pathlib
import random
import re
import shutil
import subprocess
import sys
import time
import typing
import urllib.request
from concurrent import futures

import pytest
from tests.functional import daemon_process

from couchestor_bench import server_process

_OPTIONS: typing.Final = {
    "device-capacity-bytes": "64MiB",
    "zone-bytes": "1MiB",
    "stripe-bytes": "1MiB",
    "workers": "2",
    "checkpoint-log-bytes": "512KiB",
}
_DEADLINE_SECONDS: typing.Final = 60.0

pytestmark = pytest.mark.skipif(daemon_process.is_peer(), reason="our index, our log")


@pytest.mark.timeout(240)
def test_recovery_starts_from_the_checkpoint_and_replays_a_short_tail(
    tmp_path: pathlib.Path,
) -> None:
    with daemon_process.running(tmp_path / "node", options=_OPTIONS) as server:
        objects = _put(server, "first", 250)
        taken = _wait_for_checkpoint(server, above=0)
        _delete(server, objects, 50)
        objects |= _put(server, "second", 250)
        taken = _wait_for_checkpoint(server, above=taken)
        objects |= _put(server, "third", 20)
        page = f"http://127.0.0.1:{_option(server, 'metrics-port')}/metrics"
        with urllib.request.urlopen(page, timeout=5) as answer:
            gauge = re.search(
                r"^couchestor_checkpoint_sequence (\S+)$", answer.read().decode(), re.M
            )
        assert gauge is not None
        assert float(gauge[1]) == taken
        server.kill()
        shutil.rmtree(server.data_dir / "index")
        said = _command(server, "recover")
        found = re.search(r"from the checkpoint of sequence (\d+) and (\d+) batches after it", said)
        assert found is not None, said
        assert int(found[1]) >= taken
        # 520 puts, four at a time, and 50 deletes were committed; the tail is what came last.
        assert 0 < int(found[2]) < 100, said
        assert _command(server, "check") == "everything verified\n"
        server.restart()
        _verify(server, objects)
        # A damaged copy is named, and recovery does without it.
        server.terminate()
        zone = _checkpoint_zone(server)
        content = bytearray(zone.read_bytes())
        content[5000] ^= 1
        zone.write_bytes(content)
        said = _command(server, "check", status=1)
        assert re.search(r"the copy of checkpoint \d+ on device \w+ does not verify", said), said
        assert "from the checkpoint of sequence" in _command(server, "recover")
        server.restart()
        _verify(server, objects)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("stop", "action"), [("terminate", "use"), ("kill", "rebuild")])
def test_a_reboot_after_a_clean_stop_uses_the_index_and_after_a_crash_rebuilds_it(
    tmp_path: pathlib.Path, stop: str, action: str
) -> None:
    with daemon_process.running(tmp_path / "node", options=_OPTIONS) as server:
        objects = _put(server, "kept", 60)
        mark = server.data_dir / "running.json"
        assert "clean" not in json.loads(mark.read_text())
        if stop == "terminate":
            assert server.terminate() == 0
        else:
            server.kill()
        document = json.loads(mark.read_text())
        assert document.get("clean", False) == (stop == "terminate")
        mark.write_text(json.dumps({**document, "boot_id": "another boot"}))
        server.restart()
        assert _status(server)["node"]["action"] == action
        assert "clean" not in json.loads(mark.read_text())
        _verify(server, objects)


def _put(server: server_process.ServerProcess, prefix: str, count: int) -> dict[str, bytes]:
    client = daemon_process.boto_client(server)
    objects = {
        f"{prefix}/{number:04d}": random.Random(f"{prefix}{number}").randbytes(3000)
        for number in range(count)
    }
    with futures.ThreadPoolExecutor(4) as pool:
        list(
            pool.map(
                lambda item: client.put_object(
                    Bucket=daemon_process.BUCKET, Key=item[0], Body=item[1]
                ),
                objects.items(),
            )
        )
    return objects


def _delete(server: server_process.ServerProcess, objects: dict[str, bytes], count: int) -> None:
    client = daemon_process.boto_client(server)
    for key in list(objects)[:count]:
        client.delete_object(Bucket=daemon_process.BUCKET, Key=key)
        del objects[key]


def _verify(server: server_process.ServerProcess, objects: dict[str, bytes]) -> None:
    client = daemon_process.boto_client(server)
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=daemon_process.BUCKET)
    assert [row["Key"] for page in pages for row in page.get("Contents", [])] == sorted(objects)
    for key, body in objects.items():
        read = client.get_object(Bucket=daemon_process.BUCKET, Key=key)["Body"].read()
        assert read == body, f"{key} of {len(body)} bytes differs"


def _wait_for_checkpoint(server: server_process.ServerProcess, *, above: int) -> int:
    """Sequence of the newest one, once it is above another."""
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while time.monotonic() < deadline:
        sequence = int(_status(server)["node"].get("checkpoint", {}).get("sequence", 0))
        if sequence > above:
            return sequence
        time.sleep(0.2)
    raise AssertionError(f"no checkpoint above sequence {above}:\n{server.log_tail()}")


def _status(server: server_process.ServerProcess) -> dict[str, typing.Any]:
    url = f"http://127.0.0.1:{_option(server, 'health-port')}/status"
    with urllib.request.urlopen(url, timeout=5) as answer:
        return typing.cast("dict[str, typing.Any]", json.load(answer))


def _option(server: server_process.ServerProcess, name: str) -> str:
    return server.command[server.command.index(f"--{name}") + 1]


def _checkpoint_zone(server: server_process.ServerProcess) -> pathlib.Path:
    """A zone that begins with a zone header of role 3."""
    return next(
        path
        for path in sorted((server.data_dir / "devices").glob("*/zones/*.zone"))
        if path.read_bytes()[:25].startswith(b"CSTZONE\0") and path.read_bytes()[24] == 3
    )


def _command(server: server_process.ServerProcess, name: str, *, status: int = 0) -> str:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "couchestor_daemon.app.command", name),
            *("--data-dir", str(server.data_dir)),
        ],
        env={**server_process.outer_environment(), **server.environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, f"{name} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout
