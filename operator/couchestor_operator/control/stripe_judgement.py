"""How well a stripe group is, from what nodes say of its shards and from nothing else."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from couchestor_domain.node_api import assignment, node_record
from couchestor_operator.control import storage_node, stripe_group

_STATES: Final = {
    node_record.ShardState.ASSIGNED: stripe_group.ShardHealth.HEALTHY,
    node_record.ShardState.OPEN: stripe_group.ShardHealth.HEALTHY,
    node_record.ShardState.SEALED: stripe_group.ShardHealth.HEALTHY,
    node_record.ShardState.REBUILDING: stripe_group.ShardHealth.REBUILDING,
    node_record.ShardState.DAMAGED: stripe_group.ShardHealth.CORRUPTED,
}
_WRITTEN: Final = (
    node_record.ShardState.OPEN,
    node_record.ShardState.SEALED,
    node_record.ShardState.DAMAGED,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Witnesses:
    """All that is known of nodes in one pass."""

    accounts: Mapping[str, storage_node.Account]
    """By node. One that is not there says nothing, which says nothing of it."""
    lost: Collection[str]
    """Nodes that are lost."""

    def shard(self, group: stripe_group.StripeGroup, index: int) -> node_record.ShardRecord | None:
        """What the node of a shard says of it, if that is where the shard is to be."""
        place = group.places[index]
        account = self.accounts.get(place.node)
        if account is None or place.node in self.lost:
            return None
        return account.shards.get(storage_node.key_at(group.name, index, place))


class _Shard(NamedTuple):
    health: stripe_group.ShardHealth | None
    why: str = ""


def judge(group: stripe_group.StripeGroup, seen: Witnesses) -> stripe_group.Told:
    """What is to be told of a group. Of nodes that say nothing it stays as it was told before."""
    before = group.told
    records = [seen.shard(group, index) for index in range(len(group.places))]
    holds_data = (
        (before is not None and before.holds_data)
        or any(
            record is not None and (record.written_bytes > 0 or record.state in _WRITTEN)
            for record in records
        )
        or is_open(group, seen)
    )
    shards = [
        _shard(group, index, record, seen, holds_data=holds_data)
        for index, record in enumerate(records)
    ]
    return stripe_group.Told(
        state=_state(group, [shard.health for shard in shards], records, seen, holds_data),
        shards=tuple(shard.health for shard in shards),
        errors=tuple(shard.why for shard in shards),
        holds_data=holds_data,
        handed_generation=group.generation if is_taken(group, seen) else group.handed_generation,
    )


def writer_group(
    group: stripe_group.StripeGroup, seen: Witnesses
) -> node_record.WriterGroup | None:
    """What the writer of a group says of it, as long as it has not sealed it."""
    account = seen.accounts.get(group.writer_node)
    if account is None:
        return None
    for writer in account.record.writers:
        if writer.name == group.writer:
            for found in writer.groups:
                if found.stripe == group.name:
                    return found
    return None


def is_open(group: stripe_group.StripeGroup, seen: Witnesses) -> bool:
    """Whether its writer says that it writes there."""
    found = writer_group(group, seen)
    return found is not None and found.open


def is_taken(group: stripe_group.StripeGroup, seen: Witnesses) -> bool:
    """Whether every member goes by this generation of the group."""
    return all(
        record is not None and record.generation == group.generation
        for record in (seen.shard(group, index) for index in range(len(group.places)))
    )


def is_ready(group: stripe_group.StripeGroup, seen: Witnesses) -> bool:
    """Whether a writer may use the group: every member goes by this generation, and none of them is
    behind the others."""
    if not is_taken(group, seen):
        return False
    states = {record.state for record in _records(group, seen)}
    assigned = node_record.ShardState.ASSIGNED
    return states in ({assigned}, {node_record.ShardState.OPEN})


def is_whole(group: stripe_group.StripeGroup, seen: Witnesses) -> bool:
    """Whether nothing is needed that lies elsewhere than where the group is to lie.

    Either all members are complete, or nothing was ever written: a member that stayed and has
    nothing at this generation keeps writers of lower ones from writing.
    """
    if not is_taken(group, seen):
        return False
    states = {record.state for record in _records(group, seen)}
    if states == {node_record.ShardState.SEALED}:
        return True
    unwritten = group.told is not None and not group.told.holds_data and not is_open(group, seen)
    return unwritten and states == {node_record.ShardState.ASSIGNED}


def _records(group: stripe_group.StripeGroup, seen: Witnesses) -> list[node_record.ShardRecord]:
    found = (seen.shard(group, index) for index in range(len(group.places)))
    return [record for record in found if record is not None]


def is_behind(record: node_record.ShardRecord, others: Iterable[node_record.ShardRecord]) -> bool:
    """Whether a member has nothing of a group that others have sealed."""
    sealed = node_record.ShardState.SEALED
    return record.state is node_record.ShardState.ASSIGNED and any(
        other.state is sealed for other in others
    )


def _shard(
    group: stripe_group.StripeGroup,
    index: int,
    record: node_record.ShardRecord | None,
    seen: Witnesses,
    *,
    holds_data: bool,
) -> _Shard:
    place = group.places[index]
    if place.node in seen.lost:
        return _Shard(stripe_group.ShardHealth.MISSING, f"node {place.node} is lost")
    account = seen.accounts.get(place.node)
    before = group.told
    if account is None:
        # Before it was told nothing: its node has not taken it, as far as anybody knows.
        if before is None:
            return _Shard(None)
        return _Shard(before.shards[index], before.errors[index])
    if record is not None and is_behind(record, _records(group, seen)):
        return _Shard(
            stripe_group.ShardHealth.MISSING, f"node {place.node} has nothing of it, and others do"
        )
    if record is not None:
        health = _STATES[record.state]
        why = "" if health is stripe_group.ShardHealth.HEALTHY else _why(record, place)
        return _Shard(health, why)
    if holds_data or (before is not None and before.shards[index] is not None):
        return _Shard(
            stripe_group.ShardHealth.MISSING, f"node {place.node} does not have it at this place"
        )
    return _Shard(None)


def _why(record: node_record.ShardRecord, place: assignment.ShardPlace) -> str:
    return f"node {place.node} says that it is {record.state.value}"


def _state(
    group: stripe_group.StripeGroup,
    shards: list[stripe_group.ShardHealth | None],
    records: list[node_record.ShardRecord | None],
    seen: Witnesses,
    holds_data: bool,
) -> stripe_group.State:
    health = stripe_group.ShardHealth
    bad_count = sum(shard not in (None, health.HEALTHY) for shard in shards)
    if holds_data and bad_count > group.coding.parity_shards:
        return stripe_group.State.FAILED
    if health.MISSING in shards or health.CORRUPTED in shards:
        return stripe_group.State.DEGRADED
    if health.REBUILDING in shards:
        return stripe_group.State.REBUILDING
    was_healthy = group.told is not None and group.told.state is stripe_group.State.HEALTHY
    sealed = all(
        record.state is node_record.ShardState.SEALED
        if record is not None
        else was_healthy and group.places[index].node not in seen.accounts
        for index, record in enumerate(records)
    )
    return stripe_group.State.HEALTHY if sealed else stripe_group.State.WRITING
