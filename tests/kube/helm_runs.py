"""The real helm over the chart: rendering needs no cluster, the rest one API server."""

from __future__ import annotations

import os
import pathlib
import subprocess
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import yaml

CHART: Final = pathlib.Path(__file__).resolve().parents[2] / "helm" / "couchestor"
RELEASE: Final = "couchestor"
NAMESPACE: Final = "couchestor-system"
RUN_SECONDS_MAX: Final = 90.0

Values = Mapping[str, Any]

BARE: Final[Values] = {
    "operator": {"replicas": 1, "podDisruptionBudget": {"enabled": False}},
    "node": {"enabled": False},
    "networkPolicy": {"enabled": False},
}
"""An operator and what it may do."""

EVERYTHING: Final[Values] = {
    "imagePullSecrets": [{"name": "registry"}],
    "operator": {
        "settings": {
            "volumeManager": "rest",
            "mayastorUrl": "https://mayastor-api:8443",
            # What a template engine, a shell or Kubernetes might take for its own.
            "metricsQuery": 'sum(rate(x{a="b $(HOME)"}[$window])) by (volume)',
            "passIntervalSeconds": 0.5,
            # As a float it would be written 5.256e+05.
            "migrationTimeoutMinutes": 525600,
            "nodeSelector": "storage.billyronks.io/couchestor=true,tier=a",
            "stripePolicy": "wide",
            "nodePort": 9445,
        },
        "prometheusSecret": {"name": "prometheus", "keys": ["token", "ca.crt"]},
        "mayastorSecret": {"name": "mayastor", "keys": ["token"]},
        "nodeSecret": {"name": "nodes", "keys": ["token", "ca.crt"]},
        "priorityClassName": "system-cluster-critical",
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"operator": "Exists"}],
    },
    "node": {
        "rootCredentials": {"accessKey": "ROOT", "secretKey": "a \"s'cret".replace(" ", "-")},
        "tls": {"secretName": "tls"},
        "service": {"type": "LoadBalancer", "annotations": {"a": "b"}},
        "hostPort": 9000,
        "updateStrategy": "RollingUpdate",
        "drainSeconds": 120,
        "settings": {
            "dataShards": 3,
            "zoneBytes": "128MiB",
            "scrubPeriodSeconds": 1209600,
            "suspectLatencyFloorSeconds": 0.02,
            "destageOnStop": True,
        },
        "priorityClassName": "system-node-critical",
        "tolerations": [{"operator": "Exists"}],
    },
    "networkPolicy": {
        "s3From": [{"namespaceSelector": {}}],
        "metricsFrom": [{"podSelector": {"matchLabels": {"app": "prometheus"}}}],
    },
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "dashboards": {"enabled": True},
}

EVERY_VALUES: Final[dict[str, Values]] = {"defaults": {}, "bare": BARE, "everything": EVERYTHING}


class Helm:
    """Runs helm with state of its own.

    Args:
        kubeconfig: Where its cluster is; None: it has none.
    """

    def __init__(
        self, program: pathlib.Path, folder: pathlib.Path, kubeconfig: pathlib.Path | None = None
    ) -> None:
        self._program = program
        self._folder = folder
        self._environment = {
            "HOME": str(folder),
            "PATH": os.environ["PATH"],
            "KUBECONFIG": str(kubeconfig or folder / "nowhere"),
        }

    def ran(self, *words: str, values: Values | None = None) -> subprocess.CompletedProcess[str]:
        """Run it to the end, whatever that is."""
        command = [str(self._program), *words]
        if values is not None:
            file = self._folder / "values.json"
            file.write_bytes(msgspec.json.encode(values))
            command += ["--values", str(file)]
        return subprocess.run(
            command,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS_MAX,
        )

    def done(self, *words: str, values: Values | None = None) -> str:
        """What it prints. Fails the test that it fails in."""
        ended = self.ran(*words, values=values)
        assert ended.returncode == 0, ended.stderr + ended.stdout
        return ended.stdout

    def rendered(
        self, values: Values, *, release: str = RELEASE, namespace: str = NAMESPACE
    ) -> list[dict[str, Any]]:
        """The documents of the chart, without its definitions."""
        text = self.done(
            "template", release, str(CHART), "--namespace", namespace, values=dict(values)
        )
        # The slow loader in Python: it alone is always there.
        return [document for document in yaml.safe_load_all(text) if document is not None]


def of_kind(documents: list[dict[str, Any]], kind: str, end: str = "") -> dict[str, Any]:
    """The one of a kind whose name ends so."""
    (found,) = [
        each
        for each in documents
        if each["kind"] == kind and each["metadata"]["name"].endswith(end)
    ]
    return found
