"""Which policy a volume follows when several want it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from couchestor_operator.control import policy
from couchestor_operator.control import volume as volumes


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """Who follows whom."""

    owner_of: Mapping[str, policy.Policy]
    """By volume name."""
    lost_to: Mapping[str, Mapping[str, int]]
    """Policy name -> name of the policy that has volumes it wants too -> how many of them."""


def resolve(policies: Iterable[policy.Policy], fleet: Iterable[volumes.Volume]) -> Claims:
    """Give each volume to the oldest enabled policy that wants it, of equally old ones the first.

    The same input always gives the same answer, in whichever order it comes.
    """
    by_class: dict[str, list[policy.Policy]] = {}
    for candidate in sorted(policies, key=lambda each: (each.created_at_seconds, each.name)):
        if candidate.enabled:
            by_class.setdefault(candidate.storage_class, []).append(candidate)
    owner_of: dict[str, policy.Policy] = {}
    lost_to: dict[str, dict[str, int]] = {}
    for volume in fleet:
        for candidate in by_class.get(volume.storage_class, ()):
            if not candidate.volume_selector.matches(volume.labels):
                continue
            owner = owner_of.setdefault(volume.name, candidate)
            if owner is not candidate:
                losses = lost_to.setdefault(candidate.name, {})
                losses[owner.name] = losses.get(owner.name, 0) + 1
    return Claims(owner_of=owner_of, lost_to=lost_to)
