"""What a rebuild does first: the groups that can lose least, then what is known longest. Pure.

Several groups are rebuilt at the same time, but only such as can lose equally much: beside lesser
ones the most endangered would be done later than by themselves. Of those under way the lesser ones
pause while they are, with what they have written.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable
from typing import Final, NamedTuple

QUEUE_GROUPS_MAX: Final = 1024
"""Kept in memory; when they are done the index is looked through again."""
GROUPS_AT_ONCE: Final = 3
"""That can lose equally much; as many more may pause for each step that they can lose more."""


class Need(NamedTuple):
    """A group that lacks members."""

    redundancy_count: int
    """Further members that may be lost before bytes are: below 0, some may be lost already."""
    since_ns: int
    """When the oldest of its troubles was noticed."""
    group_id: int
    missing: tuple[int, ...]
    """Members on devices that are not in service and may be replaced."""
    suspects: tuple[int, ...]
    """Members that repair records name."""


def need(
    *,
    group_id: int,
    parity_shards: int,
    since_ns: int,
    missing: Iterable[int],
    waiting: Iterable[int],
    suspects: Iterable[int],
) -> Need:
    """What one group needs.

    Args:
        missing: Members that are gone for good, as far as anybody knows.
        waiting: Members on devices that are away and may come back: not replaced, but not there.
        suspects: Members with repair records.
    """
    gone = set(missing)
    doubtful = set(suspects) - gone
    lost_count = len(gone | doubtful | set(waiting))
    return Need(
        parity_shards - lost_count, since_ns, group_id, tuple(sorted(gone)), tuple(sorted(doubtful))
    )


def most_urgent(needs: Iterable[Need], *, count: int = QUEUE_GROUPS_MAX) -> list[Need]:
    """The first of all needs, in their order; in memory bounded by ``count``."""
    return heapq.nsmallest(count, needs)


def goes_on(one: Need, under_way: Collection[Need]) -> bool:
    """Whether a group that is under way does not pause."""
    return one.redundancy_count <= min(each.redundancy_count for each in under_way)


def may_begin(one: Need, under_way: Collection[Need]) -> bool:
    """Whether a group may be begun beside those that are under way."""
    if any(each.redundancy_count < one.redundancy_count for each in under_way):
        return False
    equal = [each for each in under_way if each.redundancy_count == one.redundancy_count]
    return len(equal) < GROUPS_AT_ONCE
