"""ECStripe: one stripe group, and where its shards lie. One resource per group, not per stripe."""

from __future__ import annotations

import enum
from typing import Annotated, ClassVar

import msgspec

from couchestor_domain import geometry
from couchestor_operator.resources import field_types, schema

ShardIndex = Annotated[int, msgspec.Meta(ge=0, le=geometry.SHARDS_COUNT_MAX - 1)]
ShardCount = Annotated[int, msgspec.Meta(ge=0, le=geometry.SHARDS_COUNT_MAX)]

_BY_SHARD: dict[str, object] = {
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["shardIndex"],
}


class ShardLocation(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Where one shard of a group lies."""

    shard_index: ShardIndex
    is_data_shard: bool
    pool_name: field_types.Name
    node_name: field_types.Name
    offset: Annotated[field_types.ByteCount, msgspec.Meta(description="In bytes, in the pool")]
    size_bytes: Annotated[int, msgspec.Meta(ge=1)]
    checksum: field_types.Checksum | None = None


class LbaRange(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Logical blocks of the volume: from start, up to and without end."""

    RULES: ClassVar = (schema.Rule("self.startLba < self.endLba", "endLba must be above startLba"),)

    start_lba: field_types.Count
    end_lba: field_types.Count


class ECStripeSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The members of a stripe group."""

    RULES: ClassVar = (
        schema.Rule(
            "self.volumeRef == oldSelf.volumeRef && self.stripeId == oldSelf.stripeId",
            "volumeRef and stripeId never change: make another ECStripe",
        ),
        schema.Rule(
            "self.generation >= oldSelf.generation",
            "generation never goes back",
        ),
        schema.Rule(
            "self.shardLocations == oldSelf.shardLocations || self.generation > oldSelf.generation",
            "shards that move raise the generation",
        ),
        schema.Rule(
            "self.shardLocations.exists(shard, shard.isDataShard)",
            "shardLocations must hold at least one data shard",
        ),
    )

    volume_ref: field_types.Name
    stripe_id: Annotated[int, msgspec.Meta(ge=0)]
    policy_ref: field_types.Name
    shard_locations: Annotated[
        list[ShardLocation],
        msgspec.Meta(
            min_length=2, max_length=geometry.SHARDS_COUNT_MAX, extra_json_schema=_BY_SHARD
        ),
    ]
    lba_range: LbaRange
    checksum: field_types.Checksum | None = None
    generation: field_types.Count = 0
    moved_shards: Annotated[
        list[ShardIndex],
        msgspec.Meta(
            max_length=geometry.SHARDS_COUNT_MAX,
            description="Shards that lie elsewhere than at status.handedGeneration",
            extra_json_schema={"x-kubernetes-list-type": "set"},
        ),
    ] = msgspec.field(default_factory=list)


class StripeState(enum.Enum):
    """How well a group is."""

    WRITING = "Writing"
    HEALTHY = "Healthy"
    DEGRADED = "Degraded"
    REBUILDING = "Rebuilding"
    FAILED = "Failed"


class ShardState(enum.Enum):
    """How well a shard is."""

    HEALTHY = "Healthy"
    MISSING = "Missing"
    CORRUPTED = "Corrupted"
    REBUILDING = "Rebuilding"


class ShardHealth(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What is known of one shard."""

    shard_index: ShardIndex
    state: ShardState
    last_verified: field_types.Moment | None = None
    error: Annotated[str, msgspec.Meta(max_length=1024)] | None = None


class ECStripeStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What is known of the group."""

    state: StripeState = StripeState.WRITING
    healthy_shards: ShardCount = 0
    healthy_data_shards: ShardCount = 0
    healthy_parity_shards: ShardCount = 0
    last_verification_time: field_types.Moment | None = None
    last_modified_time: field_types.Moment | None = None
    handed_generation: Annotated[
        field_types.Count,
        msgspec.Meta(description="The last generation that every member was seen to go by"),
    ] = 0
    rebuild_progress: field_types.Percent | None = None
    shard_health: Annotated[
        list[ShardHealth],
        msgspec.Meta(max_length=geometry.SHARDS_COUNT_MAX, extra_json_schema=_BY_SHARD),
    ] = msgspec.field(default_factory=list)
    conditions: field_types.Conditions = msgspec.field(default_factory=list)


class ECStripe(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One stripe group: where its shards lie and how well it is."""

    metadata: field_types.ObjectMeta
    spec: ECStripeSpec
    status: ECStripeStatus | None = None
