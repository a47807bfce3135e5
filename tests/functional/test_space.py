"""Space that overwrites and deletes free comes back, by the real daemon."""

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
from tests.functional import daemon_process

from couchestor_bench import server_process

_KIB: typing.Final = 1024
_MIB: typing.Final = 1024 * _KIB
_OPTIONS: typing.Final = {
    "device-capacity-bytes": "32MiB",
    "zone-bytes": "1MiB",
    "stripe-bytes": "256KiB",
    "workers": "2",
    "zone-grace-seconds": "1",
    "checkpoint-log-bytes": "512KiB",
}
_DEVICES_COUNT: typing.Final = 6
_CODING_RATIO: typing.Final = 1.5
_REPLICAS: typing.Final = 3
_DEADLINE_SECONDS: typing.Final = 60.0

pytestmark = pytest.mark.skipif(daemon_process.is_peer(), reason="our zones")


class Load:
    """A few objects that are overwritten again and again."""

    def __init__(self, server: server_process.ServerProcess) -> None:
        self._client = daemon_process.boto_client(server)
        self._rng = random.Random(1)
        self.objects: dict[str, bytes] = {}
        self.written_bytes = 0

    def overwrite(self) -> None:
        """Every object once."""
        for number in range(6):
            self._put(f"large/{number}", 700 * _KIB + number)
        for number in range(20):
            self._put(f"small/{number}", 3 * _KIB + number)

    def _put(self, key: str, size_bytes: int) -> None:
        body = self._rng.randbytes(size_bytes)
        self._client.put_object(Bucket=daemon_process.BUCKET, Key=key, Body=body)
        self.objects[key] = body
        self.written_bytes += size_bytes * _REPLICAS if size_bytes < 128 * _KIB else size_bytes

    def verify(self) -> None:
        """Everything reads back."""
        for key, body in self.objects.items():
            answer = self._client.get_object(Bucket=daemon_process.BUCKET, Key=key)
            assert answer["Body"].read() == body, key


@pytest.mark.timeout(300)
def test_overwriting_for_ever_uses_no_more_zones(tmp_path: pathlib.Path) -> None:
    with daemon_process.running(tmp_path / "node", options=_OPTIONS) as server:
        load = Load(server)
        zones_count = 32 * _DEVICES_COUNT
        peak = 0
        # Twice what the devices hold.
        while load.written_bytes * _CODING_RATIO < 2 * zones_count * _MIB:
            load.overwrite()
            peak = max(peak, _zones_used(server))
        load.verify()
        assert peak < zones_count * 0.9, "the store never came near to being full"
        before = _zones_used(server)
        server.kill()
        server.restart()
        load = _again(load, server)
        load.verify()
        for _ in range(8):
            load.overwrite()
        load.verify()
        used = _wait_for_zones(server, at_most=zones_count // 3)
        live = sum(len(body) for body in load.objects.values()) * _CODING_RATIO / _MIB
        reset, reclaimed = _counter(server, "zones_reset"), _counter(server, "reclaimed_bytes")
        assert reset > 10
        assert reclaimed > 5 * _MIB
        print(
            f"zones used: {peak} at most, {before} before the kill, {used} at rest; "
            f"{live:.1f} MiB live with parity: {used / live:.1f} zones of 1 MiB for each; "
            f"{reset:.0f} zones reset since, {reclaimed / _MIB:.0f} MiB"
        )


@pytest.mark.timeout(300)
@pytest.mark.parametrize("size_bytes", [16 * _KIB, 3 * _MIB], ids=["small", "striped"])
def test_a_full_store_takes_writes_again_after_deletes(
    tmp_path: pathlib.Path, size_bytes: int
) -> None:
    options = {
        **_OPTIONS,
        "device-capacity-bytes": "24MiB",
        "room-wait-seconds": "2",
        "checkpoint-log-bytes": "64MiB",
    }
    with daemon_process.running(tmp_path / "node", options=options) as server:
        client = daemon_process.boto_client(server)
        keys: list[str] = []
        body = bytes(size_bytes)
        while _put(client, f"fill/{len(keys):05d}", body):
            keys.append(f"fill/{len(keys):05d}")
        for first in range(0, len(keys), 500):
            answer = client.delete_objects(
                Bucket=daemon_process.BUCKET,
                Delete={"Objects": [{"Key": key} for key in keys[first : first + 500]]},
            )
            assert not answer.get("Errors"), answer
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while not _put(client, "again", body):
            assert time.monotonic() < deadline, f"still full:\n{server.log_tail()}"
            time.sleep(0.5)
        for number in range(len(keys) // 3):
            client.put_object(Bucket=daemon_process.BUCKET, Key=f"new/{number}", Body=body)


def _put(client: typing.Any, key: str, body: bytes) -> bool:
    """Whether there was room."""
    for _ in range(20):
        try:
            client.put_object(Bucket=daemon_process.BUCKET, Key=key, Body=body)
        except botocore.exceptions.ClientError as exc:
            if exc.response["Error"]["Code"] == "SlowDown":
                continue  # Zones come back.
            if exc.response["Error"]["Code"] != "InsufficientStorage":
                raise
            return False
        return True
    raise AssertionError(f"{key} was told to come back 20 times")


def _again(load: Load, server: server_process.ServerProcess) -> Load:
    """The same objects, asked of a new process."""
    fresh = Load(server)
    fresh.objects = load.objects
    return fresh


def _wait_for_zones(server: server_process.ServerProcess, *, at_most: int) -> int:
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while (used := _zones_used(server)) > at_most:
        assert time.monotonic() < deadline, f"{used} zones are in use:\n{server.log_tail()}"
        time.sleep(0.5)
    return used


def _zones_used(server: server_process.ServerProcess) -> int:
    url = f"http://127.0.0.1:{_option(server, 'health-port')}/status"
    with urllib.request.urlopen(url, timeout=5) as answer:
        zones = json.load(answer)["node"].get("zones", {})
    return sum(found["used"] for found in zones.values())


def _counter(server: server_process.ServerProcess, name: str) -> float:
    page = f"http://127.0.0.1:{_option(server, 'metrics-port')}/metrics"
    with urllib.request.urlopen(page, timeout=5) as answer:
        found = re.search(rf"^couchestor_{name}_total (\S+)$", answer.read().decode(), re.M)
    assert found is not None
    return float(found[1])


def _option(server: server_process.ServerProcess, name: str) -> str:
    return server.command[server.command.index(f"--{name}") + 1]
