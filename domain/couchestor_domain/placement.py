"""Placement of shards and replicas: a pure function of what is free where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from couchestor_domain import errors, ids


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A healthy device, as placement sees it."""

    device_id: ids.DeviceId
    failure_domain: str
    """Devices with the same value may fail together."""
    free_zones_count: int
    open_zones_count: int = 0


def choose_devices(candidates: Sequence[Candidate], count: int) -> tuple[ids.DeviceId, ...]:
    """Choose ``count`` distinct devices over as many failure domains as possible.

    Domains are taken in rounds: every domain gives its best device before any gives its second,
    so the largest share one domain holds is as small as it can be unless domains run out of
    devices. Within a round the device with the most free zones wins, then the one with
    the fewest open zones, then the lowest id: the same input always gives the same answer.

    Args:
        candidates: The healthy devices, each once, in any order.
        count: Devices wanted, at least 1.

    Returns:
        ``count`` ids; the first of them come from distinct domains.

    Raises:
        StoreReadOnlyError: fewer than ``count`` candidates.
        StoreFullError: enough candidates, but fewer than ``count`` with a free zone.
    """
    assert count >= 1, count
    assert len({candidate.device_id for candidate in candidates}) == len(candidates), candidates
    if len(candidates) < count:
        raise errors.StoreReadOnlyError(
            f"{count} devices are needed and {len(candidates)} are healthy",
            needed=count,
            healthy=len(candidates),
        )
    by_domain: dict[str, list[Candidate]] = {}
    usable = [candidate for candidate in candidates if candidate.free_zones_count > 0]
    if len(usable) < count:
        raise errors.StoreFullError(
            f"{count} devices with a free zone are needed and {len(usable)} have one; "
            "delete objects or add devices",
            needed=count,
            usable=len(usable),
        )
    for candidate in sorted(usable, key=_preference):
        by_domain.setdefault(candidate.failure_domain, []).append(candidate)
    ranked = [
        (position, _preference(candidate), candidate)
        for members in by_domain.values()
        for position, candidate in enumerate(members)
    ]
    ranked.sort(key=lambda item: item[:2])
    return tuple(candidate.device_id for _, _, candidate in ranked[:count])


def choose_spare(
    candidates: Sequence[Candidate],
    *,
    preferred: ids.DeviceId,
    taken_domains: Sequence[str],
) -> ids.DeviceId:
    """Choose the device that takes the place of one member of a group.

    The preferred device if it has room, so that a group stays where it was placed; else one whose
    failure domain holds the fewest of the other members, then as ``choose_devices`` does.

    Args:
        candidates: Healthy devices that hold no other member, each once, in any order.
        preferred: The device of the member that is replaced; it need not be a candidate.
        taken_domains: Failure domain of each other member.

    Raises:
        StoreReadOnlyError: there is no candidate.
        StoreFullError: none of them has a free zone.
    """
    if not candidates:
        raise errors.StoreReadOnlyError(
            "every healthy device holds a member of the group already: add a device", needed=1
        )
    usable = [candidate for candidate in candidates if candidate.free_zones_count > 0]
    if not usable:
        raise errors.StoreFullError(
            f"none of {len(candidates)} devices has a free zone for a member of the group; "
            "delete objects or add devices",
            needed=1,
        )
    for candidate in usable:
        if candidate.device_id == preferred:
            return preferred
    return min(
        usable,
        key=lambda candidate: (
            taken_domains.count(candidate.failure_domain),
            _preference(candidate),
        ),
    ).device_id


def _preference(candidate: Candidate) -> tuple[int, int, str]:
    return (-candidate.free_zones_count, candidate.open_zones_count, candidate.device_id)
