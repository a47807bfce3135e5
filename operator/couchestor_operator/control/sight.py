"""What a migration is decided on: a look at the cluster, and how old it may be."""

from __future__ import annotations

from dataclasses import dataclass

from couchestor_operator.control import migration, policy, pool
from couchestor_operator.control import volume as volumes


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What people ask of a migration, read together with its record."""

    is_wanted: bool
    """Whether the policy still exists, is enabled, not in dry run, and wants the volume."""
    preservation_mode: bool


def wishes_of(
    rule: policy.Policy | None, volume: volumes.Volume | None, *, preservation_mode: bool
) -> Wishes:
    """What a policy still asks of a migration that runs under it.

    Whether another policy would own the volume by now is not asked: what has begun is brought to
    an end under the policy that began it.

    Args:
        rule: None if it is gone, or cannot be read.
    """
    is_wanted = (
        rule is not None
        and rule.enabled
        and not rule.dry_run
        and volume is not None
        and volume.storage_class == rule.storage_class
        and rule.volume_selector.matches(volume.labels)
    )
    return Wishes(is_wanted=is_wanted, preservation_mode=preservation_mode)


@dataclass(frozen=True, slots=True, kw_only=True)
class FreshSight:
    """Asked of the APIs themselves, and in this order: pool, volume, then policy and record.

    The order is what lets a seal fence off a sleeper. An operator that holds a record without an
    ending read it before the ending was written, hence looked at the volume before that was
    sealed, hence holds a version of the volume that is no more. Read the other way round, its
    command would carry the version after the seal, and do its harm when nobody watches.
    """

    volume: volumes.Volume | None
    """None: the manager says that there is no such volume."""
    target: pool.Pool | None
    record: migration.Record
    wishes: Wishes
    now_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedSight:
    """From what is at hand, of any age: a watch's cache may lag, or not know the volume yet."""

    volume: volumes.Volume | None
    target: pool.Pool | None
    record: migration.Record
    wishes: Wishes
    now_seconds: float
