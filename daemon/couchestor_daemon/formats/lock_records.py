"""Object locks as index records hold them.

of a version or an upload    mode (0 none, 1 GOVERNANCE, 2 COMPLIANCE), until when it is kept in
                             nanoseconds since the Unix epoch, legal hold (0 never said, 1 OFF,
                             2 ON); nothing for no lock
of a bucket                  mode of the default retention (0 none), its days, its years; nothing
                             for a bucket that cannot lock
"""

from __future__ import annotations

from typing import Final

from couchestor_domain import errors, locking

StoredLock = tuple[int, int, int] | None

_MODES: Final = {1: locking.Mode.GOVERNANCE, 2: locking.Mode.COMPLIANCE}
_HOLDS: Final = {0: None, 1: False, 2: True}
_MODE_CODES: Final = {mode: code for code, mode in _MODES.items()}
_HOLD_CODES: Final = {hold: code for code, hold in _HOLDS.items()}


def lock_to_stored(lock: locking.VersionLock) -> StoredLock:
    """The lock of a version as it is stored."""
    if lock == locking.NO_LOCK:
        return None
    retention = lock.retention
    hold = _HOLD_CODES[lock.legal_hold]
    if retention is None:
        return (0, 0, hold)
    return (_MODE_CODES[retention.mode], retention.until_ns, hold)


def lock_to_domain(stored: StoredLock) -> locking.VersionLock:
    """A stored lock as the domain's. Raises IndexCorruptError."""
    if stored is None:
        return locking.NO_LOCK
    mode, until_ns, hold = stored
    try:
        retention = locking.Retention(mode=_MODES[mode], until_ns=until_ns) if mode else None
        return locking.VersionLock(retention=retention, legal_hold=_HOLDS[hold])
    except KeyError as exc:
        raise _unknown(exc) from exc


def bucket_to_stored(lock: locking.BucketLock | None) -> StoredLock:
    """The lock of a bucket as it is stored."""
    if lock is None:
        return None
    default = lock.default
    if default is None:
        return (0, 0, 0)
    return (_MODE_CODES[default.mode], default.days or 0, default.years or 0)


def bucket_to_domain(stored: StoredLock) -> locking.BucketLock | None:
    """A bucket's stored lock as the domain's. Raises IndexCorruptError."""
    if stored is None:
        return None
    mode, days, years = stored
    if not mode:
        return locking.BucketLock()
    try:
        default = locking.DefaultRetention(
            mode=_MODES[mode], days=days or None, years=years or None
        )
    except KeyError as exc:
        raise _unknown(exc) from exc
    return locking.BucketLock(default=default)


def _unknown(exc: KeyError) -> errors.IndexCorruptError:
    return errors.IndexCorruptError(
        f"the index holds an object lock with an unknown code {exc}; run `couchestor recover`"
    )
