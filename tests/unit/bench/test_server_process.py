"""A server ends with the process that started it, however that one ends."""

from __future__ import annotations

import pathlib
import signal
import subprocess
import sys
import time

import psutil
import pytest

from couchestor_bench import server_process

STARTER = """
import pathlib, sys, time
from couchestor_bench import server_process

(port,) = server_process.free_ports(1)
server = server_process.ServerProcess(
    "web",
    [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)],
    environment={},
    data_dir=pathlib.Path(sys.argv[1]),
    port=port,
    ready_url=f"http://127.0.0.1:{port}/",
)
server.start()
print(server.pid, flush=True)
time.sleep(60)
"""
GONE_SECONDS_MAX = 20.0


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_server_ends_with_who_started_it(tmp_path: pathlib.Path, how: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STARTER, tmp_path / "web"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as starter:
        assert starter.stdout is not None
        server = psutil.Process(int(starter.stdout.readline()))
        starter.send_signal(how)
    deadline = time.monotonic() + GONE_SECONDS_MAX
    while not server_process.has_ended(server):
        assert time.monotonic() < deadline, f"{server} outlives who started it"
        time.sleep(0.01)


def test_no_client_is_given_the_port_of_a_server_that_is_down() -> None:
    given = pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text("utf-8")
    ports = server_process.free_ports(20)
    assert len(set(ports)) == 20
    assert 1024 < min(ports) <= max(ports) < int(given.split()[0])
