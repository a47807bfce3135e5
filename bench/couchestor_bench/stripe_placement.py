"""How even stripe groups lie in a cluster, and how many shards move when a node joins or leaves.

Pure computation over made-up clusters: the same on every machine but for the processor time.
"""

from __future__ import annotations

import collections
import math
import time
from collections.abc import Iterable, Mapping
from typing import Final

from couchestor_bench import results
from couchestor_domain import geometry, ids, units
from couchestor_domain.stripe_placement import choice, cluster, fair_share, rebalance

CODING: Final = geometry.StripeGeometry(4, 2)
GROUPS_COUNT: Final = 1000
SHARD_BYTES: Final = 256 * units.MIB
ZONES_COUNT: Final = 3
DEVICES_COUNT: Final = 4
MOVES_COUNT_MAX: Final = 100_000

Table = dict[ids.DeviceId, cluster.Device]


def node(number: int, *, capacity_bytes: int, zones_count: int = ZONES_COUNT) -> Table:
    """The devices of a node."""
    return {
        device_id: cluster.Device(
            device_id=device_id,
            host=f"node-{number}",
            zone=f"zone-{number % zones_count}",
            capacity_bytes=capacity_bytes,
            used_bytes=0,
        )
        for device_id in (
            ids.DeviceId(f"{number:016x}{slot:016x}") for slot in range(DEVICES_COUNT)
        )
    }


def fleet(nodes_count: int, *, sizes_tib: tuple[int, ...]) -> Table:
    """Nodes whose devices are of these sizes in turn."""
    table: Table = {}
    for number in range(nodes_count):
        size_tib = sizes_tib[number // ZONES_COUNT % len(sizes_tib)]
        table |= node(number, capacity_bytes=size_tib * units.TIB)
    return table


def fill(table: Table) -> list[cluster.Group]:
    """Place groups one after the other."""
    groups = []
    for number in range(GROUPS_COUNT):
        name = f"group-{number}"
        placed = choice.place(table.values(), CODING, group_id=name, shard_bytes=SHARD_BYTES)
        groups.append(cluster.Group(name, placed.members, SHARD_BYTES))
        take(table, placed.members)
    return groups


def take(table: Table, members: Iterable[ids.DeviceId]) -> None:
    """Have these devices hold one shard more each."""
    for member in members:
        table[member] = cluster.with_used(table[member], SHARD_BYTES)


def worst_percent(table: Table, groups: list[cluster.Group], *, of_nodes: bool = False) -> float:
    """How far the device, or the node, that is furthest off is from its fair share."""
    fair: Mapping[ids.DeviceId, float] = fair_share.shares(table.values(), groups, CODING)
    held = collections.Counter(member for group in groups for member in group.members)
    wanted: collections.Counter[str] = collections.Counter()
    found: collections.Counter[str] = collections.Counter()
    for device_id, amount in fair.items():
        name = table[device_id].host if of_nodes else device_id
        wanted[name] += round(amount)
        found[name] += held[device_id] * SHARD_BYTES
    return max(abs(found[name] - amount) / amount * 100 for name, amount in wanted.items())


def measure(nodes_count: int, *, sizes_tib: tuple[int, ...]) -> dict[str, float]:
    """Fill a cluster, let a node join, let one leave."""
    table = fleet(nodes_count, sizes_tib=sizes_tib)
    started_seconds = time.process_time()
    groups = fill(table)
    place_seconds = time.process_time() - started_seconds
    found: dict[str, float] = {
        "shards_of_smallest_device": min(
            collections.Counter(member for group in groups for member in group.members).values()
        ),
        "placed_off_percent_max": worst_percent(table, groups),
        "placed_node_off_percent_max": worst_percent(table, groups, of_nodes=True),
        "place_ms_per_group": place_seconds * 1000 / GROUPS_COUNT,
    }
    found |= _joined(dict(table), groups, capacity_bytes=max(sizes_tib) * units.TIB)
    found |= _left(dict(table), groups)
    return {name: round(value, 3) for name, value in found.items()}


def _joined(table: Table, groups: list[cluster.Group], *, capacity_bytes: int) -> dict[str, float]:
    table |= node(99 * ZONES_COUNT, capacity_bytes=capacity_bytes)
    fair = fair_share.shares(table.values(), groups, CODING)
    held = collections.Counter(member for group in groups for member in group.members)
    # What is above the fair share has to go, whoever decides: no plan gets there with less.
    needed = sum(max(0.0, held[each] - amount / SHARD_BYTES) for each, amount in fair.items())
    started_seconds = time.process_time()
    moves = rebalance.balance(table.values(), groups, CODING, moves_count_max=MOVES_COUNT_MAX)
    seconds = time.process_time() - started_seconds
    members = {group.group_id: list(group.members) for group in groups}
    for move in moves:
        members[move.group_id][move.shard_index] = move.target
        take(table, [move.target])
        table[move.source] = cluster.with_used(table[move.source], -SHARD_BYTES)
    after = [cluster.Group(name, tuple(each), SHARD_BYTES) for name, each in members.items()]
    return {
        "joined_moves": len(moves),
        "joined_moves_for_exact_shares": math.ceil(needed),
        "joined_moved_percent": len(moves) * 100 / (GROUPS_COUNT * CODING.shards_count),
        "joined_off_percent_max": worst_percent(table, after),
        "joined_plan_seconds": seconds,
    }


def _left(table: Table, groups: list[cluster.Group]) -> dict[str, float]:
    gone = {device_id for device_id, device in table.items() if device.host == "node-0"}
    there = {each: device for each, device in table.items() if each not in gone}
    moves_count = 0
    after = []
    for group in groups:
        lost = [index for index, member in enumerate(group.members) if member in gone]
        members = group.members
        if lost:
            members = choice.replace(there.values(), CODING, group, lost=lost).members
            take(there, [members[index] for index in lost])
        moves_count += sum(old != new for old, new in zip(group.members, members, strict=True))
        after.append(group._replace(members=members))
    held = collections.Counter(member for group in groups for member in group.members)
    return {
        "left_moves": moves_count,
        "left_shards_of_the_node": sum(held[each] for each in gone),
        "left_off_percent_max": worst_percent(there, after),
    }


def main() -> None:
    """Measure, write the figures, print them."""
    found = {
        "12 nodes, equal": measure(12, sizes_tib=(4,)),
        "12 nodes, 2 to 8 TiB": measure(12, sizes_tib=(2, 4, 8)),
        "48 nodes, 2 to 8 TiB": measure(48, sizes_tib=(2, 4, 8)),
    }
    for title, figures in found.items():
        print(title)
        for name, value in figures.items():
            print(f"{name:>34} {value:g}")
    print(f"\nraw: {results.write('stripe-placement', found)}")


if __name__ == "__main__":
    main()
