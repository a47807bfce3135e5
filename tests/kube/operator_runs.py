"""The real operator as a process, beside a Prometheus that says what a test wants."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Final

import lying_prometheus
from aiohttp import web
from tests.kube import chart_accounts, control_plane, helm_runs

from couchestor_operator.adapters import kube_access
from couchestor_operator.resources import definition, field_types, lease_document

POLICIES: Final = f"/apis/{field_types.API_VERSION}/{definition.STORAGE_POLICY.plural}"
LEASES: Final = (
    f"/apis/{lease_document.GROUP}/v1/namespaces/{helm_runs.NAMESPACE}/{lease_document.PLURAL}"
)
STARTED_SECONDS_MAX: Final = 30.0
STOPPED_SECONDS_MAX: Final = 20.0
WATCHED_SECONDS_MAX: Final = 180
_POLL_SECONDS: Final = 0.05


class OperatorProcess:
    """One operator; ends with the block of ``running`` whatever happens."""

    def __init__(self, command: list[str], log: pathlib.Path, ports: tuple[int, int]) -> None:
        self._log = log
        self._metrics_port, self._health_port = ports
        with log.open("ab") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output)

    def stop(self, number: signal.Signals) -> int:
        """End it and wait until it has. Returns: its exit status."""
        self.process.send_signal(number)
        return self.process.wait(STOPPED_SECONDS_MAX)

    def lines(self) -> list[dict[str, Any]]:
        """What it has logged so far."""
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    def health(self, path: str) -> tuple[int, Any]:
        """What a probe is answered; 0 while nobody listens."""
        try:
            return 200, json.loads(self._got(self._health_port, path))
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, json.load(refused)
        except OSError:
            return 0, None

    def figures(self) -> dict[str, float]:
        """The metrics, by name and labels as they are written; nothing while nobody listens."""
        try:
            page = self._got(self._metrics_port, "/metrics").decode()
        except OSError:
            return {}
        lines = (line.rpartition(" ") for line in page.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in lines}

    def figure(self, name: str) -> float:
        """One of them; 0 if it is not there yet."""
        return self.figures().get(name, 0.0)

    def processor_seconds(self) -> float:
        """What it has taken so far, of all its threads."""
        fields = (
            pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        )
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def until_ready(self) -> None:
        """Until it knows the cluster."""
        await until(lambda: self.health("/readyz")[0] == 200, self, STARTED_SECONDS_MAX)

    async def until_leading(self, seconds_max: float) -> None:
        """Until it acts."""
        await until(lambda: self.figure("couchestor_operator_leading") == 1.0, self, seconds_max)

    def _got(self, port: int, path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            body: bytes = answer.read()
            return body

    def __repr__(self) -> str:
        return f"{self.process.poll()}:\n{self._log.read_text()[-6000:]}"


async def until(holds: Any, about: object, seconds_max: float) -> None:
    """Wait until something holds, asked in a thread; ``about`` is shown if it does not."""
    deadline_seconds = time.monotonic() + seconds_max
    while not await asyncio.to_thread(holds):
        assert time.monotonic() < deadline_seconds, about
        await asyncio.sleep(_POLL_SECONDS)


class Operators:
    """Starts operators over one API server, with one Lease."""

    def __init__(
        self, access: kube_access.Access, folder: pathlib.Path, options: Mapping[str, str]
    ) -> None:
        self._folder = folder
        self._options = options
        self._running: list[OperatorProcess] = []
        self._kubeconfig = chart_accounts.kubeconfig(access, folder / "kubeconfig")

    def start(self, **options: str) -> OperatorProcess:
        """Start one more."""
        metrics_port, health_port = control_plane.free_ports(2)
        words = {
            "kubeconfig": str(self._kubeconfig),
            "metrics_addr": f"127.0.0.1:{metrics_port}",
            "health_addr": f"127.0.0.1:{health_port}",
            "log_json": "true",
            "log_level": "info",
            **self._options,
            **options,
        }
        program = pathlib.Path(sys.executable).with_name("couchestor-operator")
        command = [str(program)]
        for name, value in words.items():
            command += [f"--{name.replace('_', '-')}", value]
        log = self._folder / f"operator-{len(self._running)}.jsonl"
        started = OperatorProcess(command, log, (metrics_port, health_port))
        self._running.append(started)
        return started

    def end(self) -> None:
        """End those that still run."""
        for each in self._running:
            if each.process.poll() is None:
                each.stop(signal.SIGKILL)


@contextlib.contextmanager
def over(access: kube_access.Access, folder: pathlib.Path, **options: str) -> Iterator[Operators]:
    """Operators that end with the block."""
    operators = Operators(access, folder, options)
    try:
        yield operators
    finally:
        operators.end()


@contextlib.asynccontextmanager
async def prometheus(heat: Mapping[str, float]) -> AsyncIterator[str]:
    """The URL of a Prometheus that says these IOPS of these volumes, all over every window."""

    async def answer(request: web.Request) -> web.StreamResponse:
        form = await request.post()
        start, end, step = (float(str(form[name])) for name in ("start", "end", "step"))
        moments = [start + step * index for index in range(round((end - start) / step) + 1)]
        series = (
            ({"volume": f"pvc-{name}"}, [(moment, str(iops)) for moment in moments])
            for name, iops in heat.items()
        )
        body = lying_prometheus.matrix(*series)
        return web.Response(body=body, content_type="application/json")

    async with lying_prometheus.served(answer) as server:
        yield server.url


def have_namespace(plane: control_plane.ControlPlane, name: str) -> None:
    """Make it if it is not there."""
    status, answer = plane.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    assert status in (201, 409), answer


def free_lease(plane: control_plane.ControlPlane, name: str) -> None:
    """Have a Lease that nobody holds, so that whoever comes first need not wait for its end."""
    lease = {
        "apiVersion": f"{lease_document.GROUP}/v1",
        "kind": "Lease",
        "metadata": {"name": name},
        "spec": {"holderIdentity": ""},
    }
    status, answer = plane.request("POST", LEASES, lease)
    if status == 409:
        # Its holder has been killed: only somebody who knows that may do so.
        status, answer = plane.request("PATCH", f"{LEASES}/{name}", {"spec": lease["spec"]})
    assert status in (200, 201), answer


def remove_policies(plane: control_plane.ControlPlane) -> None:
    """Leave an operator that begins now no policy of tests before: it serves the whole cluster."""
    status, found = plane.request("GET", POLICIES)
    assert status == 200, found
    for each in found["items"]:
        path = f"{POLICIES}/{each['metadata']['name']}"
        # Nobody who would see to its migrations runs any more.
        plane.request("PATCH", path, {"metadata": {"finalizers": None}})
        status, answer = plane.request("DELETE", path)
        assert status == 200, answer


class Steps:
    """The steps that the status of a policy goes through, as whoever watches it sees them."""

    def __init__(self, plane: control_plane.ControlPlane, policy_name: str) -> None:
        self._seen: list[str] = []
        self._fault: Exception | None = None
        self._path = f"{POLICIES}?watch=1&fieldSelector=metadata.name={policy_name}"
        self._plane = plane
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def seen(self) -> list[str]:
        """Those so far, each once in a row. Raises whatever the watch ended with."""
        if self._fault is not None:
            raise self._fault
        return list(self._seen)

    def _follow(self) -> None:
        try:
            for event in self._plane.events(self._path, seconds_max=WATCHED_SECONDS_MAX):
                for record in event["object"].get("status", {}).get("migrations", []):
                    if not self._seen or self._seen[-1] != record["step"]:
                        self._seen.append(record["step"])
        except Exception as exc:
            self._fault = exc
