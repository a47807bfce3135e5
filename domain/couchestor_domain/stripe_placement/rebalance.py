"""Which shards move when devices join or limits change, and no others.

Every move takes a shard off a device that is more than half a shard above its fair share and puts
it on one that is more than half a shard below. So no device both gives and takes, no shard moves
twice, and there are no more moves than shards above the fair share.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from couchestor_domain import errors, geometry, ids
from couchestor_domain.stripe_placement import choice, cluster, fair_share, protection

TOLERANCE_RATIO: Final = 0.05
"""Of its fair share, that a device may hold more or less."""


class Move(NamedTuple):
    """One shard of a group and the device that is to hold it."""

    group_id: str
    shard_index: int
    source: ids.DeviceId
    target: ids.DeviceId


def balance(
    devices: Iterable[cluster.Device],
    groups: Iterable[cluster.Group],
    coding: geometry.StripeGeometry,
    *,
    moves_count_max: int,
    tolerance_ratio: float = TOLERANCE_RATIO,
) -> list[Move]:
    """The moves that bring devices within the tolerance of their fair shares, if groups allow.

    No group survives less afterwards. The same input in any order gives the same answer.

    Args:
        devices: Each once; those that are not usable neither give nor take.
        groups: Of one coding, each once.
    """
    known = {device.device_id: device for device in devices}
    table = _Table(known, groups, coding)
    moves: list[Move] = []
    while len(moves) < moves_count_max:
        move = table.next_move(tolerance_ratio)
        if move is None:
            break
        table.make(move)
        moves.append(move)
    return moves


def strengthen(
    devices: Iterable[cluster.Device],
    groups: Iterable[cluster.Group],
    coding: geometry.StripeGeometry,
    *,
    moves_count_max: int,
) -> list[Move]:
    """The moves after which groups survive a host or a zone that they would not have survived.

    Args:
        devices: Each once.
        groups: Of one coding, each once; one with a member that is not known is left alone.
    """
    known = {device.device_id: device for device in devices}
    moves: list[Move] = []
    for group in sorted(groups):
        while len(moves) < moves_count_max:
            move = _strengthening(known, group, coding)
            if move is None:
                break
            known = _moved(known, move, group.shard_bytes)
            group = group._replace(members=_with(group.members, move))
            moves.append(move)
    return moves


def _strengthening(
    known: Mapping[ids.DeviceId, cluster.Device],
    group: cluster.Group,
    coding: geometry.StripeGeometry,
) -> Move | None:
    if any(member not in known for member in group.members):
        return None
    members = [known[member] for member in group.members]
    now = protection.of_members(members, coding)
    if now.survives is protection.Survives.ZONE:
        return None
    limits = _possible(known.values(), group, coding)
    losable = coding.parity_shards
    if limits is None or not (
        limits.per_zone <= losable or (limits.per_host <= losable < now.host_shards_max)
    ):
        return None
    before = _crowding(members, losable)
    for index in sorted(range(len(members)), key=lambda index: _crowd_of(index, members)):
        try:
            found = choice.replace(known.values(), coding, group, lost=(index,))
        except (errors.CapacityError, errors.UnavailableError):
            return None
        after = _crowding([known[member] for member in found.members], losable)
        if after < before:
            target = found.members[index]
            return Move(group.group_id, index, group.members[index], target)
    return None


def _possible(
    devices: Iterable[cluster.Device], group: cluster.Group, coding: geometry.StripeGeometry
) -> protection.Limits | None:
    """The limits of a group that were made anew: where its shards lie now there is room."""
    free = [
        device
        for device in devices
        if device.device_id in group.members or device.can_take(group.shard_bytes)
    ]
    return protection.Tree(free).best_limits(coding.shards_count, coding)


def _crowding(members: Sequence[cluster.Device], losable: int) -> tuple[int, int]:
    """Shards beyond what may be lost with a host, and with a zone."""
    hosts = collections.Counter(member.host for member in members)
    zones = collections.Counter(member.zone for member in members)
    return (
        sum(max(0, count - losable) for count in hosts.values()),
        sum(max(0, count - losable) for count in zones.values()),
    )


def _crowd_of(index: int, members: Sequence[cluster.Device]) -> tuple[int, int, int]:
    """Sorts shards with the most company first."""
    mine = members[index]
    return (
        -sum(member.host == mine.host for member in members),
        -sum(member.zone == mine.zone for member in members),
        index,
    )


class _Table:
    """Who holds what, as moves change it."""

    def __init__(
        self,
        known: Mapping[ids.DeviceId, cluster.Device],
        groups: Iterable[cluster.Group],
        coding: geometry.StripeGeometry,
    ) -> None:
        self._known = known
        self._coding = coding
        self._groups = {group.group_id: group for group in sorted(groups)}
        self._fair = fair_share.shares(known.values(), self._groups.values(), coding)
        self._room = {each: device.free_bytes for each, device in known.items()}
        self._held: collections.Counter[ids.DeviceId] = collections.Counter()
        self._on: dict[ids.DeviceId, set[str]] = collections.defaultdict(set)
        for group in self._groups.values():
            for member in group.members:
                self._held[member] += group.shard_bytes
                self._on[member].add(group.group_id)
        usable = [device for device in known.values() if device.usable]
        limits = protection.Tree(usable).best_limits(coding.shards_count, coding)
        self._limits = limits or protection.Limits(0, 0)

    def next_move(self, tolerance_ratio: float) -> Move | None:
        """From the device that is most above its share to the one most below it, if groups allow;
        else between others."""
        over = {each: self._held[each] - fair for each, fair in self._fair.items()}
        ranked = sorted(over, key=lambda each: (self._relative(over, each), each))
        for source in reversed(ranked):
            if over[source] <= 0:
                break
            for target in ranked:
                if over[target] >= 0:
                    break
                if self._is_off(over, source, tolerance_ratio) or self._is_off(
                    over, target, tolerance_ratio
                ):
                    for group in self._givable(source):
                        if min(over[source], -over[target]) > group.shard_bytes / 2 and (
                            self._may(group, source, target)
                        ):
                            index = group.members.index(source)
                            return Move(group.group_id, index, source, target)
        return None

    def make(self, move: Move) -> None:
        """Count it as made."""
        group = self._groups[move.group_id]
        self._groups[move.group_id] = group._replace(members=_with(group.members, move))
        for device_id, sign in ((move.source, -1), (move.target, 1)):
            self._held[device_id] += sign * group.shard_bytes
            self._room[device_id] -= sign * group.shard_bytes
        self._on[move.source].discard(group.group_id)
        self._on[move.target].add(group.group_id)

    def _relative(self, over: Mapping[ids.DeviceId, float], device_id: ids.DeviceId) -> float:
        return over[device_id] / self._known[device_id].capacity_bytes

    def _is_off(
        self, over: Mapping[ids.DeviceId, float], device_id: ids.DeviceId, tolerance_ratio: float
    ) -> bool:
        return abs(over[device_id]) > tolerance_ratio * self._fair[device_id]

    def _givable(self, source: ids.DeviceId) -> Iterator[cluster.Group]:
        for group_id in sorted(self._on[source]):
            yield self._groups[group_id]

    def _may(self, group: cluster.Group, source: ids.DeviceId, target: ids.DeviceId) -> bool:
        if target in group.members or self._room[target] < group.shard_bytes:
            return False
        if any(member not in self._known for member in group.members):
            return False
        before = protection.of_members([self._known[each] for each in group.members], self._coding)
        after = protection.of_members(
            [self._known[target if each == source else each] for each in group.members],
            self._coding,
        )
        return (
            after.survives >= before.survives
            and after.host_shards_max <= max(before.host_shards_max, self._limits.per_host)
            and after.zone_shards_max <= max(before.zone_shards_max, self._limits.per_zone)
        )


def _with(members: tuple[ids.DeviceId, ...], move: Move) -> tuple[ids.DeviceId, ...]:
    return tuple(
        move.target if index == move.shard_index else member for index, member in enumerate(members)
    )


def _moved(
    known: Mapping[ids.DeviceId, cluster.Device], move: Move, shard_bytes: int
) -> dict[ids.DeviceId, cluster.Device]:
    return {
        **known,
        move.source: cluster.with_used(known[move.source], -shard_bytes),
        move.target: cluster.with_used(known[move.target], shard_bytes),
    }
