"""A device that becomes slow: suspected, tested, held, and out of service before long.

The slowness is the kernel's: the device is an ext4 on a loop device, and a control group that the
node's processes are in may only do so many reads and writes a second there. What other processes
do is not slowed down, nor what the node does on its other devices.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import random
import statistics
import threading
import time
import typing
from collections.abc import Callable, Iterator

import psutil
import pytest
from tests.functional import daemon_process, mounted_device, node_command

from couchestor_bench import server_process

_KIB: typing.Final = 1024
_MIB: typing.Final = 1024 * _KIB
_CONTROL: typing.Final = pathlib.Path("/sys/fs/cgroup/blkio")
_COMMANDS_PER_SECOND: typing.Final = 40
_WINDOW_SECONDS: typing.Final = 0.4
_PAUSE_SECONDS: typing.Final = 0.03
"""Of each client between two requests: the devices are small."""
_OPTIONS: typing.Final = {
    "suspect-window-seconds": str(_WINDOW_SECONDS),
    "suspect-latency-floor-seconds": "0.005",
    "device-capacity-bytes": str(512 * _MIB),
    "zone-bytes": str(4 * _MIB),
    "rebuild-delay-seconds": "3600",
    "workers": "2",
}


class _Brake:
    """A control group for the processes of a server."""

    def __init__(self, group: pathlib.Path, device: pathlib.Path) -> None:
        self._group = group
        number = device.stat().st_dev
        self._device = f"{os.major(number)}:{os.minor(number)}"

    def hold(self, server: server_process.ServerProcess) -> None:
        """Take the processes of the server, and whatever they start, into the group."""
        (parent,) = (
            process
            for process in psutil.process_iter(["cmdline"])
            if process.info["cmdline"] == server.command
        )
        for process in (parent, *parent.children(recursive=True)):
            (self._group / "cgroup.procs").write_text(str(process.pid))

    def pull(self) -> None:
        """From now on commands wait."""
        self._limit(_COMMANDS_PER_SECOND)

    def release(self) -> None:
        """As fast as before."""
        self._limit(0)

    def _limit(self, per_second: int) -> None:
        for kind in ("read", "write"):
            file = self._group / f"blkio.throttle.{kind}_iops_device"
            file.write_text(f"{self._device} {per_second}")


@contextlib.contextmanager
def _brake(device: pathlib.Path, name: str) -> Iterator[_Brake]:
    """Skips where control groups of version 1 cannot be made."""
    group = _CONTROL / name
    try:
        group.mkdir()
    except OSError as exc:
        pytest.skip(f"no control group for block devices can be made here: {exc}")
    if not (group / "blkio.throttle.write_iops_device").exists():
        group.rmdir()
        pytest.skip("the kernel cannot slow down block devices")
    try:
        yield _Brake(group, device)
    finally:
        # A group that holds a process, or a dead one's thread, cannot be removed.
        ends = time.monotonic() + 10
        while (group / "cgroup.procs").read_text() and time.monotonic() < ends:
            time.sleep(0.05)
        group.rmdir()


class _Load:
    """Small objects written one after the other by a few clients, for as long as it is open."""

    def __init__(self, server: server_process.ServerProcess) -> None:
        self._server = server
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._write, args=(number,)) for number in range(4)
        ]
        self.objects: dict[str, bytes] = {}
        self.taken: list[tuple[float, float]] = []
        """When each ended and how long it took."""
        self.failures: list[Exception] = []

    def __enter__(self) -> _Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def slow_since(self, since: float) -> float:
        """What nine of ten took at most that began after a moment."""
        return _slow([each for each in list(self.taken) if each[0] - each[1] > since])

    def slow_of_last(self, count: int) -> float:
        """The same of the last ones."""
        return _slow(self.taken[-count:])

    def _write(self, client_number: int) -> None:
        client = daemon_process.boto_client(self._server)
        number = 0
        while not self._stop.is_set():
            key = f"{client_number}/{number:05d}"
            body = random.Random(key).randbytes((4, 40, 160)[number % 3] * _KIB)
            began = time.monotonic()
            try:
                client.put_object(Bucket=daemon_process.BUCKET, Key=key, Body=body)
            except Exception as exc:
                self.failures.append(exc)
                return
            ended = time.monotonic()
            self.taken.append((ended, ended - began))
            self.objects[key] = body
            number += 1
            self._stop.wait(_PAUSE_SECONDS)


@pytest.mark.skipif(daemon_process.is_peer(), reason="the peer keeps one copy")
@pytest.mark.timeout(120)
def test_a_slow_device_is_suspected_tested_held_and_taken_out(tmp_path: pathlib.Path) -> None:
    slow = tmp_path / "node" / "devices" / "d1"
    with (
        mounted_device.mounted(slow, tmp_path / "d1.img", size_bytes=640 * _MIB),
        _brake(slow, f"couchestor-{os.getpid()}") as brake,
        daemon_process.running(tmp_path / "node", options=_OPTIONS) as server,
    ):
        brake.hold(server)
        with _Load(server) as load:
            _until(lambda: len(load.taken) > 50)
            brake.pull()
            began = time.monotonic()
            said = _until_status(server, "warning: device d1 is suspected: slow: ")
            assert " on the other devices" in said, said
            beside = load.slow_since(began)
            said = _until_status(server, "warning: device d1 is held: slow: ")
            assert "its last test failed: " in said, said
            (row,) = (each for each in _listed(server) if each["label"] == "d1")
            assert row["state"] == "held", row
            assert "it is given nothing new" in row["reason"], row
            # The log and the groups that have it for a member are left within a look or two.
            _until(lambda: load.slow_of_last(50) < beside)
            said = _until_status(server, "warning: device d1 is out of service: it failed 6 tests")
            assert "d1 is held" not in said, said
        assert not load.failures
        brake.release()
        done = node_command.run("device", "attach", str(slow), data_dir=server.data_dir)
        assert done.returncode == 0, done.stderr
        client = daemon_process.boto_client(server)
        for key, body in load.objects.items():
            read = client.get_object(Bucket=daemon_process.BUCKET, Key=key)["Body"].read()
            assert read == body, key
        assert {row["state"] for row in _listed(server)} == {"present"}


def _slow(taken: list[tuple[float, float]]) -> float:
    return statistics.quantiles([seconds for _, seconds in taken], n=10)[-1]


def _until(met: Callable[[], bool]) -> None:
    ends = time.monotonic() + 30
    while not met():
        assert time.monotonic() < ends
        time.sleep(0.02)


def _until_status(server: server_process.ServerProcess, text: str) -> str:
    port = server.command[server.command.index("--health-port") + 1]
    said, ends = "", time.monotonic() + 40
    while text not in said:
        assert time.monotonic() < ends, said
        said = node_command.run(
            "status", data_dir=server.data_dir, options={"health-port": port}
        ).stdout
    return said


def _listed(server: server_process.ServerProcess) -> list[dict[str, str]]:
    done = node_command.run("device", "list", "--json", data_dir=server.data_dir)
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, str]] = json.loads(done.stdout)
    return rows
