"""The places of a new group, and of the shards that a group has lost."""

from __future__ import annotations

import collections
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from couchestor_domain import errors, geometry, ids
from couchestor_domain.stripe_placement import cluster, protection


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where the shards of a group lie."""

    members: tuple[ids.DeviceId, ...]
    """By shard index."""
    protection: protection.Protection


def place(
    devices: Iterable[cluster.Device],
    coding: geometry.StripeGeometry,
    *,
    group_id: str,
    shard_bytes: int,
) -> Placement:
    """The places of a new group: as well protected as devices allow, then the emptiest ones.

    The same devices in any order give the same answer.

    Args:
        devices: Each once, usable or not.
        group_id: Decides between devices that are equally empty.

    Raises:
        StoreReadOnlyError: fewer usable devices than shards.
        StoreFullError: enough, but fewer with room for a shard.
    """
    chosen = _chosen(
        list(devices), coding, group_id, shard_bytes, kept=(), wanted_count=coding.shards_count
    )
    return Placement(
        members=tuple(device.device_id for device in chosen),
        protection=protection.of_members(chosen, coding),
    )


def replace(
    devices: Iterable[cluster.Device],
    coding: geometry.StripeGeometry,
    group: cluster.Group,
    *,
    lost: Collection[int],
) -> Placement:
    """New places for the shards of some indices; all others stay where they are.

    What is protected is as much as those that stay allow. No shard goes to a device that the group
    has one on, nor to one that it has lost.

    Args:
        devices: Each once; those of shards that stay among them, usable or not.
        lost: Indices of shards, at least one.

    Raises:
        StoreReadOnlyError: fewer usable devices than lost shards.
        StoreFullError: enough, but fewer with room for a shard.
    """
    assert lost, group
    known = {device.device_id: device for device in devices}
    staying = [
        known[member]
        for index, member in enumerate(group.members)
        if index not in lost and member in known
    ]
    others = [device for device in known.values() if device.device_id not in group.members]
    found = iter(
        _chosen(
            others,
            coding,
            group.group_id,
            group.shard_bytes,
            kept=staying,
            wanted_count=len(lost),
        )
    )
    taken = [next(found) for _ in lost]
    new = iter(taken)
    members = tuple(
        next(new).device_id if index in lost else member
        for index, member in enumerate(group.members)
    )
    return Placement(members=members, protection=protection.of_members([*staying, *taken], coding))


def _chosen(
    devices: Sequence[cluster.Device],
    coding: geometry.StripeGeometry,
    group_id: str,
    shard_bytes: int,
    *,
    kept: Sequence[cluster.Device],
    wanted_count: int,
) -> list[cluster.Device]:
    ranked = cluster.by_emptiness(devices, group_id=group_id, shard_bytes=shard_bytes)
    tree = protection.Tree(ranked, kept)
    limits = tree.best_limits(wanted_count, coding)
    if limits is None:
        raise _shortage(devices, wanted_count, len(ranked), shard_bytes)
    on_host = collections.Counter(tree.kept_on_host)
    in_zone = collections.Counter(tree.kept_in_zone)
    chosen: list[cluster.Device] = []
    for device in ranked:
        if len(chosen) == wanted_count:
            break
        if on_host[device.host] < limits.per_host and in_zone[device.zone] < limits.per_zone:
            on_host[device.host] += 1
            in_zone[device.zone] += 1
            chosen.append(device)
    # Limits on a tree: whatever was taken within them, as many can be taken as they allow.
    assert len(chosen) == wanted_count, (limits, wanted_count, len(chosen))
    return chosen


def _shortage(
    devices: Sequence[cluster.Device], wanted_count: int, roomy_count: int, shard_bytes: int
) -> errors.CouchestorError:
    usable_count = sum(device.usable for device in devices)
    if usable_count < wanted_count:
        return errors.StoreReadOnlyError(
            f"{wanted_count} devices are needed for shards of a group and {usable_count} can take"
            " one: add nodes or devices, or bring back those that are away",
            needed=wanted_count,
            usable=usable_count,
        )
    return errors.StoreFullError(
        f"{wanted_count} devices with {shard_bytes} bytes free are needed and {roomy_count} have"
        " them: add nodes or devices",
        needed=wanted_count,
        usable=roomy_count,
    )
