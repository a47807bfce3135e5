"""A world at one moment, what is under way in it, and what changes it; all by index."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

LOOK, DOING, READ = range(3)
GONE = -1

Act: TypeAlias = tuple[int, bool, int]
"""Kind, whether what it is conditional on is unchanged, and index of what it holds."""


class World(NamedTuple):
    """Everything at one moment; clusters, records and verdicts by index."""

    cluster: int
    record: int
    """GONE once the migration has ended."""
    acts: tuple[Act, ...] = ()
    policy_wants: bool = True
    preservation: bool = False
    faults_left: int = 0
    meddling_left: int = 0
    cache: int = GONE
    cache_is_fresh: bool = False


class Event(NamedTuple):
    """Something that changes the world."""

    after: World
    """Its acts are yet to be filled in."""
    acts: tuple[Act, ...] = ()
    """Those from before that the event leaves."""
    free_count: int = 0
    """How many more may have been under way."""
    volume_changed: bool = False
    policy_changed: bool = False
    record_changed: bool = False


def acting(world: World, acts: tuple[Act, ...]) -> World:
    """The world with these acts under way."""
    # By position: most of the time goes into this, and `_replace` takes twice as long.
    return World(world[0], world[1], acts, *world[3:])


def written(world: World, *, record: int) -> Event:
    """The policy has another version: whatever else was to be written there is refused."""
    return Event(world._replace(record=record), policy_changed=True)


def changed(world: World, cluster: int) -> Event:
    """The volume has another version: commands decided on the old one are refused."""
    after = world._replace(cluster=cluster, cache_is_fresh=False)
    return Event(after, volume_changed=True)
