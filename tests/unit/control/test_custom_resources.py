"""The resource definitions: structural, in step with their models, and strict by message."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

import admission
import msgspec
import pytest

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

STRIPE: admission.Document = {
    "volumeRef": "pvc-1",
    "stripeId": 7,
    "policyRef": "cold",
    "lbaRange": {"startLba": 0, "endLba": 2048},
    "generation": 3,
    "shardLocations": [
        {
            "shardIndex": index,
            "isDataShard": index < 2,
            "poolName": f"pool-{index}",
            "nodeName": f"node-{index}",
            "offset": 0,
            "sizeBytes": 4096,
        }
        for index in range(3)
    ],
}


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
    spec: object = STRIPE if kind is definition.EC_STRIPE else {}
    status = {
        name: value
        for name, value in msgspec.to_builtins(kind.status()).items()
        if value is not None
    }
    document = _document(spec) | {"status": status}
    assert admission.complaints(kind, document) == []


SELECTOR = {"matchLabels": {"tier": "nvme"}}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"lowWatermarkIOPS": 5000}, "lowWatermarkIOPS must be below highWatermarkIOPS"),
        ({"highWatermarkIOPS": 1000}, "warmWatermarkIOPS must lie between"),
        ({"warmWatermarkIOPS": 500}, "warmWatermarkIOPS must lie between"),
        ({"highWatermarkIOPS": 0}, "greater than or equal to 1"),
        ({"highWatermarkIOPS": -1, "lowWatermarkIOPS": -5}, "greater than or equal to"),
        ({"highWatermarkIOPS": "many"}, "must be of type integer"),
        ({"samplingWindow": "0s"}, "samplingWindow must be longer than 0"),
        ({"cooldownPeriod": "0h0m"}, "cooldownPeriod must be longer than 0"),
        ({"migrationTimeout": "0d"}, "migrationTimeout must be longer than 0"),
        ({"samplingWindow": "an hour"}, "samplingWindow: should match"),
        ({"samplingWindow": "1" * 40 + "s"}, "may not be more than 32"),
        ({"maxConcurrentMigrations": 0}, "greater than or equal to 1"),
        ({"maxConcurrentMigrations": 101}, "less than or equal to 100"),
        (
            {"hotPoolSelector": SELECTOR, "nvmePoolSelector": SELECTOR},
            "nvmePoolSelector is another",
        ),
        ({"coldPoolSelector": {}, "sataPoolSelector": {}}, "sataPoolSelector is another"),
        ({"warmPoolSelector": {}, "warmWatermarkIOPS": 0}, "warmPoolSelector needs"),
        ({"ecMinVolumeSizeBytes": -1}, "greater than or equal to 0"),
        ({"ecPolicyRef": ""}, "at least 1 long"),
        ({"storageClassName": ""}, "at least 1 long"),
        (
            {"volumeSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}},
            "In and NotIn need at least one of values",
        ),
        (
            {
                "volumeSelector": {
                    "matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]
                }
            },
            "Exists and DoesNotExist take none",
        ),
        (
            {"volumeSelector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}},
            "Unsupported value",
        ),
    ],
)
def test_a_storage_policy_is_refused_by_message(spec: dict[str, object], message: str) -> None:
    found = admission.complaints(definition.STORAGE_POLICY, _document(spec))
    assert any(message in line for line in found), found


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"dataShards": 20, "parityShards": 13}, "at most 32 together"),
        ({"dataShards": 0}, "greater than or equal to 1"),
        ({"parityShards": 0}, "greater than or equal to 1"),
        ({"minHealthyShards": 3}, "minHealthyShards must lie between"),
        ({"minHealthyShards": 7}, "minHealthyShards must lie between"),
        ({"stripeSizeBytes": 65537}, "multiple of 4096"),
        ({"stripeSizeBytes": 4096}, "greater than or equal to 65536"),
        ({"stripeSizeBytes": 128 << 20}, "less than or equal to"),
        ({"algorithm": "Fountain"}, "Unsupported value"),
        ({"algorithm": "LRC", "dataShards": 5}, "LRC needs an even number"),
        ({"algorithm": "LRC", "parityShards": 1}, "LRC needs an even number"),
        ({"journalConfig": {}, "parityShards": 3}, "replicationFactor must be above parityShards"),
        ({"journalConfig": {"replicationFactor": 1}}, "greater than or equal to 2"),
        ({"journalConfig": {"destageThresholdPercent": 0}}, "greater than or equal to 1"),
        ({"journalConfig": {"destageInterval": "0s"}}, "destageInterval must be above 0"),
        ({"scrubInterval": "0d"}, "scrubInterval must be longer than 0"),
    ],
)
def test_a_coding_policy_is_refused_by_message(spec: dict[str, object], message: str) -> None:
    found = admission.complaints(definition.ERASURE_CODING_POLICY, _document(spec))
    assert any(message in line for line in found), found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"volumeRef": "pvc-2"}, "volumeRef and stripeId never change"),
        ({"generation": 2}, "generation never goes back"),
        ({"shardLocations": STRIPE["shardLocations"][:2]}, "raise the generation"),
        ({"lbaRange": {"startLba": 5, "endLba": 5}}, "endLba must be above"),
        ({"shardLocations": []}, "at least 2 long"),
        ({"shardLocations": [STRIPE["shardLocations"][0]] * 2}, "Duplicate value"),
        (
            {
                "shardLocations": [
                    location | {"isDataShard": False} for location in STRIPE["shardLocations"]
                ]
            },
            "at least one data shard",
        ),
    ],
)
def test_a_stripe_is_refused_by_message(change: dict[str, object], message: str) -> None:
    old = _document(STRIPE)
    assert admission.complaints(definition.EC_STRIPE, old, old=old) == []
    found = admission.complaints(definition.EC_STRIPE, _document(STRIPE | change), old=old)
    assert any(message in line for line in found), found


def test_shards_move_with_a_new_generation() -> None:
    moved = STRIPE | {"shardLocations": STRIPE["shardLocations"][:2], "generation": 4}
    old = _document(STRIPE)
    assert admission.complaints(definition.EC_STRIPE, _document(moved), old=old) == []


def test_a_policy_read_from_the_api() -> None:
    spec = {
        "nvmePoolSelector": SELECTOR,
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
