"""Stripe groups are made, handed over, moved off lost nodes, and told of as nodes say."""

from __future__ import annotations

import dataclasses
import itertools

import assignment_stage
import memory_node
import pytest

from couchestor_domain import errors, geometry, ids
from couchestor_domain.node_api import node_record
from couchestor_operator.control import stripe_group
from couchestor_operator.services import leading_assignment, node_accounts, stripe_assigner

State = stripe_group.State
Health = stripe_group.ShardHealth
PASSES_OF_GRACE = int(assignment_stage.GRACE_SECONDS / assignment_stage.PASS_SECONDS)


def _usable(stage: assignment_stage.Stage, node: str) -> dict[str, bool]:
    (writer,) = stage.node(node).writers.values()
    return {name: group.usable for name, group in writer.groups.items()}


async def test_every_writer_has_groups_ahead_of_need_and_then_nothing_more_is_done() -> None:
    stage = assignment_stage.Stage(is_strict=True)
    operator = stage.operator()
    first = await stage.run(operator)
    assert (first.made_count, first.problems) == (8, [])
    assert _usable(stage, "node-0") == {"node-0-w0-0": False, "node-0-w0-1": False}
    await stage.run(operator, 2)
    for number in range(4):
        names = [f"node-{number}-w0-{stripe}" for stripe in range(2)]
        assert _usable(stage, f"node-{number}") == dict.fromkeys(names, True)
    for group in stage.groups():
        assert len({place.node for place in group.places}) == 3
        told = assignment_stage.told_of(group)
        assert (told.state, told.healthy_count, told.holds_data) == (State.WRITING, 3, False)
    # Nothing changes: nothing is written, and nothing asked but how nodes are.
    await stage.run(operator)
    stage.stripes.writes.clear()
    stage.client.asked.clear()
    last = await stage.run(operator, 3)
    assert stage.stripes.writes == []
    assert {what for _, what in stage.client.asked} == {"state"}
    assert (last.stock_count, last.states) == (8, {State.WRITING: 8})


async def test_a_group_that_is_opened_is_no_stock_and_one_that_is_sealed_is_healthy() -> None:
    stage = assignment_stage.Stage()
    operator = stage.operator()
    await stage.run(operator, 3)
    stage.write("node-0-w0-0", seal=False)
    await stage.run(operator, 3)
    assert set(_usable(stage, "node-0")) == {f"node-0-w0-{number}" for number in range(3)}
    told = assignment_stage.told_of(stage.group("node-0-w0-0"))
    assert (told.state, told.holds_data) == (State.WRITING, True)
    stage.write("node-0-w0-0", seal=True)
    await stage.run(operator, 3)
    told = assignment_stage.told_of(stage.group("node-0-w0-0"))
    assert (told.state, told.healthy_count) == (State.HEALTHY, 3)
    # The writer that sealed it is not given it again.
    assert set(_usable(stage, "node-0")) == {"node-0-w0-1", "node-0-w0-2"}


async def test_numbers_and_blocks_are_never_given_twice() -> None:
    stage = assignment_stage.Stage()
    operator = stage.operator()
    await stage.run(operator, 3)
    stage.write("node-0-w0-1", seal=False)
    await stage.run(operator, 1)
    first = stage.groups()
    # People delete ECStripes, and the policy is of another coding now.
    for name in list(stage.stripes.documents):
        if name.startswith("node-0"):
            del stage.stripes.documents[name]
    stage.put_policy(geometry.StripeGeometry(1, 1))
    await stage.run(operator, 2)
    every = {group.name: group for group in (*first, *stage.groups())}
    assert {name for name in every if name.startswith("node-0")} == {
        f"node-0-w0-{number}" for number in range(5)
    }
    ranges = sorted(
        (group.start_lba, group.end_lba) for group in every.values() if group.writer == "node-0-w0"
    )
    for (_, end), (start, _) in itertools.pairwise(ranges):
        assert end <= start


async def _with_data(stage: assignment_stage.Stage) -> stripe_assigner.StripeAssigner:
    """A sealed group of each node's writer."""
    operator = stage.operator()
    await stage.run(operator, 3)
    for name in list(stage.stripes.documents):
        if name.endswith("-0"):
            stage.write(name, seal=False)
            stage.write(name, seal=True)
    await stage.run(operator, 3)
    return operator


def _on(stage: assignment_stage.Stage, node: str) -> list[str]:
    return [
        group.name for group in stage.groups() if node in {place.node for place in group.places}
    ]


async def test_a_lost_node_s_shards_get_new_places_after_the_grace_and_no_others_move() -> None:
    stage = assignment_stage.Stage(nodes_count=6, is_strict=True)
    operator = await _with_data(stage)
    before = {group.name: group for group in stage.groups()}
    affected = _on(stage, "node-1")
    assert affected
    stage.lose("node-1")
    await stage.run(operator, PASSES_OF_GRACE)
    assert {group.name: group.places for group in stage.groups()} == {
        name: group.places for name, group in before.items()
    }
    stage.stripes.writes.clear()
    summary = await stage.run(operator)
    assert summary.lost == {"node-1"}
    for name in affected:
        # Told before it is moved.
        assert [what for what, one in stage.stripes.writes if one == name] == ["tell", "move"]
        assert assignment_stage.told_of(stage.group(name)).state is State.DEGRADED
    for group in stage.groups():
        if group.name not in before:
            continue
        old = before[group.name]
        for index, (was, now) in enumerate(zip(old.places, group.places, strict=True)):
            assert (was == now) is (was.node != "node-1"), (group.name, index)
        assert group.generation == old.generation + (group.name in affected)
    await stage.run(operator)
    for name in affected:
        told = assignment_stage.told_of(stage.group(name))
        assert told.state is State.REBUILDING
        stage.rebuild(name)
    await stage.run(operator, 2)
    for name in affected:
        told = assignment_stage.told_of(stage.group(name))
        assert told.healthy_count == 3
        assert told.state in (State.HEALTHY, State.WRITING)


async def test_a_node_that_comes_back_late_keeps_its_shards_until_others_are_whole() -> None:
    stage = assignment_stage.Stage(nodes_count=6)
    operator = await _with_data(stage)
    affected = [name for name in _on(stage, "node-1") if name.endswith("-0")]
    stage.lose("node-1")
    await stage.run(operator, PASSES_OF_GRACE + 1)
    stage.bring_back("node-1")
    summary = await stage.run(operator, 3)
    # Not whole yet elsewhere: what it has is kept.
    assert summary.released_count == 0
    held = {
        stripe
        for (stripe, *_), shard in stage.node("node-1").shards.items()
        if shard.state is node_record.ShardState.SEALED
    }
    assert held == set(affected)
    for name in affected:
        stage.rebuild(name)
    await stage.run(operator, 3)
    for (stripe, *_), shard in stage.node("node-1").shards.items():
        assert shard.state is node_record.ShardState.RELEASED or stripe not in affected
    for name in affected:
        assert assignment_stage.told_of(stage.group(name)).state is State.HEALTHY


async def test_a_node_that_comes_back_within_the_grace_was_never_away() -> None:
    stage = assignment_stage.Stage(nodes_count=6)
    operator = await _with_data(stage)
    before = stage.groups()
    for _ in range(3):
        stage.lose("node-1")
        await stage.run(operator, PASSES_OF_GRACE - 1)
        stage.bring_back("node-1")
        await stage.run(operator, 3)
    assert [group.places for group in stage.groups()] == [group.places for group in before]


@pytest.mark.parametrize(
    ("fault", "ready"), [("unreachable", True), ("failing", True), ("failing", False)]
)
async def test_what_is_not_known_makes_no_node_lost(fault: str, ready: bool) -> None:
    stage = assignment_stage.Stage(nodes_count=6)
    operator = await _with_data(stage)
    before = [(group.places, group.told) for group in stage.groups()]
    getattr(stage.client, fault).add("node-1")
    stage.change("node-1", ready=ready)
    summary = await stage.run(operator, 10 * PASSES_OF_GRACE)
    assert summary.lost == frozenset()
    assert "node-1" in summary.faults or stage.client.asked[-1][0] != "node-1"
    assert [(group.places, group.told) for group in stage.groups()] == before


async def test_nothing_new_is_placed_on_or_made_for_a_node_that_says_nothing() -> None:
    stage = assignment_stage.Stage(nodes_count=5)
    stage.client.failing.add("node-4")
    await stage.run(stage.operator(), 3)
    assert {group.writer_node for group in stage.groups()} == {f"node-{n}" for n in range(4)}
    assert _on(stage, "node-4") == []


async def test_a_node_that_people_declare_dead_is_lost_at_once() -> None:
    stage = assignment_stage.Stage(nodes_count=6)
    operator = await _with_data(stage)
    stage.change("node-1", declared_lost=True)
    assert (await stage.run(operator)).lost == {"node-1"}
    assert _on(stage, "node-1") == []


async def test_a_node_that_kubernetes_has_no_more_is_lost_after_the_grace() -> None:
    stage = assignment_stage.Stage(nodes_count=6)
    operator = await _with_data(stage)
    del stage.directory["node-1"]
    assert (await stage.run(operator, PASSES_OF_GRACE)).lost == frozenset()
    assert _on(stage, "node-1")
    assert (await stage.run(operator)).lost == {"node-1"}
    assert _on(stage, "node-1") == []


async def test_a_new_leader_counts_the_grace_anew() -> None:
    stage = assignment_stage.Stage(nodes_count=6)
    await _with_data(stage)
    stage.lose("node-1")
    for _ in range(3):
        assert (await stage.run(stage.operator(), PASSES_OF_GRACE)).lost == frozenset()


async def test_when_most_nodes_seem_lost_none_is() -> None:
    stage = assignment_stage.Stage(nodes_count=6)
    operator = await _with_data(stage)
    before = [(group.places, group.told) for group in stage.groups()]
    for number in range(4):
        stage.lose(f"node-{number}")
    summary = await stage.run(operator, 2 * PASSES_OF_GRACE)
    assert summary.lost == frozenset()
    assert "4 of 6 nodes seem to be lost" in summary.problems[0]
    assert [(group.places, group.told) for group in stage.groups()] == before


async def test_writers_that_are_gone_for_good_do_not_keep_others_from_being_lost() -> None:
    stage = assignment_stage.Stage(nodes_count=0)
    for number in range(6):
        stage.add_node(f"node-{number}", zones_count=64)
    operator = await _with_data(stage)
    for name in ("node-0", "node-1", "node-2"):
        # One after the other, each with time to rebuild.
        stage.lose(name)
        await stage.run(operator, PASSES_OF_GRACE + 3)
        for group in stage.groups():
            stage.rebuild(group.name)
        await stage.run(operator, 4)
        del stage.directory[name]
    assert _on(stage, "node-0") == _on(stage, "node-1") == _on(stage, "node-2") == []
    assert {group.writer_node for group in stage.groups()} == {f"node-{n}" for n in range(6)}
    stage.add_node("node-9")
    stage.lose("node-3")
    assert (await stage.run(operator, PASSES_OF_GRACE + 2)).lost == {"node-3"}


async def test_what_can_not_be_rebuilt_keeps_its_places_and_comes_back_with_its_nodes() -> None:
    stage = assignment_stage.Stage(nodes_count=8)
    operator = await _with_data(stage)
    group = stage.group("node-0-w0-0")
    gone = [place.node for place in group.places[:2]]
    for node in gone:
        stage.lose(node)
    await stage.run(operator, PASSES_OF_GRACE + 2)
    after = stage.group(group.name)
    told = assignment_stage.told_of(after)
    assert (told.state, told.healthy_count) == (State.FAILED, 1)
    assert told.shards == (Health.MISSING, Health.MISSING, Health.HEALTHY)
    assert told.errors[0] == f"node {gone[0]} is lost"
    assert after.places == group.places
    for node in gone:
        stage.bring_back(node)
    await stage.run(operator, 3)
    assert assignment_stage.told_of(stage.group(group.name)).state is State.HEALTHY


async def test_without_a_spare_device_a_group_stays_degraded_and_people_are_told() -> None:
    stage = assignment_stage.Stage(nodes_count=3)
    operator = await _with_data(stage)
    stage.lose("node-1")
    summary = await stage.run(operator, PASSES_OF_GRACE + 2)
    told = assignment_stage.told_of(stage.group("node-0-w0-0"))
    assert (told.state, told.healthy_count) == (State.DEGRADED, 2)
    assert summary.unplaced_count > 0
    assert any("add nodes or devices" in problem for problem in summary.problems)
    stage.add_node("node-9")
    await stage.run(operator, 2)
    stage.rebuild("node-0-w0-0")
    await stage.run(operator)
    assert assignment_stage.told_of(stage.group("node-0-w0-0")).state is State.HEALTHY


async def test_shards_on_a_failed_device_move_and_damaged_ones_are_left_to_their_node() -> None:
    stage = assignment_stage.Stage(nodes_count=5)
    operator = await _with_data(stage)
    group = stage.group("node-0-w0-0")
    victim = stage.node(group.places[0].node)
    victim.move_on(group.name, node_record.ShardState.DAMAGED, written_bytes=4096)
    await stage.run(operator)
    told = assignment_stage.told_of(stage.group(group.name))
    assert (told.state, told.shards[0]) == (State.DEGRADED, Health.CORRUPTED)
    assert stage.group(group.name).places == group.places
    victim.devices[group.places[0].device_id].health = node_record.DeviceHealth.FAILED
    victim.revision += 1
    await stage.run(operator)
    assert stage.group(group.name).places[0].node != victim.name


async def test_room_that_is_not_there_is_looked_for_elsewhere() -> None:
    stage = assignment_stage.Stage(nodes_count=5)
    liar = stage.node("node-1")
    liar.refuses_zones = True
    operator = stage.operator()
    await stage.run(operator, 8)
    assert _on(stage, "node-1") == []
    # It is not asked zone by zone.
    asked = [what for name, what in stage.client.asked if name == "node-1" and what == "assign"]
    assert len(asked) < 20
    assert False in _usable(stage, "node-0").values()
    for group in stage.groups():
        stage.rebuild(group.name)
    await stage.run(operator, 2)
    for number in range(5):
        assert set(_usable(stage, f"node-{number}").values()) == {True}
    for group in stage.groups():
        told = assignment_stage.told_of(group)
        assert (told.state, told.healthy_count) == (State.WRITING, 3)


async def test_a_lying_capacity_gets_one_shard_of_each_group_at_most() -> None:
    stage = assignment_stage.Stage(nodes_count=4)
    stage.add_node("node-9", zones_count=1000)
    await stage.run(stage.operator(), 3)
    for group in stage.groups():
        assert sum(place.node == "node-9" for place in group.places) <= 1


async def test_two_groups_in_one_zone_are_parted() -> None:
    stage = assignment_stage.Stage(nodes_count=5)
    operator = stage.operator()
    await stage.run(operator, 3)
    first, second = stage.group("node-0-w0-0"), stage.group("node-3-w0-1")
    # As a stale look of another leader would have made it.
    shared = dataclasses.replace(
        second, places=(first.places[0], *second.places[1:]), generation=second.generation + 1
    )
    await stage.stripes.move(shared)
    await stage.run(operator, 3)
    stage.rebuild(second.name)
    await stage.run(operator)
    taken = [
        (place.device_id, place.offset_bytes) for group in stage.groups() for place in group.places
    ]
    assert len(taken) == len(set(taken))
    assert stage.group(first.name).places == first.places
    assert assignment_stage.told_of(stage.group(second.name)).healthy_count == 3


async def test_a_device_that_two_nodes_claim_is_left_as_it_is() -> None:
    stage = assignment_stage.Stage(nodes_count=5)
    operator = await _with_data(stage)
    before = {group.name for group in stage.groups()}
    victim = next(iter(stage.node("node-3").devices))
    thief = stage.node("node-0")
    thief.devices[victim] = memory_node.Device(zones_count=16)
    thief.revision += 1
    for name in list(stage.stripes.documents):
        if name.endswith("-1"):
            stage.write(name, seal=False)
    await stage.run(operator, 3)
    after = stage.groups()
    assert len(after) > len(before)
    for group in after:
        # Nothing moves off it, and nothing new goes there.
        assert group.generation == 1, group
        assert group.name in before or victim not in group.members


async def test_a_writer_that_two_nodes_claim_stays_with_the_first() -> None:
    stage = assignment_stage.Stage(nodes_count=4)
    operator = stage.operator()
    await stage.run(operator, 2)
    stage.node("node-0").writers["node-3-w0"] = memory_node.Writer()
    stage.node("node-0").revision += 1
    stage.write("node-3-w0-0", seal=False)
    await stage.run(operator, 2)
    writer_nodes = {group.writer_node for group in stage.groups() if group.writer == "node-3-w0"}
    assert writer_nodes == {"node-3"}


@pytest.mark.parametrize("why", ["gone", "too wide"])
async def test_without_a_policy_that_can_be_used_nothing_is_made_and_people_are_told(
    why: str,
) -> None:
    stage = assignment_stage.Stage(nodes_count=4)
    if why == "gone":
        stage.policies.policies.clear()
    else:
        stage.put_policy(geometry.StripeGeometry(4, 2))
    summary = await stage.run(stage.operator())
    assert stage.groups() == []
    expected = "there is no ErasureCodingPolicy cold" if why == "gone" else "6 devices are needed"
    assert expected in summary.problems[0]


async def test_an_edited_policy_is_for_groups_that_are_made_then() -> None:
    stage = assignment_stage.Stage(nodes_count=5)
    operator = await _with_data(stage)
    stage.put_policy(geometry.StripeGeometry(3, 1))
    stage.lose("node-1")
    await stage.run(operator, PASSES_OF_GRACE + 1)
    stage.write("node-0-w0-1", seal=False)
    await stage.run(operator)
    widths = {group.stripe_id: len(group.places) for group in stage.groups()}
    assert {stripe_id: width for stripe_id, width in widths.items() if stripe_id < 2} == {
        0: 3,
        1: 3,
    }
    assert max(widths.values()) == 4


async def test_a_pass_does_so_much_and_leaves_the_rest_to_the_next() -> None:
    stage = assignment_stage.Stage(nodes_count=8)
    operator = stage.operator(made_count_max=3, writes_count_max=5, sent_count_max=4)
    for _ in range(4):
        before = len(stage.stripes.writes), len(stage.client.asked)
        summary = await stage.run(operator)
        assert summary.made_count <= 3
        assert len(stage.stripes.writes) - before[0] <= 5 + 3
        sent = [what for _, what in stage.client.asked[before[1] :] if what == "assign"]
        assert len(sent) <= 4
    await stage.run(operator, 30)
    assert len(stage.groups()) == 16
    assert {assignment_stage.told_of(group).healthy_count for group in stage.groups()} == {3}


async def test_a_node_that_fails_is_asked_ever_more_seldom() -> None:
    stage = assignment_stage.Stage(nodes_count=4)
    accounts = node_accounts.NodeAccounts(stage.client, stage.clock)
    endpoint = stage.endpoint_of(stage.directory["node-0"])
    stage.client.failing.add("node-0")
    asked_at = []
    for second in range(300):
        before = len(stage.client.asked)
        await accounts.look([endpoint])
        if len(stage.client.asked) > before:
            asked_at.append(second)
        stage.clock.go(1.0)
    assert asked_at == [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]
    stage.client.failing.clear()
    stage.clock.go(60.0)
    assert list((await accounts.look([endpoint])).accounts) == ["node-0"]


async def test_shards_are_read_once_and_then_by_what_changed() -> None:
    stage = assignment_stage.Stage(nodes_count=4)
    await stage.run(stage.operator(), 3)
    accounts = node_accounts.NodeAccounts(stage.client, stage.clock)
    endpoint = stage.endpoint_of(stage.directory["node-0"])
    node = stage.node("node-0")
    for _ in range(2):
        looked = await accounts.look([endpoint])
        assert dict(looked.accounts["node-0"].shards) == node.shards
    asked = [what for _, what in stage.client.asked].count("shards")
    await accounts.look([endpoint])
    assert [what for _, what in stage.client.asked].count("shards") == asked
    # One that forgot what was released is read anew; so is one that was set up anew.
    node.lose_shards()
    looked = await accounts.look([endpoint])
    assert dict(looked.accounts["node-0"].shards) == {}
    stage.client.nodes["node-0"] = other = memory_node.MemoryNode("node-0")
    other.name = "node-0"
    looked = await accounts.look([endpoint])
    assert dict(looked.accounts["node-0"].shards) == {}


async def test_a_shard_that_its_node_has_lost_is_missing_and_taken_again() -> None:
    stage = assignment_stage.Stage(nodes_count=4)
    operator = await _with_data(stage)
    group = stage.group("node-0-w0-0")
    node = group.places[1].node
    stage.node(node).lose_shards()
    await stage.run(operator)
    told = assignment_stage.told_of(stage.group(group.name))
    assert (told.state, told.shards[1]) == (State.DEGRADED, Health.MISSING)
    await stage.run(operator)
    told = assignment_stage.told_of(stage.group(group.name))
    assert (told.state, told.shards[1]) == (State.REBUILDING, Health.REBUILDING)


async def test_whoever_loses_the_lease_in_the_middle_writes_nothing_more() -> None:
    for writes_count in range(6):
        stage = assignment_stage.Stage(nodes_count=4)
        left = [writes_count]

        def is_leading(left: list[int] = left) -> bool:
            left[0] -= 1
            return left[0] >= 0

        operator = stage.operator(
            stripes=leading_assignment.LeadingStripes(stage.stripes, is_leading),
            client=leading_assignment.LeadingNodes(stage.client, is_leading),
        )
        with pytest.raises(errors.LeaseLostError):
            await operator.run()
        assert len(stage.stripes.writes) == writes_count
        assert "assign" not in {what for _, what in stage.client.asked}


async def test_what_others_made_is_left_alone() -> None:
    stage = assignment_stage.Stage(nodes_count=4)
    operator = stage.operator()
    await stage.run(operator, 2)
    theirs = stage.stripes.documents["node-0-w0-0"]
    theirs["metadata"].pop("annotations")
    before = dict(theirs)
    summary = await stage.run(operator, 2)
    assert stage.stripes.documents["node-0-w0-0"] == before
    # Its shards are of no group of ours, and stay.
    assert summary.orphans_count == 3
    assert ids.DeviceId(theirs["spec"]["shardLocations"][0]["poolName"])
