"""The chart's files beside the code: settings, documented values, dashboards."""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import prometheus_client
import pytest
from prometheus_client import registry

from couchestor_daemon.app import child_status, metrics, option_table, supervisor
from couchestor_operator.app import figures, settings

_ROOT: Final = pathlib.Path(__file__).resolve().parents[3]
_CHART: Final = _ROOT / "helm" / "couchestor"
_SCHEMA: Final[dict[str, Any]] = json.loads((_CHART / "values.schema.json").read_text())
_VALUES: Final[dict[str, Any]] = msgspec.yaml.decode((_CHART / "values.yaml").read_bytes())

# What the chart decides itself; files of credentials come from Secrets.
_OPERATOR_OWN: Final = {
    *("kubeconfig", "kube_context", "lease_namespace", "metrics_addr", "health_addr"),
    *("prometheus_token_file", "prometheus_ca_file", "mayastor_token_file", "mayastor_ca_file"),
    *("node_token_file", "node_ca_file"),
}
_DAEMON_OWN: Final = {
    *("data_dir", "devices", "host", "port", "metrics_host", "metrics_port"),
    *("health_host", "health_port", "drain_seconds", "tls_cert", "tls_key"),
}
_METRIC: Final = re.compile(r"\bcouchestor_\w+")


def _camel(name: str) -> str:
    return re.sub(r"_(\w)", lambda found: found[1].upper(), name)


def test_the_schema_knows_every_setting_that_the_chart_does_not_give_itself() -> None:
    for part, names in (
        ("operator", {option.name for option in settings.OPTIONS} - _OPERATOR_OWN),
        ("node", {option.name for option in option_table.OPTIONS} - _DAEMON_OWN),
    ):
        known = _SCHEMA["properties"][part]["properties"]["settings"]["properties"]
        assert set(known) == {_camel(name) for name in names}


def test_the_schema_refuses_whatever_it_does_not_know() -> None:
    open_ones = [
        where
        for where, kind in _kinds("", _SCHEMA)
        if kind.get("type") == "object" and "properties" in kind
        if kind.get("additionalProperties") is not False
    ]
    assert open_ones == []


def test_every_value_has_a_default_and_every_default_a_meaning() -> None:
    leaves = dict(_leaves("", _SCHEMA))
    defaults = dict(_defaults("", _VALUES, leaves))
    assert set(defaults) == set(leaves)
    assert [where for where, kind in leaves.items() if not kind.get("description")] == []


def test_the_documented_values_are_those_of_the_chart() -> None:
    leaves = dict(_leaves("", _SCHEMA))
    defaults = dict(_defaults("", _VALUES, leaves))
    rows = [
        f"| `{where}` | {kind['description']} | {_shown(defaults[where])} |"
        for where, kind in leaves.items()
    ]
    text = (_ROOT / "docs" / "OPERATOR.md").read_text()
    table = text.partition("| value | meaning | default |\n|---|---|---|\n")[2].partition("\n\n")[0]
    assert table == "\n".join(rows), "copy what the chart has into docs/OPERATOR.md"


@pytest.mark.parametrize("name", ["operator", "node"])
def test_every_query_of_a_dashboard_names_figures_that_exist(name: str) -> None:
    dashboard = json.loads((_CHART / "dashboards" / f"{name}.json").read_text())
    existing = _operator_figures() if name == "operator" else _node_figures()
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked += [
        variable["query"]
        for variable in dashboard["templating"]["list"]
        if variable["type"] == "query"
    ]
    for query in asked:
        names = set(_METRIC.findall(query))
        assert names, query
        assert names <= set(existing), query
        # Labels that are asked for, or that figures are grouped by, must be there as well.
        labels = set().union(*(existing[each] for each in names)) | {"le", "node", "instance"}
        grouped = {
            label.strip()
            for found in re.findall(r"\b(?:by|on) \(([^)]*)\)", query)
            for label in found.split(",")
        }
        matched = set(re.findall(r"[{,]\s*(\w+)=", query))
        assert grouped | matched <= labels, query
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    assert len({panel["title"] for panel in dashboard["panels"]}) == len(ids)


def test_a_stopped_pod_is_given_the_time_that_the_daemon_takes() -> None:
    """The chart adds 60 s to the time that requests may finish in."""
    text = (_CHART / "templates" / "node" / "daemonset.yaml").read_text()
    (seconds,) = re.findall(r"terminationGracePeriodSeconds: \{\{ add \S+ (\d+) \}\}", text)
    assert int(seconds) > supervisor.CLOSING_SECONDS + supervisor.CONCLUDE_SECONDS_MAX


def test_the_chart_is_of_the_version_of_the_package() -> None:
    chart = msgspec.yaml.decode((_CHART / "Chart.yaml").read_bytes())
    (version,) = re.findall(r'^version = "(.*)"$', (_ROOT / "pyproject.toml").read_text(), re.M)
    assert (chart["version"], chart["appVersion"]) == (version, version)


def _kinds(where: str, kind: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield where, kind
    for name, inner in kind.get("properties", {}).items():
        yield from _kinds(f"{where}.{name}" if where else name, inner)
    if isinstance(kind.get("items"), dict):
        yield from _kinds(f"{where}[]", kind["items"])


def _leaves(where: str, kind: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Values that are told of one by one: settings are told of where the programs are."""
    for name, inner in kind["properties"].items():
        place = f"{where}.{name}" if where else name
        if "properties" in inner and name != "settings":
            yield from _leaves(place, inner)
        elif place != "global":
            yield place, inner


def _defaults(where: str, value: Any, leaves: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    if where in leaves or not isinstance(value, dict):
        yield where, value
        return
    for name, inner in value.items():
        yield from _defaults(f"{where}.{name}" if where else name, inner, leaves)


def _shown(value: Any) -> str:
    if value in ("", [], {}):
        return ""
    if isinstance(value, dict):
        return "`" + json.dumps(value) + "`"
    if isinstance(value, list):
        return "`" + ", ".join(map(str, value)) + "`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _operator_figures() -> dict[str, set[str]]:
    return _of(figures.OperatorFigures()._registry)


def _node_figures() -> dict[str, set[str]]:
    target = registry.CollectorRegistry()
    metrics.NodeMetrics(target)
    board = child_status.Board(data_dir=pathlib.Path("/nowhere"))
    found = _of(target)
    for family in metrics.ChildrenCollector(board).collect():
        end = "_total" if family.type == "counter" else ""
        found[family.name + end] = set(getattr(family, "_labelnames", ()))
    return found


def _of(target: registry.CollectorRegistry) -> dict[str, set[str]]:
    """The series of a registry, also those that nothing has been counted in, and their labels."""
    found: dict[str, set[str]] = {}
    for each in list(target._collector_to_names):
        if not isinstance(each, prometheus_client.metrics.MetricWrapperBase):
            continue
        ends = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
        for end in ends.get(each._type or "", ("",)):
            found[each._name + end] = set(each._labelnames)
    return found
