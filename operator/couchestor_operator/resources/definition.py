"""CustomResourceDefinitions of the operator's own kinds, as documents for the Kubernetes API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

from couchestor_operator.resources import (
    ec_stripe,
    erasure_coding_policy,
    field_types,
    schema,
    storage_policy,
)

HEADER: Final = (
    "# Made by `make crds` from the models in couchestor_operator.resources: change those.\n"
)


class Column(NamedTuple):
    """What ``kubectl get`` prints."""

    name: str
    type: str
    path: str
    priority: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceKind:
    """A custom resource: its names, its models, its columns."""

    kind: str
    plural: str
    short_names: tuple[str, ...]
    model: type[msgspec.Struct]
    spec: type[msgspec.Struct]
    status: type[msgspec.Struct]
    columns: tuple[Column, ...]

    @property
    def full_name(self) -> str:
        """Name of the definition: plural and group."""
        return f"{self.plural}.{field_types.GROUP}"


_AGE: Final = Column("Age", "date", ".metadata.creationTimestamp")

STORAGE_POLICY: Final = ResourceKind(
    kind="StoragePolicy",
    plural="storagepolicies",
    short_names=("sp", "spolicy"),
    model=storage_policy.StoragePolicy,
    spec=storage_policy.StoragePolicySpec,
    status=storage_policy.StoragePolicyStatus,
    columns=(
        Column("High IOPS", "integer", ".spec.highWatermarkIOPS"),
        Column("Low IOPS", "integer", ".spec.lowWatermarkIOPS"),
        Column("Phase", "string", ".status.phase"),
        Column("Watched", "integer", ".status.watchedVolumes"),
        Column("Active", "integer", ".status.activeMigrations"),
        Column("Migrations", "integer", ".status.totalMigrations"),
        Column("Failed", "integer", ".status.failedMigrations", 1),
        Column("Dry Run", "boolean", ".spec.dryRun", 1),
        _AGE,
    ),
)
ERASURE_CODING_POLICY: Final = ResourceKind(
    kind="ErasureCodingPolicy",
    plural="erasurecodingpolicies",
    short_names=("ecp",),
    model=erasure_coding_policy.ErasureCodingPolicy,
    spec=erasure_coding_policy.ErasureCodingPolicySpec,
    status=erasure_coding_policy.ErasureCodingPolicyStatus,
    columns=(
        Column("Data Shards", "integer", ".spec.dataShards"),
        Column("Parity Shards", "integer", ".spec.parityShards"),
        Column("Stripe Size", "integer", ".spec.stripeSizeBytes"),
        Column("Algorithm", "string", ".spec.algorithm"),
        Column("Phase", "string", ".status.phase"),
        Column("Degraded", "integer", ".status.degradedStripes", 1),
        _AGE,
    ),
)
EC_STRIPE: Final = ResourceKind(
    kind="ECStripe",
    plural="ecstripes",
    short_names=("ecs",),
    model=ec_stripe.ECStripe,
    spec=ec_stripe.ECStripeSpec,
    status=ec_stripe.ECStripeStatus,
    columns=(
        Column("Volume", "string", ".spec.volumeRef"),
        Column("Stripe ID", "integer", ".spec.stripeId"),
        Column("State", "string", ".status.state"),
        Column("Healthy Shards", "integer", ".status.healthyShards"),
        Column("Generation", "integer", ".spec.generation", 1),
        _AGE,
    ),
)
KINDS: Final = (STORAGE_POLICY, ERASURE_CODING_POLICY, EC_STRIPE)


def document(kind: ResourceKind) -> Mapping[str, object]:
    """The CustomResourceDefinition of a kind."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": kind.full_name},
        "spec": {
            "group": field_types.GROUP,
            "scope": "Cluster",
            "names": {
                "kind": kind.kind,
                "listKind": f"{kind.kind}List",
                "plural": kind.plural,
                "singular": kind.kind.lower(),
                "shortNames": list(kind.short_names),
            },
            "versions": [
                {
                    "name": field_types.VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [_column(column) for column in kind.columns],
                    "schema": {"openAPIV3Schema": openapi(kind)},
                }
            ],
        },
    }


def openapi(kind: ResourceKind) -> schema.Schema:
    """Structural schema of a whole object of the kind."""
    return {
        "type": "object",
        "description": kind.model.__doc__,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": schema.structural(kind.spec, with_defaults=True),
            "status": schema.structural(kind.status, with_defaults=False),
        },
    }


def manifest(kind: ResourceKind) -> bytes:
    """The definition as a YAML file."""
    return HEADER.encode() + msgspec.yaml.encode(document(kind))


def _column(column: Column) -> dict[str, object]:
    shown: dict[str, object] = {
        "name": column.name,
        "type": column.type,
        "jsonPath": column.path,
    }
    return shown | ({"priority": column.priority} if column.priority else {})
