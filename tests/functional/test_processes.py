"""The real supervisor over real processes, with a small node in place of the store."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import pytest

_NODE = """
import asyncio, os, pathlib, time
from couchestor_domain import errors

def load(role):
    if "LOADED" in os.environ:
        pathlib.Path(os.environ["LOADED"], role + str(os.getpid())).touch()

def lock_devices(settings):
    return []

def prepare(settings):
    if settings.region == "refuse":
        raise errors.ForeignDeviceError("device d0 belongs to another node")
    if settings.region == "long":
        while not (settings.data_dir / "go-on").exists():
            time.sleep(0.05)
    return {"devices": 6}

async def run_worker(settings, *, slot, credentials, inbox, ready, stop):
    from couchestor_daemon.app import metrics
    measured = metrics.NodeMetrics()
    measured.commits.inc()
    if settings.region == "crash" and slot == 0:
        os._exit(9)
    async def serve(reader, writer):
        await reader.readuntil(b"\\r\\n\\r\\n")
        writer.write(b"HTTP/1.0 200 OK\\r\\n\\r\\n%d" % os.getpid())
        await writer.drain()
        writer.close()
    server = await asyncio.start_server(serve, settings.host, settings.port, reuse_port=True)
    ready()
    await stop.wait()
    if settings.region == "stuck":
        await asyncio.sleep(60)
    if settings.region == "late":
        await asyncio.sleep(settings.drain_seconds + 0.1)
    server.close()
    (settings.data_dir / f"drained-{slot}").touch()

async def run_maintenance(settings, *, inbox, ready, report, stop):
    report({"checkpoint": {"sequence": 7}})
    ready()
    await stop.wait()

def conclude(settings):
    drained = sorted(path.name for path in settings.data_dir.glob("drained-*"))
    (settings.data_dir / "concluded").write_text(" ".join(drained))
"""
_RUN = """
import os, sys
from couchestor_daemon.app import option_table, serve_command, supervisor
from couchestor_domain import errors
supervisor.CLOSING_SECONDS = float(os.environ["CLOSING_SECONDS"])
try:
    told = option_table.load({}, os.environ)
    sys.exit(serve_command.run(told, environment=dict(os.environ), child_module="small_node"))
except errors.CouchestorError as exc:
    print(f"couchestor: {exc.message}", file=sys.stderr)
    sys.exit(2)
"""
_ROOT = pathlib.Path(__file__).resolve().parents[2]


class Node:
    """One running supervisor."""

    def __init__(self, folder: pathlib.Path, **variables: str) -> None:
        (folder / "small_node.py").write_text(_NODE)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.health_port = probe.getsockname()[1]
        self.data_dir = folder / "data"
        self.log = folder / f"log-{time.monotonic_ns()}"
        paths = [str(folder), *(str(_ROOT / name) for name in ("domain", "daemon", "gateway"))]
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("COUCHESTOR_")},
            "PYTHONPATH": os.pathsep.join(paths),
            "COUCHESTOR_CONFIG": str(folder / "empty.toml"),
            "COUCHESTOR_DATA_DIR": str(self.data_dir),
            "COUCHESTOR_PORT": "0",
            "COUCHESTOR_METRICS_PORT": "0",
            "COUCHESTOR_ADMIN_PORT": "0",
            "COUCHESTOR_HEALTH_PORT": str(self.health_port),
            "COUCHESTOR_WORKERS": "2",
            "COUCHESTOR_LOG_JSON": "1",
            "CLOSING_SECONDS": "10",
            **variables,
        }
        (folder / "empty.toml").touch()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _RUN],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def get(self, path: str) -> tuple[int, dict[str, object]]:
        """An answer of the health server; status 0 while there is none."""
        try:
            url = f"http://127.0.0.1:{self.health_port}{path}"
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, json.load(exc)
        except OSError:
            return 0, {}

    def children(self) -> dict[str, dict[str, object]]:
        """The children by name."""
        found = self.get("/status")[1].get("children", [])
        assert isinstance(found, list)
        return {child["name"]: child for child in found}

    def wait_ready(self) -> None:
        """Until the node serves."""
        until(lambda: self.get("/readyz")[0] == 200, self.log)


def until(condition: Callable[[], bool], log: pathlib.Path, seconds: float = 15) -> None:
    """Wait for a condition; shows the daemon's log when it never comes."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def is_gone(pid: int) -> bool:
    """True when no such process runs (a zombie of another parent does not run)."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture
def start(tmp_path: pathlib.Path) -> Iterator[Callable[..., Node]]:
    """Starts nodes and ends those that are left."""
    nodes: list[Node] = []

    def begin(**variables: str) -> Node:
        nodes.append(Node(tmp_path, **variables))
        return nodes[-1]

    yield begin
    for node in nodes:
        if node.process.poll() is None:
            node.process.kill()
        node.process.wait()


def test_serves_restarts_a_killed_worker_and_drains(start: Callable[..., Node]) -> None:
    node = start()
    node.wait_ready()
    pid = node.children()["worker-0"]["pid"]
    assert isinstance(pid, int)
    os.kill(pid, signal.SIGKILL)
    until(lambda: node.children()["worker-0"]["restart_count"] == 1, node.log)
    until(lambda: node.children()["worker-0"]["state"] == "ready", node.log)
    assert node.children()["worker-0"]["last_exit"] == "SIGKILL"
    assert node.get("/status")[1]["node"] == {"devices": 6, "checkpoint": {"sequence": 7}}
    node.process.terminate()
    assert node.process.wait(15) == 0, node.log.read_text()
    assert (node.data_dir / "concluded").read_text() == "drained-0 drained-1"


def test_metrics_are_one_page_that_survives_a_restart(start: Callable[..., Node]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    node = start(COUCHESTOR_METRICS_PORT=str(port))
    node.wait_ready()
    pid = node.children()["worker-1"]["pid"]
    assert isinstance(pid, int)
    os.kill(pid, signal.SIGKILL)

    def page() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    # Two workers and one second life: nothing the dead worker counted is lost.
    until(lambda: "couchestor_commits_total 3.0" in page(), node.log)
    restarted = 'couchestor_child_restarts_total{child="worker-1"} 1.0'
    until(lambda: restarted in page(), node.log)


def test_children_die_with_the_supervisor(start: Callable[..., Node]) -> None:
    node = start()
    node.wait_ready()
    pids = [child["pid"] for child in node.children().values()]
    assert len(pids) == 3
    node.process.kill()
    node.process.wait()
    for pid in pids:
        assert isinstance(pid, int)
        until(lambda pid=pid: is_gone(pid), node.log)  # type: ignore[misc]


def test_a_refusal_to_prepare_is_one_line_and_ends(start: Callable[..., Node]) -> None:
    node = start(COUCHESTOR_REGION="refuse")
    assert node.process.wait(15) == 1
    last = json.loads(node.log.read_text().splitlines()[-1])
    assert (last["level"], last["message"]) == ("error", "device d0 belongs to another node")
    assert "Traceback" not in node.log.read_text()


@pytest.mark.parametrize("ends", ["goes on", "is stopped", "fails"])
def test_children_load_while_the_node_is_prepared(
    start: Callable[..., Node], tmp_path: pathlib.Path, ends: str
) -> None:
    loaded = tmp_path / "loaded"
    loaded.mkdir()
    node = start(COUCHESTOR_REGION="long", LOADED=str(loaded))
    pids: dict[str, int] = {}
    until(lambda: len(list(loaded.iterdir())) == 4, node.log)
    for path in loaded.iterdir():
        found = re.fullmatch(r"(\D+)(\d+)", path.name)
        assert found
        pids.setdefault(found[1], int(found[2]))
    assert sorted(pids) == ["maintenance", "prepare", "worker"]
    assert node.get("/readyz")[1]["reasons"] == ["the node is preparing"]
    if ends == "goes on":
        (node.data_dir / "go-on").touch()
        node.wait_ready()
        served_by = [child["pid"] for child in node.children().values()]
        assert pids["worker"] in served_by
        assert pids["maintenance"] in served_by
        return
    if ends == "is stopped":
        node.process.terminate()
        assert node.process.wait(10) == 0, node.log.read_text()
    else:
        os.kill(pids["prepare"], signal.SIGKILL)
        assert node.process.wait(10) != 0
        assert "preparing the store failed (SIGKILL)" in node.log.read_text()
    assert "Traceback" not in node.log.read_text()
    assert all(is_gone(int(re.sub(r"\D", "", path.name))) for path in loaded.iterdir())


def test_a_crash_storm_is_visible_and_backs_off(start: Callable[..., Node]) -> None:
    node = start(COUCHESTOR_REGION="crash")
    until(lambda: "worker-0 keeps crashing" in str(node.get("/readyz")[1]), node.log)
    assert node.get("/livez")[0] == 200
    assert node.children()["worker-1"]["restart_count"] == 0


def test_drain_has_a_deadline(start: Callable[..., Node]) -> None:
    node = start(COUCHESTOR_REGION="stuck", COUCHESTOR_DRAIN_SECONDS="0.3", CLOSING_SECONDS="0.2")
    node.wait_ready()
    node.process.send_signal(signal.SIGINT)
    assert node.process.wait(10) == 0
    assert "drain deadline passed" in node.log.read_text()
    assert not (node.data_dir / "concluded").exists(), "a killed child is no orderly stop"


def test_a_child_that_cuts_requests_off_may_end_in_order(start: Callable[..., Node]) -> None:
    node = start(COUCHESTOR_REGION="late", COUCHESTOR_DRAIN_SECONDS="0.3")
    node.wait_ready()
    node.process.terminate()
    assert node.process.wait(15) == 0, node.log.read_text()
    assert "drain deadline passed" not in node.log.read_text()
    assert (node.data_dir / "concluded").read_text() == "drained-0 drained-1"


def test_a_second_daemon_on_the_same_data_is_refused(start: Callable[..., Node]) -> None:
    first = start()
    first.wait_ready()
    second = start()
    assert second.process.wait(15) == 2
    assert "another couchestor daemon uses" in second.log.read_text()


def test_systemd_is_told_ready_alive_and_stopping(
    start: Callable[..., Node], tmp_path: pathlib.Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "n"))
        receiver.settimeout(15)
        node = start(NOTIFY_SOCKET=str(tmp_path / "n"), WATCHDOG_USEC="900000")
        seen: set[str] = set()
        while not {"READY=1", "WATCHDOG=1"} <= seen:
            seen.update(receiver.recv(4096).decode().split("\n"))
        node.process.terminate()
        while "STOPPING=1" not in seen:
            seen.update(receiver.recv(4096).decode().split("\n"))
        assert node.process.wait(15) == 0


def test_systemd_is_told_ready_though_its_queue_was_full(
    start: Callable[..., Node], tmp_path: pathlib.Path
) -> None:
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other,
    ):
        receiver.bind(str(tmp_path / "n"))
        receiver.settimeout(15)
        other.connect(str(tmp_path / "n"))
        other.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                other.send(b"OTHER=1")
        node = start(NOTIFY_SOCKET=str(tmp_path / "n"))
        node.wait_ready()
        seen: set[str] = set()
        while "READY=1" not in seen:
            seen.update(receiver.recv(4096).decode().split("\n"))


def test_hangup_keeps_every_process(start: Callable[..., Node]) -> None:
    node = start()
    node.wait_ready()
    before = {name: child["pid"] for name, child in node.children().items()}
    node.process.send_signal(signal.SIGHUP)
    time.sleep(0.7)
    assert {name: child["pid"] for name, child in node.children().items()} == before
    assert all(child["state"] == "ready" for child in node.children().values())
