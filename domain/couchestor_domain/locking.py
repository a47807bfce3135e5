"""Object lock: which versions may not be removed yet. Pure, at moments that are given.

    lock of a version               removing it                    its retention may become
    legal hold                      no
    COMPLIANCE, until then          no                             later
    GOVERNANCE, until then          with the right to bypass it    later; anything with that right
    retention that is over, none    yes                            anything

Lifecycle rules have no such right.

Writing a key again, or deleting it without naming a version, removes nothing: buckets that can lock
keep all versions.

Source: Amazon S3 User Guide, "Locking objects with Object Lock".
"""

from __future__ import annotations

import datetime
import enum
from dataclasses import dataclass
from typing import Final

from couchestor_domain import units

DAYS_MAX: Final = 36_500
YEARS_MAX: Final = 100
_NS_PER_DAY: Final = 86_400 * units.NS_PER_SECOND
_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


class Mode(enum.Enum):
    """Who may end a retention before its time."""

    GOVERNANCE = "GOVERNANCE"
    """Whoever has the right to, and says so."""
    COMPLIANCE = "COMPLIANCE"
    """Nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long a version is kept."""

    mode: Mode
    until_ns: int
    """Since the Unix epoch, UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionLock:
    """What keeps a version."""

    retention: Retention | None = None
    legal_hold: bool | None = None
    """None: nobody ever said whether."""


NO_LOCK: Final = VersionLock()


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaultRetention:
    """The retention of versions that are written without one. Either days or years."""

    mode: Mode
    days: int | None = None
    years: int | None = None

    def of_version(self, written_ns: int) -> Retention:
        """The retention of a version written then; years end on the same day of the year."""
        if self.days is not None:
            return Retention(mode=self.mode, until_ns=written_ns + self.days * _NS_PER_DAY)
        assert self.years is not None, self
        day = _EPOCH + datetime.timedelta(days=written_ns // _NS_PER_DAY)
        try:
            last = day.replace(year=day.year + self.years)
        except ValueError:
            # There is no 29 February: the day after is not too early.
            last = day.replace(year=day.year + self.years, month=3, day=1)
        until_ns = (last - _EPOCH).days * _NS_PER_DAY + written_ns % _NS_PER_DAY
        return Retention(mode=self.mode, until_ns=until_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketLock:
    """That the versions of a bucket can be locked, and how those are that say nothing."""

    default: DefaultRetention | None = None

    def of_version(self, lock: VersionLock, written_ns: int) -> VersionLock:
        """The lock of a new version that asks for ``lock``."""
        if lock.retention is not None or self.default is None:
            return lock
        return VersionLock(
            retention=self.default.of_version(written_ns), legal_hold=lock.legal_hold
        )


def is_kept(lock: VersionLock, *, now_ns: int, bypasses_governance: bool = False) -> bool:
    """Whether a version may not be removed now.

    Args:
        bypasses_governance: Whether whoever removes it has the right to, and says so.
    """
    if lock.legal_hold:
        return True
    retention = lock.retention
    if retention is None or retention.until_ns <= now_ns:
        return False
    return retention.mode is Mode.COMPLIANCE or not bypasses_governance


def may_become(
    old: Retention | None, new: Retention | None, *, now_ns: int, bypasses_governance: bool = False
) -> bool:
    """Whether the retention of a version may be replaced now.

    Args:
        new: None: it is removed.
        bypasses_governance: See ``is_kept``.
    """
    if old is None or old.until_ns <= now_ns:
        return True
    if old.mode is Mode.GOVERNANCE and bypasses_governance:
        return True
    return new is not None and new.mode is old.mode and new.until_ns >= old.until_ns
