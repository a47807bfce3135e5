"""StoragePolicy: which volumes are watched, and when they move between tiers."""

from __future__ import annotations

import enum
from typing import Annotated, ClassVar

import msgspec

from couchestor_domain import units
from couchestor_operator.resources import field_types, migration_entry, schema

IOPS_MAX = 1_000_000_000
HISTORY_COUNT_MAX = 50
MIGRATIONS_COUNT_MAX = 100

Iops = Annotated[int, msgspec.Meta(ge=0, le=IOPS_MAX)]

ANY_DIGIT_ABOVE_0 = "matches('[1-9]')"


class StoragePolicySpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """When the volumes of a storage class move between hot, warm and cold pools."""

    RULES: ClassVar = (
        schema.Rule(
            "self.lowWatermarkIOPS < self.highWatermarkIOPS",
            "lowWatermarkIOPS must be below highWatermarkIOPS",
        ),
        schema.Rule(
            "self.warmWatermarkIOPS == 0 || (self.lowWatermarkIOPS < self.warmWatermarkIOPS"
            " && self.warmWatermarkIOPS < self.highWatermarkIOPS)",
            "warmWatermarkIOPS must lie between lowWatermarkIOPS and highWatermarkIOPS,"
            " or be 0 for a policy of two tiers",
        ),
        schema.Rule(
            "!(has(self.hotPoolSelector) && has(self.nvmePoolSelector))",
            "nvmePoolSelector is another name of hotPoolSelector: give one of them",
        ),
        schema.Rule(
            "!(has(self.coldPoolSelector) && has(self.sataPoolSelector))",
            "sataPoolSelector is another name of coldPoolSelector: give one of them",
        ),
        schema.Rule(
            "!has(self.warmPoolSelector) || self.warmWatermarkIOPS > 0",
            "warmPoolSelector needs a warmWatermarkIOPS above 0",
        ),
        *(
            schema.Rule(f"self.{name}.{ANY_DIGIT_ABOVE_0}", f"{name} must be longer than 0")
            for name in ("samplingWindow", "cooldownPeriod", "migrationTimeout")
        ),
    )

    high_watermark_iops: Annotated[
        int,
        msgspec.Meta(ge=1, le=IOPS_MAX, description="A volume above it is hot"),
    ] = msgspec.field(name="highWatermarkIOPS", default=5000)
    warm_watermark_iops: Annotated[
        Iops,
        msgspec.Meta(
            description="A hot volume stays hot down to it, a cold one cold up to it;"
            " 0 for two tiers without a warm one"
        ),
    ] = msgspec.field(name="warmWatermarkIOPS", default=2000)
    low_watermark_iops: Annotated[Iops, msgspec.Meta(description="A volume below it is cold")] = (
        msgspec.field(name="lowWatermarkIOPS", default=500)
    )
    sampling_window: Annotated[
        field_types.Duration, msgspec.Meta(description="IOPS are averaged over it")
    ] = "1h"
    cooldown_period: Annotated[
        field_types.Duration,
        msgspec.Meta(description="A volume that moved stays where it is for this long"),
    ] = "24h"
    storage_class_name: Annotated[
        field_types.Name, msgspec.Meta(description="Only its volumes are watched")
    ] = "mayastor"
    hot_pool_selector: field_types.LabelSelector | None = None
    nvme_pool_selector: field_types.LabelSelector | None = None
    warm_pool_selector: field_types.LabelSelector | None = None
    cold_pool_selector: field_types.LabelSelector | None = None
    sata_pool_selector: field_types.LabelSelector | None = None
    volume_selector: field_types.LabelSelector | None = None
    max_concurrent_migrations: Annotated[int, msgspec.Meta(ge=1, le=MIGRATIONS_COUNT_MAX)] = 2
    migration_timeout: Annotated[
        field_types.Duration,
        msgspec.Meta(description="A migration that takes longer is given up; nothing is removed"),
    ] = "30m"
    enabled: bool = True
    dry_run: Annotated[bool, msgspec.Meta(description="Decide and report, move nothing")] = False
    ec_policy_ref: (
        Annotated[
            field_types.Name,
            msgspec.Meta(description="ErasureCodingPolicy for volumes that become cold"),
        ]
        | None
    ) = None
    ec_min_volume_size_bytes: Annotated[
        field_types.ByteCount,
        msgspec.Meta(description="Smaller volumes keep replicas when they become cold"),
    ] = 10 * units.GIB


class PolicyPhase(enum.Enum):
    """What a policy does at present."""

    PENDING = "Pending"
    ACTIVE = "Active"
    DISABLED = "Disabled"
    ERROR = "Error"


class StoragePolicyStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What the operator saw and did under a policy."""

    phase: PolicyPhase = PolicyPhase.PENDING
    observed_generation: field_types.Count | None = None
    watched_volumes: field_types.Count = 0
    hot_volumes: field_types.Count = 0
    warm_volumes: field_types.Count = 0
    cold_volumes: field_types.Count = 0
    active_migrations: field_types.Count = 0
    total_migrations: field_types.Count = 0
    failed_migrations: field_types.Count = 0
    last_reconcile_time: field_types.Moment | None = None
    conditions: field_types.Conditions = msgspec.field(default_factory=list)
    migrations: Annotated[
        list[migration_entry.MigrationEntry],
        msgspec.Meta(
            max_length=MIGRATIONS_COUNT_MAX,
            description="Migrations under way, each step written here before it is taken",
            extra_json_schema={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["volume"],
            },
        ),
    ] = msgspec.field(default_factory=list)
    migration_history: Annotated[
        list[migration_entry.MigrationHistoryEntry], msgspec.Meta(max_length=HISTORY_COUNT_MAX)
    ] = msgspec.field(default_factory=list)


class StoragePolicy(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Moves volumes between hot, warm and cold pools by how much they are used."""

    metadata: field_types.ObjectMeta
    spec: StoragePolicySpec
    status: StoragePolicyStatus | None = None
