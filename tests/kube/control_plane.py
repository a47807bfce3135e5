"""A real control plane on loopback: etcd and kube-apiserver, nothing that would run containers."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import pathlib
import secrets
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

START_SECONDS_MAX: Final = 60.0
REQUEST_SECONDS_MAX: Final = 30.0
_POLL_SECONDS: Final = 0.05
_LOG_TAIL_BYTES: Final = 4000

TABLE: Final = "application/json;as=Table;g=meta.k8s.io;v=v1"
"""Ask for an answer as ``kubectl get`` prints it."""

_AUDIT_POLICY: Final = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    # A watch is told of once it is answered, and not when it ends.
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "Metadata", "userGroups": ["system:serviceaccounts"]},
        {"level": "None"},
    ],
}


class Applied(NamedTuple):
    """How an API server answered a document that was applied to it."""

    status: int
    answer: Any
    warnings: list[str]


class NotStartedError(Exception):
    """A server ended, or was not ready in time; the end of its log stands in the message."""


@dataclass(slots=True, kw_only=True)
class Server:
    """One process and where it logs."""

    name: str
    command: list[str]
    log: pathlib.Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run it; its output goes to its log, which is kept over restarts."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(self.command, stdout=output, stderr=output)

    def stop(self) -> None:
        """End it at once: nothing of it is kept, and in order it would wait for each watch."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait()

    def check(self) -> None:
        """Raises: NotStartedError: it has ended."""
        if self.process is None or self.process.poll() is not None:
            raise NotStartedError(f"{self.name} has ended:\n{self.log_tail()}")

    def log_tail(self) -> str:
        """The last that it logged."""
        return self.log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace")


@dataclass(kw_only=True)
class ControlPlane:
    """An API server that ``token`` may do everything on, and its etcd."""

    url: str
    token: str = field(repr=False)
    ca_file: pathlib.Path
    etcd: Server
    api_server: Server
    audit_log: pathlib.Path

    def events(self, path: str, *, seconds_max: int) -> Iterator[Any]:
        """What a watch sends, until the server ends it after so long."""
        asked = urllib.request.Request(
            f"{self.url}{path}&timeoutSeconds={seconds_max}",
            headers={"Authorization": f"Bearer {self.token}"},
        )
        # It may be silent all the time.
        timeout_seconds = seconds_max + REQUEST_SECONDS_MAX
        with urllib.request.urlopen(asked, timeout=timeout_seconds, context=self._trust) as answer:
            yield from map(json.loads, answer)

    def request(
        self, method: str, path: str, body: object = None, *, accept: str = "application/json"
    ) -> tuple[int, Any]:
        """One request as any client may send it. Returns status and document."""
        asked = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {self.token}",
                "Accept": accept,
                "Content-Type": "application/merge-patch+json"
                if method == "PATCH"
                else "application/json",
            },
        )
        try:
            with urllib.request.urlopen(
                asked, timeout=REQUEST_SECONDS_MAX, context=self._trust
            ) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, _document(refused)

    def apply(self, document: Mapping[str, Any], *, dry_run: bool = False) -> Applied:
        """Server-side apply, as ``kubectl apply --server-side``; what it does not know it refuses.

        Args:
            dry_run: Whether the server does everything but keep it.
        """
        query = "fieldManager=tests&fieldValidation=Strict" + "&dryRun=All" * dry_run
        asked = urllib.request.Request(
            f"{self.url}{self.path_of(document)}?{query}",
            method="PATCH",
            data=json.dumps(document).encode(),
            headers={
                "Authorization": f"Bearer {self.token}",
                # JSON is YAML.
                "Content-Type": "application/apply-patch+yaml",
            },
        )
        try:
            with urllib.request.urlopen(
                asked, timeout=REQUEST_SECONDS_MAX, context=self._trust
            ) as answer:
                warnings = answer.headers.get_all("Warning") or []
                return Applied(answer.status, json.load(answer), warnings)
        except urllib.error.HTTPError as refused:
            with refused:
                return Applied(refused.code, _document(refused), [])

    def applied(self, document: Mapping[str, Any]) -> Any:
        """As ``apply``, which must not be refused; and the document as it is kept."""
        status, answer, _ = self.apply(document)
        assert status in (200, 201), answer
        return answer

    def path_of(self, document: Mapping[str, Any]) -> str:
        """Where a document belongs, or would."""
        version, kind = document["apiVersion"], document["kind"]
        place = f"/{'apis' if '/' in version else 'api'}/{version}"
        plural, is_namespaced = self._kinds(place)[kind]
        metadata = document["metadata"]
        if is_namespaced:
            place += f"/namespaces/{metadata['namespace']}"
        return f"{place}/{plural}/{metadata['name']}"

    def as_bearer(self, token: str) -> ControlPlane:
        """The same, asked by somebody else."""
        return dataclasses.replace(self, token=token)

    def audited(self) -> list[dict[str, Any]]:
        """What service accounts have asked for, as the server's audit log tells."""
        return [json.loads(line) for line in self.audit_log.read_text().splitlines()]

    def _kinds(self, place: str) -> dict[str, tuple[str, bool]]:
        """Plural and whether it has a namespace, by kind."""
        if place not in self._known_kinds:
            status, found = self.request("GET", place)
            assert status == 200, found
            self._known_kinds[place] = {
                one["kind"]: (one["name"], one["namespaced"])
                for one in found["resources"]
                if "/" not in one["name"]
            }
        return self._known_kinds[place]

    @functools.cached_property
    def _known_kinds(self) -> dict[str, dict[str, tuple[str, bool]]]:
        return {}

    @functools.cached_property
    def _trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca_file))

    def wait_until_ready(self) -> None:
        """Until the API server says that it is.

        Raises:
            NotStartedError: it does not within ``START_SECONDS_MAX``.
        """
        deadline_seconds = time.monotonic() + START_SECONDS_MAX
        while True:
            self.etcd.check()
            self.api_server.check()
            with contextlib.suppress(OSError):
                asked = urllib.request.Request(
                    f"{self.url}/readyz", headers={"Authorization": f"Bearer {self.token}"}
                )
                with urllib.request.urlopen(asked, timeout=5, context=self._trust) as answer:
                    if answer.status == 200:
                        return
            if time.monotonic() > deadline_seconds:
                raise NotStartedError(
                    f"kube-apiserver is not ready after {START_SECONDS_MAX:g} s:\n"
                    f"{self.api_server.log_tail()}"
                )
            time.sleep(_POLL_SECONDS)


def _document(refused: urllib.error.HTTPError) -> Any:
    """Of an unknown group the server tells in plain text."""
    if refused.headers.get_content_type() == "application/json":
        return json.load(refused)
    return {"message": refused.read().decode()}


@contextlib.contextmanager
def running(binaries: pathlib.Path, folder: pathlib.Path) -> Iterator[ControlPlane]:
    """A control plane with nothing in it, until the end of the block.

    Args:
        binaries: Where ``build_servers.sh`` put kube-apiserver and etcd.
        folder: Empty; for data, keys and logs.
    """
    etcd_port, peer_port, port = free_ports(3)
    certificate, key = _certificate(folder)
    token = secrets.token_hex(16)
    tokens = folder / "tokens.csv"
    tokens.touch(0o600)
    tokens.write_text(f'{token},tests,tests,"system:masters"\n')
    audit_policy = folder / "audit-policy.json"
    audit_policy.write_text(json.dumps(_AUDIT_POLICY))
    audit_log = folder / "audit.jsonl"
    audit_log.touch()
    etcd_url, peer_url = (f"http://127.0.0.1:{number}" for number in (etcd_port, peer_port))
    etcd = Server(
        name="etcd",
        log=folder / "etcd.txt",
        command=[
            str(binaries / "etcd"),
            f"--data-dir={folder / 'etcd'}",
            f"--listen-client-urls={etcd_url}",
            f"--advertise-client-urls={etcd_url}",
            f"--listen-peer-urls={peer_url}",
            f"--initial-advertise-peer-urls={peer_url}",
            f"--initial-cluster=default={peer_url}",
            # Nothing here is to survive a loss of power.
            "--unsafe-no-fsync",
            "--log-level=warn",
        ],
    )
    api_server = Server(
        name="kube-apiserver",
        log=folder / "kube-apiserver.txt",
        command=[
            str(binaries / "kube-apiserver"),
            f"--etcd-servers={etcd_url}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={port}",
            # No address of loopback may be an endpoint of the service "kubernetes".
            "--endpoint-reconciler-type=none",
            f"--cert-dir={folder}",
            f"--tls-cert-file={certificate}",
            f"--tls-private-key-file={key}",
            f"--token-auth-file={tokens}",
            "--authorization-mode=RBAC",
            f"--audit-policy-file={audit_policy}",
            f"--audit-log-path={audit_log}",
            "--service-cluster-ip-range=10.0.0.0/24",
            f"--service-account-issuer=https://127.0.0.1:{port}",
            f"--service-account-key-file={certificate}",
            f"--service-account-signing-key-file={key}",
            # There is no controller that would make the accounts.
            "--disable-admission-plugins=ServiceAccount",
        ],
    )
    plane = ControlPlane(
        url=f"https://127.0.0.1:{port}",
        token=token,
        ca_file=certificate,
        etcd=etcd,
        api_server=api_server,
        audit_log=audit_log,
    )
    try:
        etcd.start()
        api_server.start()
        plane.wait_until_ready()
        yield plane
    finally:
        api_server.stop()
        etcd.stop()


def free_ports(count: int) -> list[int]:
    """Distinct loopback ports that were free a moment ago."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def _certificate(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """A certificate for loopback, which is its own authority, and its key.

    Of an elliptic curve: tests open many connections, and RSA takes the server most of each.
    """
    certificate, key = folder / "server.crt", folder / "server.key"
    words = ["openssl", "req", "-x509", "-nodes", "-days", "2"]
    words += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    words += ["-subj", "/CN=kube-apiserver", "-addext", "subjectAltName=IP:127.0.0.1"]
    words += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(words, check=True, capture_output=True)
    return certificate, key
