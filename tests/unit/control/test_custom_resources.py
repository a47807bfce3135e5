"""The resource definitions: structural, in step with their models, and strict by message."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

import admission
import msgspec
import pytest
import refused_resources

from couchestor_domain import errors, tiers
from couchestor_operator.app import write_crds
from couchestor_operator.control import selector
from couchestor_operator.resources import (
    definition,
    erasure_coding_policy,
    policy_reading,
    schema,
    storage_policy,
)

CRDS = pathlib.Path(__file__).parents[3] / "helm" / "couchestor" / "crds"


def _document(spec: object) -> admission.Document:
    return {"metadata": {"name": "p"}, "spec": spec}


def test_the_files_of_the_chart_are_made_from_the_models(tmp_path: pathlib.Path) -> None:
    write_crds.write(tmp_path / "new")
    made = {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()}
    kept = {path.name: path.read_bytes() for path in CRDS.iterdir()}
    assert made == kept, "run `make crds` and commit what it wrote"


@pytest.mark.parametrize("kind", definition.KINDS, ids=lambda kind: kind.kind)
def test_schemas_are_structural(kind: definition.ResourceKind) -> None:
    allowed = {
        *("type", "format", "description", "properties", "required", "items", "enum", "default"),
        *("additionalProperties", "minimum", "maximum", "minLength", "maxLength", "pattern"),
        *("minItems", "maxItems", "maxProperties", "x-kubernetes-validations"),
        *("x-kubernetes-list-type", "x-kubernetes-list-map-keys"),
    }
    nodes = list(_nodes(definition.openapi(kind)))
    assert len(nodes) > 20
    for node in nodes:
        assert "type" in node, node
        assert set(node) <= allowed, node
        for key in node.get("x-kubernetes-list-map-keys", ()):
            assert key in node["items"]["required"]
        # The API server refuses rules whose cost it cannot bound.
        if node["type"] == "array":
            assert "maxItems" in node or "items" not in node, node


def _nodes(node: schema.Schema) -> Iterator[schema.Schema]:
    yield node
    for child in node.get("properties", {}).values():
        yield from _nodes(child)
    for keyword in ("items", "additionalProperties"):
        if keyword in node:
            yield from _nodes(node[keyword])


def test_names_scope_and_subresource() -> None:
    found = {}
    for kind in definition.KINDS:
        document: Any = definition.document(kind)
        spec = document["spec"]
        (version,) = spec["versions"]
        assert (spec["group"], version["name"]) == ("storage.billyronks.io", "v1")
        assert spec["scope"] == "Cluster"
        assert version["subresources"] == {"status": {}}
        assert document["metadata"]["name"] == f"{spec['names']['plural']}.{spec['group']}"
        found[spec["names"]["kind"]] = spec["names"]["shortNames"]
        _columns_lead_somewhere(version)
    assert found == {
        "StoragePolicy": ["sp", "spolicy"],
        "ErasureCodingPolicy": ["ecp"],
        "ECStripe": ["ecs"],
    }


def _columns_lead_somewhere(version: dict[str, Any]) -> None:
    for column in version["additionalPrinterColumns"]:
        if column["jsonPath"].startswith(".metadata"):
            continue
        node = version["schema"]["openAPIV3Schema"]
        for name in column["jsonPath"].strip(".").split("."):
            node = node["properties"][name]
        assert node["type"] == column["type"], column


def test_what_a_server_fills_in_is_what_the_models_assume() -> None:
    for kind in (definition.STORAGE_POLICY, definition.ERASURE_CODING_POLICY):
        filled = admission.defaulted(kind, _document({}))
        assert admission.complaints(kind, _document({})) == []
        assert msgspec.convert(filled["spec"], kind.spec) == kind.spec()
    assert storage_policy.StoragePolicySpec().ec_min_volume_size_bytes == 10 << 30
    assert erasure_coding_policy.ErasureCodingPolicySpec().stripe_size_bytes == 1 << 20


@pytest.mark.parametrize("kind", definition.KINDS, ids=lambda kind: kind.kind)
def test_a_status_that_the_operator_writes_is_accepted(kind: definition.ResourceKind) -> None:
    spec: object = refused_resources.STRIPE if kind is definition.EC_STRIPE else {}
    status = {
        name: value
        for name, value in msgspec.to_builtins(kind.status()).items()
        if value is not None
    }
    document = _document(spec) | {"status": status}
    assert admission.complaints(kind, document) == []


@pytest.mark.parametrize(
    ("spec", "message"),
    refused_resources.STORAGE_POLICIES,
)
def test_a_storage_policy_is_refused_by_message(spec: dict[str, object], message: str) -> None:
    found = admission.complaints(definition.STORAGE_POLICY, _document(spec))
    assert any(message in line for line in found), found


@pytest.mark.parametrize(
    ("spec", "message"),
    refused_resources.CODING_POLICIES,
)
def test_a_coding_policy_is_refused_by_message(spec: dict[str, object], message: str) -> None:
    found = admission.complaints(definition.ERASURE_CODING_POLICY, _document(spec))
    assert any(message in line for line in found), found


@pytest.mark.parametrize(
    ("change", "message"),
    refused_resources.STRIPE_CHANGES,
)
def test_a_stripe_is_refused_by_message(change: dict[str, object], message: str) -> None:
    old = _document(refused_resources.STRIPE)
    assert admission.complaints(definition.EC_STRIPE, old, old=old) == []
    found = admission.complaints(
        definition.EC_STRIPE, _document(refused_resources.STRIPE | change), old=old
    )
    assert any(message in line for line in found), found


def test_shards_move_with_a_new_generation() -> None:
    moved = refused_resources.STRIPE | {
        "shardLocations": refused_resources.STRIPE["shardLocations"][:2],
        "generation": 4,
    }
    old = _document(refused_resources.STRIPE)
    assert admission.complaints(definition.EC_STRIPE, _document(moved), old=old) == []


def test_a_policy_read_from_the_api() -> None:
    spec = {
        "nvmePoolSelector": refused_resources.SELECTOR,
        "sataPoolSelector": {
            "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["nvme"]}]
        },
        "samplingWindow": "1h30m",
        "futureField": 1,
    }
    document = _document(spec)
    document["metadata"] |= {"creationTimestamp": "1970-01-01T00:01:00Z", "managedFields": []}
    assert admission.complaints(definition.STORAGE_POLICY, document) == []
    made = policy_reading.policy_of(policy_reading.decode(document))
    assert (made.name, made.created_at_seconds) == ("p", 60)
    assert made.sampling_window_seconds == 5400
    assert made.pool_selectors[tiers.Tier.HOT] == selector.Selector(match_labels={"tier": "nvme"})
    assert made.tier_of({"tier": "nvme"}) is tiers.Tier.HOT
    assert made.tier_of({"tier": "sata"}) is tiers.Tier.COLD
    assert tiers.Tier.WARM not in made.pool_selectors


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"lowWatermarkIOPS": 5000}, "watermarks"),
        ({"samplingWindow": "0s"}, "samplingWindow"),
        ({"migrationTimeout": "4000d"}, "migrationTimeout"),
        ({"hotPoolSelector": {}, "nvmePoolSelector": {}}, "hotPoolSelector"),
        ({"coldPoolSelector": {}, "sataPoolSelector": {}}, "coldPoolSelector"),
        (
            {"volumeSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}},
            "volumeSelector",
        ),
        ({"highWatermarkIOPS": "many"}, "highWatermarkIOPS"),
        ({"maxConcurrentMigrations": 0}, "maxConcurrentMigrations"),
    ],
)
def test_a_policy_older_than_its_rules_is_refused_when_read(
    spec: dict[str, object], field: str
) -> None:
    with pytest.raises(errors.InvalidPolicyError, match=field):
        policy_reading.policy_of(policy_reading.decode(_document(spec)))


def test_a_model_without_a_structural_form_is_refused() -> None:
    class Loose(msgspec.Struct):
        anything: int | str

    with pytest.raises(TypeError, match="no structural form"):
        schema.structural(Loose, with_defaults=True)
