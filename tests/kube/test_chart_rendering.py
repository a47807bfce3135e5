"""The chart without a cluster: what helm makes of values, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from typing import Any, Final

import msgspec
import pytest
from tests.kube import helm_runs

from couchestor_operator.app import pages, settings
from couchestor_operator.control import selector

_DOCUMENTS: Final = {
    "bare": {
        *("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"),
        *("Deployment", "Service"),
    },
    "defaults": {
        *("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"),
        *("Deployment", "DaemonSet", "ConfigMap", "Service"),
        *("PodDisruptionBudget", "NetworkPolicy"),
    },
    "everything": {
        *("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"),
        *("Deployment", "DaemonSet", "ConfigMap", "Secret", "Service"),
        *("PodDisruptionBudget", "NetworkPolicy", "ServiceMonitor"),
    },
}


@pytest.mark.parametrize("name", helm_runs.EVERY_VALUES)
def test_helm_finds_nothing_to_say_against_it(helm: helm_runs.Helm, name: str) -> None:
    values = helm_runs.EVERY_VALUES[name]
    said = helm.done("lint", "--strict", str(helm_runs.CHART), values=values)
    assert "1 chart(s) linted, 0 chart(s) failed" in said
    assert re.findall(r"^\[(?:WARNING|ERROR)\].*", said, re.MULTILINE) == []


@pytest.mark.parametrize("name", helm_runs.EVERY_VALUES)
def test_values_choose_what_there_is(helm: helm_runs.Helm, name: str) -> None:
    documents = helm.rendered(helm_runs.EVERY_VALUES[name])
    assert {each["kind"] for each in documents} == _DOCUMENTS[name]
    names = [
        (each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"])
        for each in documents
    ]
    assert len(names) == len(set(names))
    for each in documents:
        labels = each["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == helm_runs.RELEASE, each
        assert labels["app.kubernetes.io/component"] in ("operator", "node"), each


def test_two_releases_of_one_name_in_two_namespaces_share_nothing(helm: helm_runs.Helm) -> None:
    one, other = (
        {
            (each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"])
            for each in helm.rendered({}, namespace=namespace)
        }
        for namespace in ("one", "other")
    )
    assert one & other == set()


def test_the_operator_is_confined(helm: helm_runs.Helm) -> None:
    pod = helm_runs.of_kind(helm.rendered({}), "Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65534,
        "runAsGroup": 65534,
        "fsGroup": 65534,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"] == {"cpu": "500m", "memory": "512Mi"}
    assert pod["enableServiceLinks"] is False
    assert all("hostPath" not in volume for volume in pod["volumes"])


def test_the_daemon_is_confined_but_for_its_folders(helm: helm_runs.Helm) -> None:
    daemon_set = helm_runs.of_kind(helm.rendered({}), "DaemonSet")["spec"]
    pod = daemon_set["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    (container,) = pod["containers"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    (preparing,) = pod["initContainers"]
    assert preparing["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": False,
        "runAsUser": 0,
        "runAsGroup": 0,
        "capabilities": {"drop": ["ALL"], "add": ["CHOWN"]},
    }
    of_the_machine = {
        volume["hostPath"]["path"]: volume["hostPath"]["type"]
        for volume in pod["volumes"]
        if "hostPath" in volume
    }
    assert of_the_machine == {
        "/var/lib/couchestor": "DirectoryOrCreate",
        "/mnt/couchestor": "Directory",
    }
    # Without a label that somebody gave, no machine is touched.
    assert pod["nodeSelector"] == {"storage.billyronks.io/couchestor": "true"}
    without = helm.rendered({"node": {"prepareFolders": False}})
    pod = helm_runs.of_kind(without, "DaemonSet")["spec"]["template"]["spec"]
    assert "initContainers" not in pod


def test_probes_ports_and_the_time_to_stop(helm: helm_runs.Helm) -> None:
    documents = helm.rendered({"node": {"drainSeconds": 120, "count": 5}})
    for kind, live in (("Deployment", "/healthz"), ("DaemonSet", "/livez")):
        pod = helm_runs.of_kind(documents, kind)["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert (ports["metrics"], ports["health"]) == (8080, 8081)
        assert container["livenessProbe"]["httpGet"] == {"path": live, "port": "health"}
        assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "health"}
    # The daemon's own time to end in order comes on top, as in the unit for systemd.
    assert pod["terminationGracePeriodSeconds"] == 180
    assert _daemon_settings(documents)["drain_seconds"] == 120
    budget = helm_runs.of_kind(documents, "PodDisruptionBudget", "-node")["spec"]
    assert budget["minAvailable"] == 4
    services = [each for each in documents if each["kind"] == "Service"]
    for service in services:
        (port,) = service["spec"]["ports"]
        kind = "Deployment" if "-operator-" in service["metadata"]["name"] else "DaemonSet"
        template = helm_runs.of_kind(documents, kind)["spec"]["template"]
        (container,) = template["spec"]["containers"]
        assert port["targetPort"] in {each["name"] for each in container["ports"]}
        assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    assert {each["metadata"]["name"] for each in services} == {
        *("couchestor-operator-metrics", "couchestor-operator-health"),
        *("couchestor-node-metrics", "couchestor-node-health", "couchestor-node-s3"),
    }


def test_the_operator_understands_what_the_chart_tells_it(helm: helm_runs.Helm) -> None:
    pod = helm_runs.of_kind(helm.rendered(helm_runs.EVERYTHING), "Deployment")["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    # What Kubernetes makes of an argument.
    words = [each.replace("$$(", "$(") for each in container["args"]]
    told = settings.from_words(words, {})
    given: Any = helm_runs.EVERYTHING["operator"]
    assert told.metrics_query == given["settings"]["metricsQuery"]
    assert told.volume_manager == "rest"
    assert told.mayastor_url == given["settings"]["mayastorUrl"]
    assert (told.pass_interval_seconds, told.migration_timeout_minutes) == (0.5, 525600)
    assert (told.metrics_addr, told.health_addr) == (
        pages.Address("", 8080),
        pages.Address("", 8081),
    )
    assert str(told.prometheus_token_file) == "/etc/couchestor/prometheus/token"
    assert str(told.prometheus_ca_file) == "/etc/couchestor/prometheus/ca.crt"
    assert told.mayastor_ca_file is None
    assert str(told.node_token_file) == "/etc/couchestor/node/token"
    assert str(told.node_ca_file) == "/etc/couchestor/node/ca.crt"
    labels = {"storage.billyronks.io/couchestor": "true", "tier": "a"}
    assert told.node_selector == selector.Selector(match_labels=labels)
    places = {each["mountPath"] for each in container["volumeMounts"]}
    assert {f"/etc/couchestor/{whose}" for whose in ("prometheus", "mayastor", "node")} <= places


def test_only_who_assigns_stripe_groups_may_see_and_reach_nodes(helm: helm_runs.Helm) -> None:
    for values, ports in ((helm_runs.EVERYTHING, [9445]), ({}, [])):
        documents = helm.rendered(values)
        role = helm_runs.of_kind(documents, "ClusterRole")
        seen = {name for rule in role["rules"] for name in rule["resources"]}
        assert {"nodes", "ecstripes"} <= seen if ports else {"nodes", "ecstripes"}.isdisjoint(seen)
        ways_out = helm_runs.of_kind(documents, "NetworkPolicy", "-operator")["spec"]["egress"]
        reached = {port["port"] for way in ways_out for port in way["ports"]}
        assert reached & {9444, 9445} == set(ports)


def test_every_setting_of_the_operator_can_be_given(helm: helm_runs.Helm) -> None:
    texts: dict[str, Any] = {
        **{"prometheusUrl": "https://p:1/x", "prometheusPreset": "mayastor", "dryRun": True},
        **{"metricsQuery": "x[$window]", "metricsVolumeLabel": "pv", "volumeManager": "rest"},
        **{"mayastorNamespace": "m", "diskPoolVersion": "v1beta2", "mayastorUrl": "http://m"},
        **{"maxConcurrentMigrations": 7, "migrationTimeoutMinutes": 90, "logJson": False},
        **{"syncPollIntervalSeconds": 0.5, "passIntervalSeconds": 60, "logLevel": "debug"},
        **{"passTimeoutSeconds": 120.5, "preservationMode": True, "leaseName": "l"},
        **{"nodeSelector": "a=b", "stripePolicy": "p", "stripeStock": 3, "nodePort": 1234},
        **{"stripeIntervalSeconds": 1.5, "nodeGraceSeconds": 45, "nodeTls": False},
    }
    documents = helm.rendered({"operator": {"settings": texts}})
    pod = helm_runs.of_kind(documents, "Deployment")["spec"]["template"]["spec"]
    told = settings.from_words(pod["containers"][0]["args"], {})
    found = {each.name: getattr(told, each.name) for each in dataclasses.fields(told)}
    assert found["node_selector"] == selector.Selector(match_labels={"a": "b"})
    found["node_selector"] = texts["nodeSelector"]
    for name, value in texts.items():
        assert found[re.sub(r"[A-Z]", lambda m: f"_{m[0].lower()}", name)] == value, name
    assert set(texts) == set(_schema("operator")["settings"]["properties"])


def test_every_setting_of_the_daemon_is_written_as_its_file_has_it(helm: helm_runs.Helm) -> None:
    values: dict[str, Any] = {}
    for name, kind in _schema("node")["settings"]["properties"].items():
        match kind:
            case {"enum": [*_, last]}:
                values[name] = last
            case {"type": "boolean"}:
                values[name] = True
            case {"type": ["string", "integer"]}:
                values[name] = 1 << 40
            case {"type": "string"}:
                values[name] = 'a "word"\\'
            case {"type": "integer"}:
                values[name] = kind["maximum"]
            case _:
                values[name] = 0.5
    written = _daemon_settings(helm.rendered({"node": {"settings": values}}))
    for name, value in values.items():
        key = re.sub(r"[A-Z]", lambda m: f"_{m[0].lower()}", name)
        assert (written[key], type(written[key])) == (value, type(value)), name
    assert written["devices"] == [f"/mnt/couchestor/disk{number}/couchestor" for number in range(6)]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"opperator": {}}, "opperator"),
        ({"operator": {"settings": {"dryrun": True}}}, "dryrun"),
        ({"operator": {"settings": {"logLevel": "loud"}}}, "/operator/settings/logLevel"),
        ({"operator": {"settings": {"prometheusUrl": "prometheus"}}}, "prometheusUrl"),
        ({"operator": {"settings": {"prometheusUrl": "http://me:secret@p"}}}, "prometheusUrl"),
        ({"operator": {"settings": {"volumeManager": "rest"}}}, "mayastorUrl"),
        ({"operator": {"settings": {"nodeSelector": "a=b"}}}, "stripePolicy"),
        ({"operator": {"replicas": 0}}, "/operator/replicas"),
        ({"operator": {"image": {"repository": "a:b"}}}, "/operator/image/repository"),
        ({"operator": {"prometheusSecret": {"keys": ["tokn"]}}}, "prometheusSecret/keys"),
        (
            {"operator": {"prometheusSecret": {"keys": ["token"]}}},
            "operator.prometheusSecret.keys is set, and name is not",
        ),
        ({"node": {"devices": ["disk0", "disk0"]}}, "/node/devices"),
        ({"node": {"devices": ["../../etc"]}}, "/node/devices/0"),
        ({"node": {"mediaPath": "mnt"}}, "/node/mediaPath"),
        ({"node": {"runAsUser": 0}}, "/node/runAsUser"),
        ({"node": {"settings": {"host": "0.0.0.0"}}}, "host"),
        ({"node": {"settings": {"zoneBytes": "many"}}}, "/node/settings/zoneBytes"),
        # Without one the daemon would run on every machine.
        ({"node": {"nodeSelector": None}}, "missing property nodeSelector"),
        (
            {"node": {"nodeSelector": {"storage.billyronks.io/couchestor": None}}},
            "/node/nodeSelector",
        ),
        ({"node": {"updateStrategy": "Recreate"}}, "/node/updateStrategy"),
        ({"node": {"rootCredentials": {"accessKey": "A B"}}}, "/node/rootCredentials/accessKey"),
        (
            {"node": {"rootCredentials": {"accessKey": "ROOT"}}},
            "takes secretName, or accessKey together with secretKey",
        ),
        ({"serviceMonitor": {"interval": "often"}}, "/serviceMonitor/interval"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_values_that_cannot_be_are_refused_by_their_place(
    helm: helm_runs.Helm, values: dict[str, Any], said: str
) -> None:
    words = ("template", "couchestor", str(helm_runs.CHART))
    refused = helm.ran(*words, values=values)
    assert refused.returncode != 0
    assert said in refused.stderr.replace("'", ""), refused.stderr


def test_the_notes_say_what_to_do_next(helm: helm_runs.Helm) -> None:
    words = ("install", helm_runs.RELEASE, str(helm_runs.CHART), "--dry-run=client")
    told = helm.done(*words, "--namespace", helm_runs.NAMESPACE, values={}).partition("NOTES:")[2]
    for part in (
        "kubectl -n couchestor-system rollout status deployment/couchestor-operator",
        "kubectl label node MACHINE storage.billyronks.io/couchestor=true",
        "mount a disk on each of /mnt/couchestor/{disk0,disk1,disk2,disk3,disk4,disk5}",
        "http://prometheus-operated.monitoring:9090",
        "/var/lib/couchestor/credentials.json",
        "delete one pod",
    ):
        assert part in told, part
    told = helm.done(*words, values=helm_runs.EVERYTHING).partition("NOTES:")[2]
    assert "The root key is in Secret couchestor-node-root" in told
    assert "s'cret" not in told


def _daemon_settings(documents: list[dict[str, Any]]) -> dict[str, Any]:
    text = helm_runs.of_kind(documents, "ConfigMap", "-node")["data"]["couchestor.toml"]
    return tomllib.loads(text)


def _schema(part: str) -> Any:
    document = json.loads((helm_runs.CHART / "values.schema.json").read_text())
    return msgspec.convert(document, dict[str, Any])["properties"][part]["properties"]
