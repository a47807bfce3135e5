"""The resource definitions of the chart on a real API server: it must mean by them what we mean."""

from __future__ import annotations

import copy
import itertools
import urllib.parse
from typing import Any, Final

import admission
import kubernetes
import msgspec
import pytest
import refused_resources
from tests.kube import control_plane

from couchestor_operator.resources import definition, field_types

_numbers: Final = itertools.count()

Kind = definition.ResourceKind


@pytest.fixture
def objects(client: Any, crds: dict[str, Any]) -> Any:
    """The API of custom resources, with their definitions in place."""
    assert crds
    return kubernetes.client.CustomObjectsApi(client)


def _conditions(item: dict[str, Any]) -> dict[str, str]:
    return {one["type"]: one["status"] for one in item["status"]["conditions"]}


def _document(kind: Kind, spec: object) -> dict[str, Any]:
    return {
        "apiVersion": field_types.API_VERSION,
        "kind": kind.kind,
        "metadata": {"name": f"t{next(_numbers)}"},
        "spec": spec,
    }


def _created(objects: Any, kind: Kind, document: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = objects.create_cluster_custom_object(
        field_types.GROUP, field_types.VERSION, kind.plural, document, field_validation="Strict"
    )
    return made


def _refused(objects: Any, kind: Kind, document: dict[str, Any], message: str) -> None:
    with pytest.raises(kubernetes.client.ApiException) as raised:
        _created(objects, kind, document)
    assert raised.value.status == 422
    assert message in _message(raised.value)


def _message(refused: Any) -> str:
    body = msgspec.json.decode(refused.body)
    return str(body["message"])


def _path(kind: Kind, name: str = "", sub: str = "") -> str:
    parts = ["/apis", field_types.GROUP, field_types.VERSION, kind.plural, name, sub]
    return "/".join(part for part in parts if part)


def test_every_definition_is_established_and_structural(crds: dict[str, Any]) -> None:
    assert set(crds) == {kind.plural for kind in definition.KINDS}
    for plural, item in crds.items():
        conditions = _conditions(item)
        assert conditions["NamesAccepted"] == "True", plural
        assert conditions["Established"] == "True", plural
        # Written by a server that finds a schema not structural, or one it cannot publish.
        assert "NonStructuralSchema" not in conditions, item["status"]
        assert "KubernetesAPIApprovalPolicyConformant" not in conditions, item["status"]


def test_names_scope_and_subresource_as_the_server_serves_them(
    plane: control_plane.ControlPlane, crds: dict[str, Any]
) -> None:
    assert crds
    status, found = plane.request("GET", f"/apis/{field_types.API_VERSION}")
    assert status == 200
    served = {one["name"]: one for one in found["resources"]}
    assert set(served) == {
        name for kind in definition.KINDS for name in (kind.plural, f"{kind.plural}/status")
    }
    for kind in definition.KINDS:
        one = served[kind.plural]
        assert one["shortNames"] == list(kind.short_names)
        assert one["kind"] == kind.kind
        assert one["namespaced"] is False


@pytest.mark.parametrize("kind", definition.KINDS[:2], ids=lambda kind: kind.kind)
def test_the_server_fills_in_what_the_models_assume(objects: Any, kind: Kind) -> None:
    made = _created(objects, kind, _document(kind, {}))
    assert msgspec.convert(made["spec"], kind.spec) == kind.spec()
    assert made["spec"] == admission.defaulted(kind, {"spec": {}})["spec"]
    assert "status" not in made


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        (
            definition.STORAGE_POLICY,
            {"volumeSelector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}},
        ),
        (definition.STORAGE_POLICY, {"hotPoolSelector": {}}),
        (definition.ERASURE_CODING_POLICY, {"journalConfig": {}}),
        (definition.EC_STRIPE, refused_resources.STRIPE),
    ],
)
def test_the_server_fills_in_inner_objects_as_the_model_does(
    objects: Any, kind: Kind, spec: dict[str, Any]
) -> None:
    made = _created(objects, kind, _document(kind, spec))
    assert made["spec"] == admission.defaulted(kind, {"spec": spec})["spec"]
    msgspec.convert(made, kind.model)


@pytest.mark.parametrize(("spec", "message"), refused_resources.STORAGE_POLICIES)
def test_a_storage_policy_is_refused_by_message(
    objects: Any, spec: dict[str, Any], message: str
) -> None:
    _refused(
        objects,
        definition.STORAGE_POLICY,
        _document(definition.STORAGE_POLICY, spec),
        message,
    )


@pytest.mark.parametrize(("spec", "message"), refused_resources.CODING_POLICIES)
def test_a_coding_policy_is_refused_by_message(
    objects: Any, spec: dict[str, Any], message: str
) -> None:
    kind = definition.ERASURE_CODING_POLICY
    _refused(objects, kind, _document(kind, spec), message)


@pytest.mark.parametrize(("change", "message"), refused_resources.STRIPE_CHANGES)
def test_a_stripe_is_refused_by_message(objects: Any, change: dict[str, Any], message: str) -> None:
    kind = definition.EC_STRIPE
    made = _created(objects, kind, _document(kind, refused_resources.STRIPE))
    changed = copy.deepcopy(made)
    changed["spec"] |= change
    with pytest.raises(kubernetes.client.ApiException) as raised:
        _replaced(objects, kind, changed)
    assert raised.value.status == 422
    assert message in _message(raised.value)


def _replaced(objects: Any, kind: Kind, document: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = objects.replace_cluster_custom_object(
        field_types.GROUP,
        field_types.VERSION,
        kind.plural,
        document["metadata"]["name"],
        document,
    )
    return made


def test_shards_move_with_a_new_generation(objects: Any) -> None:
    kind = definition.EC_STRIPE
    made = _created(objects, kind, _document(kind, refused_resources.STRIPE))
    made["spec"] |= {"shardLocations": made["spec"]["shardLocations"][:2], "generation": 4}
    assert len(_replaced(objects, kind, made)["spec"]["shardLocations"]) == 2


@pytest.mark.parametrize("kind", definition.KINDS, ids=lambda kind: kind.kind)
def test_a_field_that_does_not_exist_is_refused(objects: Any, kind: Kind) -> None:
    spec = refused_resources.STRIPE if kind is definition.EC_STRIPE else {}
    with pytest.raises(kubernetes.client.ApiException, match="unknown field") as raised:
        _created(objects, kind, _document(kind, spec | {"highWatermarkIops": 5}))
    assert raised.value.status == 400


@pytest.mark.parametrize("kind", definition.KINDS, ids=lambda kind: kind.kind)
def test_status_is_a_resource_of_its_own(
    plane: control_plane.ControlPlane, objects: Any, kind: Kind
) -> None:
    spec = refused_resources.STRIPE if kind is definition.EC_STRIPE else {}
    document = _document(kind, spec)
    status = {
        name: value
        for name, value in msgspec.to_builtins(kind.status()).items()
        if value is not None
    }
    made = _created(objects, kind, document | {"status": status})
    assert "status" not in made, "a status in the resource itself is not taken"
    path = _path(kind, made["metadata"]["name"])
    other_spec = {"generation": 9} if kind is definition.EC_STRIPE else {"enabled": False}
    answered, patched = plane.request(
        "PATCH", f"{path}/status", {"status": status, "spec": other_spec}
    )
    assert answered == 200, patched
    assert patched["status"] == status
    assert patched["spec"] == made["spec"], "nor a spec with the status"
    assert patched["metadata"]["generation"] == made["metadata"]["generation"] == 1
    assert patched["metadata"]["resourceVersion"] != made["metadata"]["resourceVersion"]


def test_a_watch_gives_what_is_there_and_says_where_that_ends(
    plane: control_plane.ControlPlane, objects: Any
) -> None:
    """What informers begin with; an API server whose etcd is too old answers with an error."""
    kind = definition.STORAGE_POLICY
    made = _created(objects, kind, _document(kind, {}))
    words = {
        "watch": "true",
        "sendInitialEvents": "true",
        "allowWatchBookmarks": "true",
        "resourceVersionMatch": "NotOlderThan",
    }
    seen = set()
    for event in plane.events(f"{_path(kind)}?{urllib.parse.urlencode(words)}", seconds_max=30):
        metadata = event["object"]["metadata"]
        if event["type"] == "BOOKMARK":
            assert metadata["annotations"]["k8s.io/initial-events-end"] == "true"
            break
        assert event["type"] == "ADDED", event
        seen.add(metadata["name"])
    assert made["metadata"]["name"] in seen


@pytest.mark.parametrize("kind", definition.KINDS, ids=lambda kind: kind.kind)
def test_columns_as_kubectl_prints_them(
    plane: control_plane.ControlPlane, objects: Any, kind: Kind
) -> None:
    spec = refused_resources.STRIPE if kind is definition.EC_STRIPE else {}
    made = _created(objects, kind, _document(kind, spec))
    name = made["metadata"]["name"]
    selected = urllib.parse.quote(f"metadata.name={name}")
    answered, table = plane.request(
        "GET", f"{_path(kind)}?fieldSelector={selected}", accept=control_plane.TABLE
    )
    assert answered == 200
    shown = {one["name"]: one for one in table["columnDefinitions"]}
    assert list(shown) == ["Name", *(column.name for column in kind.columns)]
    (row,) = table["rows"]
    cells = dict(zip(shown, row["cells"], strict=True))
    assert cells["Name"] == name
    for column in kind.columns:
        assert shown[column.name]["type"] == column.type
        assert shown[column.name]["priority"] == column.priority
        if column.path.startswith(".spec."):
            assert cells[column.name] == made["spec"][column.path.removeprefix(".spec.")]
