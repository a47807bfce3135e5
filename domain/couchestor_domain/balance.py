"""Which member of which group goes where, so that devices are about equally full. Pure.

Every move takes a zone of a fuller device's and one of an emptier device's that is no fuller than
the other afterwards either. So the sum of used zones squared over zones, taken over all devices,
falls with each move; as it is of finitely many values, moving ends, and nothing goes back and forth
(``tests/unit/domain/test_balance.py``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from couchestor_domain import ids, placement


class Share(NamedTuple):
    """How full a device is."""

    device_id: ids.DeviceId
    failure_domain: str
    zones_count: int
    used_count: int
    """Zones that are not free and not about to be."""
    room_count: int
    """Zones that may be taken now."""
    zone_capacity_bytes: int
    retiring: bool = False

    @property
    def used_share(self) -> float:
        """0 to 1."""
        return self.used_count / self.zones_count

    @property
    def zone_share(self) -> float:
        """What one zone adds."""
        return 1.0 / self.zones_count


class Group(NamedTuple):
    """A sealed group whose members may move."""

    group_id: int
    members: tuple[ids.DeviceId, ...]
    live_bytes: int
    capacity_bytes_min: int
    """What a zone must hold that takes a member of it."""


class Move(NamedTuple):
    """One member of a group and the device that is to hold it."""

    group_id: int
    member_index: int
    target: ids.DeviceId


def gap(shares: Iterable[Share]) -> float:
    """Used share of the fullest device less that of the emptiest; retiring ones aside."""
    used = [share.used_share for share in shares if not share.retiring]
    return max(used) - min(used) if used else 0.0


def excess_count(shares: Iterable[Share]) -> int:
    """Zones on devices that are fuller than all are together: about what balancing would move."""
    staying = [share for share in shares if not share.retiring]
    zones_count = sum(share.zones_count for share in staying)
    if not zones_count:
        return 0
    mean = sum(share.used_count for share in staying) / zones_count
    return round(sum(max(0.0, s.used_count - mean * s.zones_count) for s in staying))


def next_move(
    shares: Mapping[ids.DeviceId, Share], groups: Iterable[Group], *, gap_min: float
) -> Move | None:
    """The next move between devices that stay, or None: from the fullest to the emptiest if a group
    allows it, else between those that differ most.

    Of the groups the one with the most live bytes, so that a zone written is worth it.

    Args:
        gap_min: Used shares that differ by no more are equal enough.
    """
    by_device: dict[ids.DeviceId, list[Group]] = {}
    for group in sorted(groups, key=lambda group: (-group.live_bytes, group.group_id)):
        for device_id in group.members:
            by_device.setdefault(device_id, []).append(group)
    staying = [share for share in shares.values() if not share.retiring]
    pairs = [
        (source, target)
        for source in staying
        for target in staying
        if target.room_count > 0 and _is_worth_it(source, target, gap_min=gap_min)
    ]
    pairs.sort(key=lambda pair: pair[1].used_share - pair[0].used_share)
    for source, target in pairs:
        for group in by_device.get(source.device_id, ()):
            if can_take(shares, group, source.device_id, target):
                index = group.members.index(source.device_id)
                return Move(group.group_id, index, target.device_id)
    return None


def _is_worth_it(source: Share, target: Share, *, gap_min: float) -> bool:
    difference = source.used_share - target.used_share
    # The other half of the rule: afterwards the target is no fuller than the source.
    return difference > gap_min and difference >= source.zone_share + target.zone_share


def can_take(
    shares: Mapping[ids.DeviceId, Share], group: Group, source: ids.DeviceId, target: Share
) -> bool:
    """Whether a device may take the member of a group that ``source`` holds: it holds none, its
    zones are large enough, and the group survives as much as before.

    Args:
        shares: Of all devices that are there, also retiring ones.
    """
    if target.device_id in group.members or target.zone_capacity_bytes < group.capacity_bytes_min:
        return False
    domains = _other_domains(shares, group.members, source)
    found = shares.get(source)
    held_count = domains.count(found.failure_domain) if found is not None else len(domains)
    return domains.count(target.failure_domain) <= held_count


def spare(
    shares: Mapping[ids.DeviceId, Share], group: Group, source: ids.DeviceId
) -> ids.DeviceId | None:
    """The device that takes the place of one that leaves, or None."""
    fitting = [
        placement.Candidate(
            device_id=share.device_id,
            failure_domain=share.failure_domain,
            free_zones_count=share.room_count,
        )
        for share in shares.values()
        if not share.retiring and share.room_count > 0 and can_take(shares, group, source, share)
    ]
    if not fitting:
        return None
    domains = _other_domains(shares, group.members, source)
    return placement.choose_spare(fitting, preferred=source, taken_domains=domains)


def leaving_index(members: Sequence[ids.DeviceId], retiring: Collection[ids.DeviceId]) -> int:
    """The first member on a device that leaves; -1: none is."""
    return next((index for index, device in enumerate(members) if device in retiring), -1)


def _other_domains(
    shares: Mapping[ids.DeviceId, Share], members: Sequence[ids.DeviceId], source: ids.DeviceId
) -> list[str]:
    return [
        shares[device].failure_domain for device in members if device != source and device in shares
    ]
