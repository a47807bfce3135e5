"""What holds for every ``NodeClient``, over a node that is in the test's hands."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Final

import memory_node
import pytest

from couchestor_domain import errors, geometry, ids
from couchestor_domain.node_api import assignment, contract, encoding_request, node_record
from couchestor_operator.ports import node_client

NODE: Final = "storage-1"
ELSEWHERE: Final = ids.DeviceId("f" * 32)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Harness:
    """A client and the node that it asks."""

    client: node_client.NodeClient
    endpoint: node_client.Endpoint
    node: memory_node.MemoryNode


def made_node() -> memory_node.MemoryNode:
    """The node of a harness."""
    return memory_node.MemoryNode(NODE, devices_count=2)


def assignment_of(
    node: memory_node.MemoryNode, *, number: int = 0, zone: int = 0, generation: int = 1
) -> assignment.Assignment:
    """A group of two shards, the first of which is here."""
    return assignment.Assignment(
        stripe=f"{node.name}-w0-{number}",
        generation=generation,
        writer_node=node.name,
        writer=f"{node.name}-w0",
        stripe_id=number,
        policy="cold",
        coding=geometry.StripeGeometry(1, 1),
        start_lba=number * 256,
        end_lba=(number + 1) * 256,
        usable=False,
        shards=(
            assignment.ShardPlace(
                node=node.name,
                device_id=next(iter(node.devices)),
                offset_bytes=zone * memory_node.ZONE_BYTES,
                size_bytes=memory_node.ZONE_BYTES,
            ),
            assignment.ShardPlace(
                node="storage-2",
                device_id=ELSEWHERE,
                offset_bytes=0,
                size_bytes=memory_node.ZONE_BYTES,
            ),
        ),
    )


def moved_away(old: assignment.Assignment) -> assignment.Assignment:
    """The same group, one generation on, with its first shard on another node."""
    elsewhere = dataclasses.replace(
        old.shards[0], node="storage-3", device_id=ids.DeviceId("e" * 32)
    )
    return dataclasses.replace(
        old, generation=old.generation + 1, shards=(elsewhere, old.shards[1])
    )


REQUEST: Final = encoding_request.EncodingRequest(
    volume="pvc-1",
    generation=2,
    size_bytes=1 << 30,
    policy="cold",
    coding=geometry.StripeGeometry(4, 2),
    stripe_bytes=1 << 20,
)


async def _all(harness: Harness) -> list[node_record.ShardRecord]:
    found: list[node_record.ShardRecord] = []
    begun = harness.node.revision
    page = await harness.client.shards(harness.endpoint, since=0, begun=begun)
    found += page.shards
    while page.more:
        page = await harness.client.shards(harness.endpoint, since=page.revision, begun=begun)
        found += page.shards
    return found


async def the_state_is_that_of_now(harness: Harness) -> None:
    before = await harness.client.state(harness.endpoint)
    assert before == harness.node.state()
    assert await harness.client.state(harness.endpoint) == before
    await harness.client.assign(harness.endpoint, assignment_of(harness.node))
    after = await harness.client.state(harness.endpoint)
    assert after.revision > before.revision
    assert after.devices[0].offered_zones == before.devices[0].offered_zones[1:]
    assert [group.stripe for group in after.writers[0].groups] == [f"{NODE}-w0-0"]


async def an_assignment_is_taken_once_and_becomes_usable_once(harness: Harness) -> None:
    wanted = assignment_of(harness.node)
    for _ in range(2):
        await harness.client.assign(harness.endpoint, wanted)
    (shard,) = await _all(harness)
    assert (shard.stripe, shard.generation, shard.shard_index) == (wanted.stripe, 1, 0)
    assert shard.state is node_record.ShardState.ASSIGNED
    revision = harness.node.revision
    await harness.client.assign(harness.endpoint, dataclasses.replace(wanted, usable=True))
    assert harness.node.revision > revision
    # A late one that says it is not does not take it back.
    await harness.client.assign(harness.endpoint, wanted)
    (group,) = (await harness.client.state(harness.endpoint)).writers[0].groups
    assert (group.usable, group.open, group.generation) == (True, False, 1)


async def a_higher_generation_replaces_and_a_lower_one_is_refused(harness: Harness) -> None:
    await harness.client.assign(harness.endpoint, assignment_of(harness.node, generation=2))
    await harness.client.assign(harness.endpoint, assignment_of(harness.node, generation=4))
    with pytest.raises(errors.VersionConflictError, match="at generation 4"):
        await harness.client.assign(harness.endpoint, assignment_of(harness.node, generation=3))
    (shard,) = await _all(harness)
    assert shard.generation == 4


async def what_a_node_will_never_take_is_refused_by_name(harness: Harness) -> None:
    wanted = assignment_of(harness.node)
    await harness.client.assign(harness.endpoint, wanted)
    other = dataclasses.replace(wanted, end_lba=wanted.end_lba + 1)
    taken = assignment_of(harness.node, number=1, zone=0)
    no_zone = assignment_of(harness.node, number=2, zone=1)
    odd = dataclasses.replace(no_zone.shards[0], offset_bytes=4096)
    no_zone = dataclasses.replace(no_zone, shards=(odd, no_zone.shards[1]))
    before = harness.node.state()
    for refused, why in (
        (other, contract.Refusal.DIFFERENT_CONTENT),
        (taken, contract.Refusal.ZONE_TAKEN),
        (no_zone, contract.Refusal.MALFORMED),
    ):
        with pytest.raises(errors.AssignmentRefusedError) as told:
            await harness.client.assign(harness.endpoint, refused)
        assert told.value.context["refusal"] is why
        assert NODE in told.value.message
    harness.node.refuses_zones = True
    with pytest.raises(errors.AssignmentRefusedError) as told:
        await harness.client.assign(harness.endpoint, assignment_of(harness.node, number=3, zone=3))
    assert told.value.context["refusal"] is contract.Refusal.NO_ROOM
    assert harness.node.state() == before


async def shards_are_told_in_pages_and_then_by_what_changed(harness: Harness) -> None:
    for number in range(8):
        wanted = assignment_of(harness.node, number=number, zone=number)
        await harness.client.assign(harness.endpoint, wanted)
    shards = await _all(harness)
    assert [shard.stripe for shard in shards] == [f"{NODE}-w0-{number}" for number in range(8)]
    since = harness.node.revision
    sealed = node_record.ShardState.SEALED
    harness.node.move_on(f"{NODE}-w0-5", sealed, written_bytes=4096)
    page = await harness.client.shards(harness.endpoint, since=since, begun=since)
    assert [(shard.stripe, shard.state) for shard in page.shards] == [(f"{NODE}-w0-5", sealed)]
    assert (page.more, page.revision) == (False, harness.node.revision)
    since = page.revision
    page = await harness.client.shards(harness.endpoint, since=since, begun=since)
    assert page.shards == ()


async def only_what_a_newer_generation_has_elsewhere_is_released(harness: Harness) -> None:
    old = assignment_of(harness.node)
    await harness.client.assign(harness.endpoint, old)
    with pytest.raises(errors.AssignmentRefusedError) as told:
        await harness.client.release(harness.endpoint, old.stripe, generation=2)
    assert told.value.context["refusal"] is contract.Refusal.HOLDS_DATA
    # It lies where it is to lie.
    await harness.client.release(harness.endpoint, old.stripe, generation=1)
    assert len(await _all(harness)) == 1
    await harness.client.assign(harness.endpoint, moved_away(old))
    # Nobody has said that the group is whole without it.
    assert len(await _all(harness)) == 1
    since = harness.node.revision
    for _ in range(2):
        await harness.client.release(harness.endpoint, old.stripe, generation=2)
    (gone,) = (await harness.client.shards(harness.endpoint, since=since, begun=since)).shards
    assert gone.state is node_record.ShardState.RELEASED
    assert await _all(harness) == []
    assert 0 in (await harness.client.state(harness.endpoint)).devices[0].offered_zones
    # What was never there is not there.
    await harness.client.release(harness.endpoint, "never-heard-of", generation=9)


async def what_a_node_has_lost_it_takes_again(harness: Harness) -> None:
    wanted = assignment_of(harness.node)
    await harness.client.assign(harness.endpoint, wanted)
    harness.node.lose_shards()
    assert await _all(harness) == []
    await harness.client.assign(harness.endpoint, wanted)
    (shard,) = await _all(harness)
    assert shard.state is node_record.ShardState.REBUILDING


async def who_asks_for_what_is_forgotten_is_told_to_begin_anew(harness: Harness) -> None:
    since = harness.node.revision
    for number in range(memory_node.TOMBSTONES_COUNT_MAX + 1):
        wanted = assignment_of(harness.node, number=number)
        await harness.client.assign(harness.endpoint, wanted)
        await harness.client.assign(harness.endpoint, moved_away(wanted))
        await harness.client.release(harness.endpoint, wanted.stripe, generation=2)
    with pytest.raises(errors.VersionConflictError, match="begin at 0"):
        await harness.client.shards(harness.endpoint, since=since, begun=since)
    assert await _all(harness) == []


async def all_shards_are_read_to_the_end_although_others_were_forgotten_before(
    harness: Harness,
) -> None:
    for number in range(8):
        wanted = assignment_of(harness.node, number=number, zone=number)
        await harness.client.assign(harness.endpoint, wanted)
    for number in range(8, 8 + memory_node.TOMBSTONES_COUNT_MAX + 2):
        wanted = assignment_of(harness.node, number=number, zone=8)
        await harness.client.assign(harness.endpoint, wanted)
        await harness.client.assign(harness.endpoint, moved_away(wanted))
        await harness.client.release(harness.endpoint, wanted.stripe, generation=2)
    live = [one for one in await _all(harness) if one.state is node_record.ShardState.ASSIGNED]
    assert [shard.stripe for shard in live] == [f"{NODE}-w0-{number}" for number in range(8)]


async def a_volume_is_asked_to_be_encoded_once_for_each_generation(harness: Harness) -> None:
    assert await harness.client.encoding(harness.endpoint, REQUEST.volume) is None
    accepted = await harness.client.encode(harness.endpoint, REQUEST)
    assert (accepted.volume, accepted.generation) == (REQUEST.volume, 2)
    assert accepted.phase is encoding_request.EncodingPhase.ACCEPTED
    further = dataclasses.replace(
        accepted, phase=encoding_request.EncodingPhase.ENCODING, encoded_bytes=4096
    )
    harness.node.encodings[REQUEST.volume] = further
    assert await harness.client.encode(harness.endpoint, REQUEST) == further
    assert await harness.client.encoding(harness.endpoint, REQUEST.volume) == further
    with pytest.raises(errors.VersionConflictError):
        await harness.client.encode(harness.endpoint, dataclasses.replace(REQUEST, generation=1))
    with pytest.raises(errors.AssignmentRefusedError):
        await harness.client.encode(harness.endpoint, dataclasses.replace(REQUEST, size_bytes=4096))
    again = await harness.client.encode(
        harness.endpoint, dataclasses.replace(REQUEST, generation=3)
    )
    assert (again.generation, again.phase) == (3, encoding_request.EncodingPhase.ACCEPTED)


Check = Callable[[Harness], Awaitable[None]]
CHECKS: Final[tuple[Check, ...]] = (
    the_state_is_that_of_now,
    an_assignment_is_taken_once_and_becomes_usable_once,
    a_higher_generation_replaces_and_a_lower_one_is_refused,
    what_a_node_will_never_take_is_refused_by_name,
    shards_are_told_in_pages_and_then_by_what_changed,
    only_what_a_newer_generation_has_elsewhere_is_released,
    what_a_node_has_lost_it_takes_again,
    who_asks_for_what_is_forgotten_is_told_to_begin_anew,
    all_shards_are_read_to_the_end_although_others_were_forgotten_before,
    a_volume_is_asked_to_be_encoded_once_for_each_generation,
)
