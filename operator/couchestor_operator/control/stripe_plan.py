"""What is to be done about stripe groups: new ones, new places, what nodes are to be told. Pure."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from couchestor_domain import errors, geometry, units
from couchestor_domain.node_api import assignment, node_record
from couchestor_domain.stripe_placement import choice, cluster, protection
from couchestor_operator.control import stripe_group, stripe_judgement, stripe_ledger


class NoPlace(NamedTuple):
    """Why something could not be placed."""

    why: str


class Placed(NamedTuple):
    """A group as it is to be, and what it survives then."""

    group: stripe_group.StripeGroup
    protection: protection.Protection


# -- places --------------------------------------------------------------------------------------


def misplaced(group: stripe_group.StripeGroup, ledger: stripe_ledger.Ledger) -> list[int]:
    """Indices of shards that cannot be, or come to be, where they are to be."""
    seen = ledger.scene.seen
    records = [seen.shard(group, index) for index in range(len(group.places))]
    known = [record for record in records if record is not None]
    found = []
    for index, (place, record) in enumerate(zip(group.places, records, strict=True)):
        if place.node in seen.lost:
            found.append(index)
            continue
        if place.node not in seen.accounts:
            continue
        zone = stripe_ledger.Zone(place.device_id, place.offset_bytes)
        if record is None:
            cannot_be = zone in ledger.scene.refused or ledger.is_others(group, zone)
        else:
            cannot_be = stripe_judgement.is_behind(record, known)
        if cannot_be or not ledger.has_device(place.node, place.device_id):
            found.append(index)
    return found


def why_not_moved(group: stripe_group.StripeGroup, lost: Collection[int]) -> str | None:
    """Why shards of a group cannot get new places now; None: they can.

    A writer that was away may still go by the last generation that was usable, and reach members
    of that time which were away, too. What keeps it from writing where nobody looks are members
    that stay: they take nothing from a writer of a lower generation than theirs. So of the members
    that all knew one generation at once, not more than m may be moved before all know another one.
    """
    if group.handed_generation == 0:
        return None
    moved = _moved_shards(group, lost)
    if len(moved) <= group.coding.parity_shards:
        return None
    return (
        f"{len(moved)} of them would have moved since all members last knew of each other, and no"
        f" more than {group.coding.parity_shards} may: bring nodes of the others back"
    )


def _moved_shards(group: stripe_group.StripeGroup, lost: Collection[int]) -> frozenset[int]:
    before = frozenset() if group.handed_generation == group.generation else group.moved_shards
    return before | frozenset(lost)


def replaced(
    group: stripe_group.StripeGroup, lost: Collection[int], ledger: stripe_ledger.Ledger
) -> Placed | NoPlace:
    """The group with new places for these shards, one generation on."""
    devices = ledger.devices(shard_bytes=group.shard_bytes, exact=False)
    known = {device.device_id for device in devices}
    # Of a node that says nothing: it counts where shards of the group must not crowd.
    devices += [
        cluster.Device(
            device_id=place.device_id,
            host=place.node,
            zone=ledger.scene.nodes[place.node].zone if place.node in ledger.scene.nodes else "",
            capacity_bytes=1,
            used_bytes=1,
            usable=False,
        )
        for index, place in enumerate(group.places)
        if index not in lost and place.device_id not in known
    ]
    try:
        found = choice.replace(
            devices,
            group.coding,
            cluster.Group(group.name, group.members, group.shard_bytes),
            lost=lost,
        )
    except (errors.StoreFullError, errors.StoreReadOnlyError) as exc:
        return NoPlace(exc.message)
    places = tuple(
        ledger.take(found.members[index], shard_bytes=group.shard_bytes) if index in lost else place
        for index, place in enumerate(group.places)
    )
    moved = dataclasses.replace(
        group,
        places=places,
        generation=group.generation + 1,
        moved_shards=_moved_shards(group, lost),
    )
    return Placed(moved, found.protection)


# -- groups ahead of need ------------------------------------------------------------------------


class Want(NamedTuple):
    """A writer that has fewer groups ahead of need than it should."""

    node: str
    writer: str
    stripe_id_next: int
    """The lowest number that it may be given."""
    lacking_count: int
    unseen: str
    """A group that the writer was given and no ECStripe is known of: either it was deleted, or what
    is at hand is old, and the writer lacks none. Empty: there is none."""


def is_stock(told: stripe_group.Told, *, is_open: bool) -> bool:
    """Whether a group waits to be written to."""
    return not told.holds_data and not is_open and told.state is not stripe_group.State.FAILED


def wants(
    scene: stripe_ledger.Scene, told: Mapping[str, stripe_group.Told], *, stock_count: int
) -> Iterator[Want]:
    """Writers of nodes that are there, those that have least first."""
    stock: collections.Counter[str] = collections.Counter()
    next_ids: dict[str, int] = {}
    owners: dict[str, str] = {}
    for name in sorted(scene.groups):
        group = scene.groups[name]
        owners.setdefault(group.writer, group.writer_node)
        next_ids[group.writer] = max(next_ids.get(group.writer, 0), group.stripe_id + 1)
        is_open = stripe_judgement.is_open(group, scene.seen)
        if name in told and not group.is_being_deleted and is_stock(told[name], is_open=is_open):
            stock[group.writer] += 1
    found = []
    for node_name in sorted(scene.seen.accounts):
        node = scene.nodes.get(node_name)
        record = scene.seen.accounts[node_name].record
        if node is None or not node.selected or node_name in scene.seen.lost:
            continue
        if record.health not in stripe_ledger.TAKES_SHARDS:
            continue
        for writer in record.writers:
            # Two nodes say that they have it: it stays the first one's.
            if owners.setdefault(writer.name, node_name) != node_name:
                continue
            lacking = stock_count - stock[writer.name]
            if lacking > 0:
                known_id = next_ids.get(writer.name, 0)
                next_id = max(known_id, writer.stripe_id_next)
                unseen = stripe_group.name_of(writer.name, next_id - 1)
                found.append(
                    Want(
                        node=node_name,
                        writer=writer.name,
                        stripe_id_next=next_id,
                        lacking_count=lacking,
                        unseen=unseen if next_id > known_id else "",
                    )
                )
    yield from sorted(found, key=lambda want: (-want.lacking_count, want.node, want.writer))


def next_group(
    want: Want,
    *,
    number: int,
    policy: str,
    coding: geometry.StripeGeometry,
    ledger: stripe_ledger.Ledger,
) -> Placed | NoPlace:
    """The next group of a writer.

    Args:
        number: How many it was given in this pass already.
    """
    stripe_id = want.stripe_id_next + number
    if stripe_id > stripe_group.STRIPE_ID_MAX:
        return NoPlace(f"writer {want.writer} has used up its numbers: give it another name")
    bytes_max = stripe_group.LBA_STRIDE * units.BLOCK_BYTES // coding.data_shards
    zone_bytes = ledger.zone_bytes(bytes_max=bytes_max)
    if zone_bytes is None:
        return NoPlace("no node that is there has a healthy device with a zone to give")
    try:
        found = choice.place(
            ledger.devices(shard_bytes=zone_bytes, exact=True),
            coding,
            group_id=stripe_group.name_of(want.writer, stripe_id),
            shard_bytes=zone_bytes,
        )
    except (errors.StoreFullError, errors.StoreReadOnlyError) as exc:
        return NoPlace(exc.message)
    made = stripe_group.made(
        writer_node=want.node,
        writer=want.writer,
        stripe_id=stripe_id,
        policy=policy,
        coding=coding,
        places=tuple(ledger.take(member, shard_bytes=zone_bytes) for member in found.members),
    )
    return Placed(made, found.protection)


# -- what nodes are told -------------------------------------------------------------------------


class Handing(NamedTuple):
    """A group that a node is to be sent."""

    node: str
    assignment: assignment.Assignment


class Release(NamedTuple):
    """A node that has shards of a group which is whole elsewhere."""

    node: str
    assignment: assignment.Assignment
    """Sent first: the node sees for itself that its shards lie elsewhere now."""


def handings(group: stripe_group.StripeGroup, scene: stripe_ledger.Scene) -> Iterator[Handing]:
    """Nodes that do not go by this generation of a group yet, or whose writer waits to use it."""
    seen = scene.seen
    usable = _is_usable(group, seen)
    records = [seen.shard(group, index) for index in range(len(group.places))]
    sealed = any(
        record is not None and record.state is node_record.ShardState.SEALED for record in records
    )
    for node in sorted({place.node for place in group.places} | {group.writer_node}):
        if node not in seen.accounts or node in seen.lost:
            continue
        lacks = any(
            place.node == node and (record is None or record.generation < group.generation)
            for place, record in zip(group.places, records, strict=True)
        )
        if node == group.writer_node and not sealed:
            known = stripe_judgement.writer_group(group, seen)
            lacks |= (
                known is None
                or known.generation < group.generation
                or (usable and not known.usable)
            )
        if lacks:
            yield Handing(node, stripe_group.handed(group, usable=usable))


def _is_usable(group: stripe_group.StripeGroup, seen: stripe_judgement.Witnesses) -> bool:
    # Written down first that all have taken it, then used: see ``why_not_moved``.
    is_handed = group.handed_generation == group.generation
    return is_handed and stripe_judgement.is_ready(group, seen)


def releases(node: str, scene: stripe_ledger.Scene) -> Iterator[Release]:
    """Shards of a node that were moved away, of groups that are whole without them."""
    stale: set[str] = set()
    for key, shard in scene.seen.accounts[node].shards.items():
        group = scene.groups.get(key.stripe)
        if (
            group is not None
            and shard.generation < group.generation
            and scene.seen.shard(group, key.shard_index) is not shard
        ):
            stale.add(key.stripe)
    for stripe in sorted(stale):
        group = scene.groups[stripe]
        if stripe_judgement.is_whole(group, scene.seen):
            usable = _is_usable(group, scene.seen)
            yield Release(node, stripe_group.handed(group, usable=usable))


def orphans_count(scene: stripe_ledger.Scene) -> int:
    """Shards of groups that have no ECStripe; they are left alone."""
    return sum(
        key.stripe not in scene.groups
        for account in scene.seen.accounts.values()
        for key in account.shards
    )


def by_urgency(
    groups: Iterable[stripe_group.StripeGroup], told: Mapping[str, stripe_group.Told]
) -> list[stripe_group.StripeGroup]:
    """Those that can lose least first."""

    def margin(group: stripe_group.StripeGroup) -> int:
        bad_count = sum(
            shard not in (None, stripe_group.ShardHealth.HEALTHY)
            for shard in told[group.name].shards
        )
        return group.coding.parity_shards - bad_count

    return sorted(groups, key=lambda group: (margin(group), group.name))
