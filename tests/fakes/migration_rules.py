"""How much of a migration is explored, and in what kind of world."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How the world works; every default is what the machine demands of it.

    The others are mutants, each without one of the things that keep a migration safe, and the
    two that describe a manager of volumes that knows no versions.
    """

    all_seem_whole: bool = False
    """Whether a replica is synced is not asked."""
    looks_are_cached: bool = False
    """A look shows what a lagging cache holds, in which the volume may be missing yet."""
    acts_before_writing: bool = False
    """What a new record commands is done before that record is written."""
    record_read_first: bool = False
    """The record is read before the volume is looked at."""
    seal_not_awaited: bool = False
    """A record with an ending goes without a seal on its volume."""
    any_seal_will_do: bool = False
    """A seal for an earlier ending of the same migration is taken for that of the present one."""
    versions_checked: bool = True
    manager_chooses: bool = False
    """Which replica goes is up to the manager, which takes one that is not whole if it can."""
    kills_are_moves: bool = False
    """Drop acts as well, which leads to no state that is not visited anyway."""
    history_judged: bool = True
    """Whether what the record and the history say is judged, too."""


STRICT = Rules()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much is explored."""

    replicas_count: int
    acts_count: int
    """Looks, verdicts and late calls that may be under way at once."""
    faults_count: int = 0
    """Replicas that fault or vanish, and placements in another pool than asked for."""
    meddling_count: int = 0
    """Policy withdrawn or restored, preservation switched, target pool gone or back, number of
    replicas changed, volume deleted."""
