"""Which versions are kept, and what their retention may become."""

from __future__ import annotations

import datetime
import itertools

import pytest

from couchestor_domain import locking
from couchestor_domain.locking import DefaultRetention, Mode, Retention, VersionLock

NOW = 1_000


def _lock(mode: Mode | None, until_ns: int, hold: bool | None) -> VersionLock:
    retention = None if mode is None else Retention(mode=mode, until_ns=until_ns)
    return VersionLock(retention=retention, legal_hold=hold)


@pytest.mark.parametrize("bypasses", [False, True])
@pytest.mark.parametrize("hold", [None, False, True])
@pytest.mark.parametrize("until_ns", [NOW - 1, NOW, NOW + 1])
@pytest.mark.parametrize("mode", [None, *Mode])
def test_every_lock_keeps_what_it_should(
    mode: Mode | None, until_ns: int, hold: bool | None, bypasses: bool
) -> None:
    kept = locking.is_kept(_lock(mode, until_ns, hold), now_ns=NOW, bypasses_governance=bypasses)
    if hold:
        assert kept
    elif mode is None or until_ns <= NOW:
        assert not kept
    else:
        assert kept == (mode is Mode.COMPLIANCE or not bypasses)


def test_every_change_of_a_retention() -> None:
    times = (NOW - 1, NOW, NOW + 5, NOW + 9)
    all_of_them = [None, *(Retention(mode=m, until_ns=u) for m in Mode for u in times)]
    for old, new, bypasses in itertools.product(all_of_them, all_of_them, [False, True]):
        may = locking.may_become(old, new, now_ns=NOW, bypasses_governance=bypasses)
        was_kept = old is not None and old.until_ns > NOW
        if not was_kept:
            assert may
            continue
        assert old is not None
        if old.mode is Mode.GOVERNANCE and bypasses:
            assert may
            continue
        # At each moment at which the old one kept the version, the new one does so as well.
        keeps = new is not None and new.mode is old.mode and new.until_ns >= old.until_ns
        assert may == keeps


def _ns(text: str) -> int:
    return int(datetime.datetime.fromisoformat(f"{text}+00:00").timestamp()) * 10**9


@pytest.mark.parametrize(
    ("written", "days", "years", "until"),
    [
        ("2026-11-29 10:30:00", 1, None, "2026-11-30 10:30:00"),
        ("2026-11-29 10:30:00", None, 2, "2028-11-29 10:30:00"),
        ("2028-02-29 23:59:59", None, 1, "2029-03-01 23:59:59"),
        ("2028-02-29 23:59:59", None, 4, "2032-02-29 23:59:59"),
        ("2026-11-29 10:30:00", locking.DAYS_MAX, None, "2126-11-05 10:30:00"),
    ],
)
def test_default_retentions(written: str, days: int | None, years: int | None, until: str) -> None:
    default = DefaultRetention(mode=Mode.COMPLIANCE, days=days, years=years)
    expected = Retention(mode=Mode.COMPLIANCE, until_ns=_ns(until))
    assert default.of_version(_ns(written)) == expected
    bucket = locking.BucketLock(default=default)
    assert bucket.of_version(locking.NO_LOCK, _ns(written)) == VersionLock(retention=expected)
    held = bucket.of_version(VersionLock(legal_hold=True), _ns(written))
    assert held == VersionLock(retention=expected, legal_hold=True)


def test_a_version_that_asks_for_a_retention_has_that() -> None:
    own = VersionLock(retention=Retention(mode=Mode.GOVERNANCE, until_ns=5))
    default = DefaultRetention(mode=Mode.COMPLIANCE, days=9)
    assert locking.BucketLock(default=default).of_version(own, 0) is own
    assert locking.BucketLock().of_version(locking.NO_LOCK, 0) is locking.NO_LOCK
