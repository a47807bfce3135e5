"""ECStripe documents of the API: what is read of one, and what is written."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from couchestor_domain import errors, geometry, ids
from couchestor_domain.node_api import assignment
from couchestor_operator.control import stripe_group
from couchestor_operator.resources import definition, ec_stripe, field_types

Document = Mapping[str, Any]
"""What the API sends and takes, as JSON means it."""

WRITER_NODE: Final = f"{field_types.GROUP}/writer-node"
"""Annotation: the node whose writer the group is for. Without it an ECStripe is none of ours."""
HOLDS_DATA: Final = "HoldsData"
"""Condition: whether anything was ever written there, or could have been."""
ERROR_LENGTH_MAX: Final = 1024


def group_of(document: Document) -> stripe_group.StripeGroup | None:
    """The group that a document describes; None: it is not that of a node's writer.

    Raises:
        KubernetesApiError: it does not fit its schema, or contradicts itself.
    """
    name = document["metadata"].get("name", "")
    try:
        read = msgspec.convert(document, ec_stripe.ECStripe)
    except msgspec.ValidationError as exc:
        raise errors.KubernetesApiError(f"ECStripe {name} cannot be read: {exc}") from exc
    writer_node = read.metadata.annotations.get(WRITER_NODE)
    if writer_node is None:
        return None
    spec = read.spec
    shards = sorted(spec.shard_locations, key=lambda shard: shard.shard_index)
    data_count = sum(shard.is_data_shard for shard in shards)
    in_order = all(
        shard.shard_index == index and shard.is_data_shard == (index < data_count)
        for index, shard in enumerate(shards)
    )
    if not in_order or data_count == len(shards):
        raise errors.KubernetesApiError(
            f"ECStripe {name} cannot be used: its shards must be numbered from 0 on, data shards"
            " first, with at least one parity shard"
        )
    return stripe_group.StripeGroup(
        name=read.metadata.name,
        version=read.metadata.resource_version or "",
        writer_node=writer_node,
        writer=spec.volume_ref,
        stripe_id=spec.stripe_id,
        policy=spec.policy_ref,
        coding=geometry.StripeGeometry(data_count, len(shards) - data_count),
        start_lba=spec.lba_range.start_lba,
        end_lba=spec.lba_range.end_lba,
        generation=spec.generation,
        places=tuple(
            assignment.ShardPlace(
                node=shard.node_name,
                device_id=ids.DeviceId(shard.pool_name),
                offset_bytes=shard.offset,
                size_bytes=shard.size_bytes,
            )
            for shard in shards
        ),
        moved_shards=frozenset(spec.moved_shards),
        told=None if read.status is None else _told(read.status, len(shards)),
        is_being_deleted=read.metadata.deletion_timestamp is not None,
    )


def document_of(group: stripe_group.StripeGroup) -> Document:
    """What is written to make a group."""
    return {
        "apiVersion": field_types.API_VERSION,
        "kind": definition.EC_STRIPE.kind,
        "metadata": {"name": group.name, "annotations": {WRITER_NODE: group.writer_node}},
        "spec": {
            "volumeRef": group.writer,
            "stripeId": group.stripe_id,
            "policyRef": group.policy,
            "lbaRange": {"startLba": group.start_lba, "endLba": group.end_lba},
            "generation": group.generation,
            "shardLocations": _locations(group),
        },
    }


def moved(document: Document, group: stripe_group.StripeGroup) -> Document:
    """The document with the places and the generation of a group; all else stays."""
    spec = {
        **document["spec"],
        "generation": group.generation,
        "shardLocations": _locations(group),
        "movedShards": sorted(group.moved_shards),
    }
    return {**document, "spec": spec}


def with_told(document: Document, told: stripe_group.Told, *, now_seconds: float) -> Document:
    """The document to be written to the subresource of statuses.

    Args:
        now_seconds: Since the epoch.
    """
    moment = datetime.datetime.fromtimestamp(now_seconds, tz=datetime.UTC)
    before = msgspec.convert(document.get("status") or {}, ec_stripe.ECStripeStatus)
    verified = {shard.shard_index: shard.last_verified for shard in before.shard_health}
    generation = document["metadata"].get("generation")
    data_count = sum(bool(shard["isDataShard"]) for shard in document["spec"]["shardLocations"])
    healthy = [
        index
        for index, shard in enumerate(told.shards)
        if shard is stripe_group.ShardHealth.HEALTHY
    ]
    healthy_data_count = sum(index < data_count for index in healthy)
    status = msgspec.structs.replace(
        before,
        state=ec_stripe.StripeState(told.state.value),
        healthy_shards=len(healthy),
        healthy_data_shards=healthy_data_count,
        healthy_parity_shards=len(healthy) - healthy_data_count,
        last_modified_time=moment,
        handed_generation=told.handed_generation,
        shard_health=[
            ec_stripe.ShardHealth(
                shard_index=index,
                state=ec_stripe.ShardState(shard.value),
                last_verified=verified.get(index),
                error=told.errors[index][:ERROR_LENGTH_MAX] or None,
            )
            for index, shard in enumerate(told.shards)
            if shard is not None
        ],
        conditions=[
            *(each for each in before.conditions if each.type != HOLDS_DATA),
            _holds_data(told, before, moment=moment, generation=generation),
        ],
    )
    return {**document, "status": _given(msgspec.to_builtins(status))}


def _holds_data(
    told: stripe_group.Told,
    before: ec_stripe.ECStripeStatus,
    *,
    moment: datetime.datetime,
    generation: int | None,
) -> field_types.Condition:
    status = (
        field_types.ConditionStatus.TRUE if told.holds_data else field_types.ConditionStatus.FALSE
    )
    since = next(
        (
            each.last_transition_time
            for each in before.conditions
            if each.type == HOLDS_DATA and each.status is status
        ),
        moment,
    )
    return field_types.Condition(
        type=HOLDS_DATA,
        status=status,
        reason="Written" if told.holds_data else "NothingWritten",
        message="",
        last_transition_time=since,
        observed_generation=generation,
    )


def _told(status: ec_stripe.ECStripeStatus, shards_count: int) -> stripe_group.Told:
    shards: list[stripe_group.ShardHealth | None] = [None] * shards_count
    why = [""] * shards_count
    for shard in status.shard_health:
        if shard.shard_index < shards_count:
            shards[shard.shard_index] = stripe_group.ShardHealth(shard.state.value)
            why[shard.shard_index] = shard.error or ""
    return stripe_group.Told(
        state=stripe_group.State(status.state.value),
        shards=tuple(shards),
        errors=tuple(why),
        holds_data=any(
            each.type == HOLDS_DATA and each.status is field_types.ConditionStatus.TRUE
            for each in status.conditions
        ),
        handed_generation=status.handed_generation,
    )


def _locations(group: stripe_group.StripeGroup) -> list[dict[str, object]]:
    return [
        {
            "shardIndex": index,
            "isDataShard": index < group.coding.data_shards,
            "poolName": place.device_id,
            "nodeName": place.node,
            "offset": place.offset_bytes,
            "sizeBytes": place.size_bytes,
        }
        for index, place in enumerate(group.places)
    ]


def _given(value: Any) -> Any:
    """What is absent has no value, rather than none."""
    if isinstance(value, dict):
        return {name: _given(part) for name, part in value.items() if part is not None}
    if isinstance(value, list):
        return [_given(part) for part in value]
    return value
