"""ErasureCodingPolicy: how cold data is coded."""

from __future__ import annotations

import enum
from typing import Annotated, ClassVar

import msgspec

from couchestor_domain import geometry, units
from couchestor_operator.resources import field_types, schema

STRIPE_BYTES_MIN = 64 * units.KIB
STRIPE_BYTES_MAX = 64 * units.MIB


class Algorithm(enum.Enum):
    """How parity is computed."""

    REED_SOLOMON = "ReedSolomon"
    LRC = "LRC"


class JournalConfig(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The replicated log that takes small writes before they are coded."""

    RULES: ClassVar = (
        schema.Rule("self.destageInterval.matches('[1-9]')", "destageInterval must be above 0"),
    )

    journal_size_bytes: Annotated[int, msgspec.Meta(ge=units.MIB)] = 10 * units.GIB
    replication_factor: Annotated[int, msgspec.Meta(ge=2, le=geometry.SHARDS_COUNT_MAX)] = 3
    destage_threshold_percent: Annotated[int, msgspec.Meta(ge=1, le=100)] = 80
    destage_interval: field_types.Duration = "30s"


class ErasureCodingPolicySpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """k data and m parity shards: any m may be lost, also with LRC, whose repairs are cheaper."""

    RULES: ClassVar = (
        schema.Rule(
            f"self.dataShards + self.parityShards <= {geometry.SHARDS_COUNT_MAX}",
            f"dataShards and parityShards must be at most {geometry.SHARDS_COUNT_MAX} together",
        ),
        schema.Rule(
            "!has(self.minHealthyShards) || (self.minHealthyShards >= self.dataShards"
            " && self.minHealthyShards <= self.dataShards + self.parityShards)",
            "minHealthyShards must lie between dataShards and dataShards + parityShards",
        ),
        schema.Rule(
            f"self.stripeSizeBytes % {units.BLOCK_BYTES} == 0",
            f"stripeSizeBytes must be a multiple of {units.BLOCK_BYTES}",
        ),
        schema.Rule(
            "self.algorithm != 'LRC' || (self.dataShards % 2 == 0 && self.parityShards == 2)",
            "LRC needs an even number of dataShards and exactly 2 parityShards: with more it would"
            " survive fewer lost shards than it has parityShards",
        ),
        schema.Rule(
            "!has(self.journalConfig) || self.journalConfig.replicationFactor > self.parityShards",
            "journalConfig.replicationFactor must be above parityShards: a write in the journal"
            " is to survive what a stripe survives",
        ),
        schema.Rule("self.scrubInterval.matches('[1-9]')", "scrubInterval must be longer than 0"),
    )

    data_shards: Annotated[int, msgspec.Meta(ge=1, le=geometry.SHARDS_COUNT_MAX - 1)] = 4
    parity_shards: Annotated[int, msgspec.Meta(ge=1, le=geometry.SHARDS_COUNT_MAX - 1)] = 2
    stripe_size_bytes: Annotated[int, msgspec.Meta(ge=STRIPE_BYTES_MIN, le=STRIPE_BYTES_MAX)] = (
        units.MIB
    )
    algorithm: Algorithm = Algorithm.REED_SOLOMON
    journal_config: JournalConfig | None = None
    min_healthy_shards: Annotated[int, msgspec.Meta(ge=1, le=geometry.SHARDS_COUNT_MAX)] | None = (
        None
    )
    scrubbing_enabled: bool = False
    scrub_interval: field_types.Duration = "7d"


class EcPolicyPhase(enum.Enum):
    """Whether a policy can be used, and is."""

    PENDING = "Pending"
    READY = "Ready"
    ACTIVE = "Active"
    INVALID = "Invalid"


class ErasureCodingPolicyStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What is coded under a policy."""

    phase: EcPolicyPhase = EcPolicyPhase.PENDING
    observed_generation: field_types.Count | None = None
    active_volumes: field_types.Count = 0
    total_stripes: field_types.Count = 0
    healthy_stripes: field_types.Count = 0
    degraded_stripes: field_types.Count = 0
    rebuilding_stripes: field_types.Count = 0
    failed_stripes: field_types.Count = 0
    writing_stripes: field_types.Count = 0
    storage_efficiency: Annotated[
        float, msgspec.Meta(ge=0, le=1, description="User bytes per raw byte")
    ] = 0.0
    last_validation_time: field_types.Moment | None = None
    message: Annotated[str, msgspec.Meta(max_length=1024)] | None = None
    conditions: field_types.Conditions = msgspec.field(default_factory=list)


class ErasureCodingPolicy(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How data under it is coded: shards, stripes, journal, scrub."""

    metadata: field_types.ObjectMeta
    spec: ErasureCodingPolicySpec
    status: ErasureCodingPolicyStatus | None = None
