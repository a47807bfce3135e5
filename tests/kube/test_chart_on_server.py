"""The chart on a real API server of its own: applied, installed, upgraded, taken away."""

from __future__ import annotations

import copy
import pathlib
import time
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import pytest
from tests.kube import chart_accounts, control_plane, helm_runs

from couchestor_operator.adapters import kube_access
from couchestor_operator.resources import definition, field_types

EXAMPLES: Final = helm_runs.CHART / "examples"
RESTRICTED: Final = "pod-security.kubernetes.io"
SERVED_SECONDS_MAX: Final = 30.0
_MONITORS: Final = "monitoring.coreos.com"


@pytest.fixture(scope="module")
def server(
    binaries: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[control_plane.ControlPlane]:
    """With nothing of ours: helm is to bring the definitions."""
    with control_plane.running(binaries, tmp_path_factory.mktemp("server")) as started:
        yield started


@pytest.fixture(scope="module")
def installer(
    server: control_plane.ControlPlane,
    binaries: pathlib.Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> helm_runs.Helm:
    """helm as somebody who may do everything."""
    folder = tmp_path_factory.mktemp("installer")
    token_file = folder / "token"
    token_file.touch(0o600)
    token_file.write_text(server.token)
    access = kube_access.Access(url=server.url, ca_file=server.ca_file, token_file=token_file)
    kubeconfig = chart_accounts.kubeconfig(access, folder / "kubeconfig")
    return helm_runs.Helm(binaries / "helm", folder, kubeconfig)


@pytest.fixture(scope="module")
def prepared(server: control_plane.ControlPlane) -> control_plane.ControlPlane:
    """The namespaces, and what others install: Mayastor's, and definitions of ServiceMonitors."""
    for name in (helm_runs.NAMESPACE, "mayastor"):
        _have_namespace(server, name)
    server.applied(_service_monitors())
    _until_served(server, f"/apis/{_MONITORS}/v1/servicemonitors")
    return server


@pytest.fixture(scope="module")
def installed(
    prepared: control_plane.ControlPlane, installer: helm_runs.Helm
) -> control_plane.ControlPlane:
    """The chart as ``helm install`` leaves it."""
    words = ("install", helm_runs.RELEASE, str(helm_runs.CHART), "-n", helm_runs.NAMESPACE)
    told = installer.done(*words, values={})
    assert "STATUS: deployed" in told
    return prepared


@pytest.mark.parametrize("name", helm_runs.EVERY_VALUES)
def test_the_server_takes_every_document_and_warns_of_none(
    prepared: control_plane.ControlPlane, helm: helm_runs.Helm, name: str
) -> None:
    for document in helm.rendered(helm_runs.EVERY_VALUES[name], release="dry"):
        applied = prepared.apply(document, dry_run=True)
        assert applied.status in (200, 201), applied.answer
        assert applied.warnings == [], document["metadata"]["name"]
        # Whatever the server left out it has not understood.
        assert _lost(document, applied.answer) == [], document["metadata"]["name"]


def test_a_field_that_kubernetes_does_not_know_would_be_seen(
    prepared: control_plane.ControlPlane, helm: helm_runs.Helm
) -> None:
    deployment = helm_runs.of_kind(helm.rendered({}), "Deployment")
    deployment["spec"]["template"]["spec"]["hostnetwork"] = True
    applied = prepared.apply(deployment, dry_run=True)
    assert applied.status != 200
    assert "hostnetwork" in applied.answer["message"]


def test_the_operator_is_fit_for_a_restricted_namespace(
    prepared: control_plane.ControlPlane, helm: helm_runs.Helm
) -> None:
    _have_namespace(prepared, "restricted", level="restricted")
    for values in (helm_runs.BARE, {**helm_runs.EVERYTHING, "node": {"enabled": False}}):
        documents = helm.rendered(values, namespace="restricted")
        for document in documents:
            applied = prepared.apply(document, dry_run=True)
            assert (applied.status, applied.warnings) == (201, []), applied
        deployment = helm_runs.of_kind(documents, "Deployment")
        # Of a Deployment it only warns; the pod itself it would refuse.
        assert prepared.apply(_pod_of(deployment), dry_run=True).status == 201
    del deployment["spec"]["template"]["spec"]["securityContext"]["seccompProfile"]
    assert "seccompProfile" in "".join(prepared.apply(deployment, dry_run=True).warnings)
    assert prepared.apply(_pod_of(deployment), dry_run=True).status == 403


def test_the_daemon_breaks_no_other_rule_than_that_on_folders_of_the_machine(
    prepared: control_plane.ControlPlane, helm: helm_runs.Helm
) -> None:
    _have_namespace(prepared, "restricted", level="restricted")
    documents = helm.rendered({"node": {"prepareFolders": False}}, namespace="restricted")
    daemon_set = helm_runs.of_kind(documents, "DaemonSet")
    (warning,) = prepared.apply(daemon_set, dry_run=True).warnings
    assert warning.count("restricted volume types") == 1
    refused = prepared.apply(_pod_of(daemon_set), dry_run=True)
    assert refused.status == 403
    reasons = refused.answer["message"].partition('PodSecurity "restricted:latest": ')[2]
    assert reasons.startswith("restricted volume types (volumes "), reasons
    assert "hostPath" in reasons
    # No second reason.
    assert "), " not in reasons, reasons


def test_installing_brings_definitions_and_all_that_is_rendered(
    installed: control_plane.ControlPlane, helm: helm_runs.Helm
) -> None:
    for kind in definition.KINDS:
        _until_served(installed, f"/apis/{field_types.API_VERSION}/{kind.plural}")
    for document in helm.rendered({}):
        status, kept = installed.request("GET", installed.path_of(document))
        assert status == 200, document["metadata"]["name"]
        assert _lost(document, kept) == []


@pytest.mark.parametrize("path", sorted(EXAMPLES.iterdir()), ids=lambda path: path.stem)
def test_the_server_takes_every_example(
    installed: control_plane.ControlPlane, path: pathlib.Path
) -> None:
    document = msgspec.yaml.decode(path.read_bytes())
    applied = installed.apply(document, dry_run=True)
    assert (applied.status, applied.warnings) == (201, []), applied


def test_there_is_an_example_of_every_kind() -> None:
    kinds = {msgspec.yaml.decode(path.read_bytes())["kind"] for path in EXAMPLES.iterdir()}
    assert kinds == {kind.kind for kind in definition.KINDS}


def test_an_upgrade_changes_what_values_say_and_uninstalling_leaves_policies(
    installed: control_plane.ControlPlane, installer: helm_runs.Helm, helm: helm_runs.Helm
) -> None:
    example = msgspec.yaml.decode((EXAMPLES / "storagepolicy.yaml").read_bytes())
    installed.applied(example)
    where = ("-n", helm_runs.NAMESPACE)
    values = {"operator": {"replicas": 3}, "node": {"settings": {"logLevel": "debug"}}}
    before, after = (helm_runs.of_kind(helm.rendered(each), "DaemonSet") for each in ({}, values))
    words = ("upgrade", helm_runs.RELEASE, str(helm_runs.CHART))
    installer.done(*words, *where, values=values)
    deployment = helm_runs.of_kind(helm.rendered(values), "Deployment")
    _, kept = installed.request("GET", installed.path_of(deployment))
    assert kept["spec"]["replicas"] == 3
    # A pod is made anew for other settings.
    assert before["spec"]["template"] != after["spec"]["template"]
    _, kept = installed.request("GET", installed.path_of(after))
    assert _lost(after, kept) == []
    # What is not wanted any more goes.
    installer.done(*words, *where, values={**values, "node": {"enabled": False}})
    assert installed.request("GET", installed.path_of(after))[0] == 404
    installer.done("rollback", helm_runs.RELEASE, "2", *where)
    assert installed.request("GET", installed.path_of(after))[0] == 200
    installer.done("uninstall", helm_runs.RELEASE, *where)
    for document in helm.rendered(values):
        # Of a namespace, not of helm.
        assert installed.request("GET", installed.path_of(document))[0] == 404, document
    assert installed.request("GET", installed.path_of(example))[0] == 200


def _until_served(server: control_plane.ControlPlane, path: str) -> None:
    """A definition is established a little before its documents can be asked for."""
    deadline_seconds = time.monotonic() + SERVED_SECONDS_MAX
    while (answer := server.request("GET", path))[0] != 200:
        assert time.monotonic() < deadline_seconds, answer
        time.sleep(0.1)


def _have_namespace(server: control_plane.ControlPlane, name: str, *, level: str = "") -> None:
    labels = {f"{RESTRICTED}/{mode}": level for mode in ("enforce", "warn") if level}
    server.applied(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    )


def _pod_of(workload: dict[str, Any]) -> dict[str, Any]:
    template = copy.deepcopy(workload["spec"]["template"])
    metadata = {
        **template["metadata"],
        **{k: workload["metadata"][k] for k in ("name", "namespace")},
    }
    # Made by a scheduler's controller, which is not here.
    template["spec"].pop("priorityClassName", None)
    return {"apiVersion": "v1", "kind": "Pod", **template, "metadata": metadata}


def _lost(wanted: Any, found: Any, where: str = "") -> list[str]:
    """Where something that was wanted is not among what was found."""
    if isinstance(wanted, dict):
        if not isinstance(found, dict):
            return [where] if wanted else []
        return [
            lost
            for key, value in wanted.items()
            for lost in _lost(value, found.get(key), f"{where}.{key}")
        ]
    if isinstance(wanted, list):
        if len(wanted) != len(found or ()):
            return [where]
        return [
            lost
            for index, value in enumerate(wanted)
            for lost in _lost(value, found[index], f"{where}[{index}]")
        ]
    return [] if wanted == found or not wanted else [f"{where}: {wanted!r} became {found!r}"]


def _service_monitors() -> dict[str, Any]:
    """A stand-in for the Prometheus Operator's definition, of the fields that the chart sets."""
    text = {"type": "string"}
    relabeling = {
        "type": "object",
        "properties": {
            "sourceLabels": {"type": "array", "items": text},
            "targetLabel": text,
        },
    }
    endpoint = {
        "type": "object",
        "properties": {
            **{"port": text, "path": text, "interval": text},
            "relabelings": {"type": "array", "items": relabeling},
        },
    }
    labels = {"type": "object", "additionalProperties": text}
    spec = {
        "type": "object",
        "required": ["endpoints", "selector"],
        "properties": {
            "endpoints": {"type": "array", "items": endpoint},
            "selector": {"type": "object", "properties": {"matchLabels": labels}},
        },
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"servicemonitors.{_MONITORS}"},
        "spec": {
            "group": _MONITORS,
            "scope": "Namespaced",
            "names": {
                "kind": "ServiceMonitor",
                "plural": "servicemonitors",
                "singular": "servicemonitor",
            },
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}},
                }
            ],
        },
    }
