"""Locks in the catalogue: nothing that is locked goes, by whatever way."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator

import hypothesis
import pytest
from hypothesis import strategies as st

from couchestor_daemon.adapters import memory_index
from couchestor_daemon.formats import lock_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services.catalogue import (
    bucket_lifecycle,
    buckets,
    expiry,
    expiry_walk,
    uploads,
    version_attributes,
    version_listing,
    versions,
)
from couchestor_domain import errors, lifecycle, locking, objects, version_ids
from couchestor_domain.locking import Mode, Retention, VersionLock

NOW = 1_000
HELD = VersionLock(legal_hold=True)
GOVERNED = VersionLock(retention=Retention(mode=Mode.GOVERNANCE, until_ns=NOW + 1))
COMPLIANT = VersionLock(retention=Retention(mode=Mode.COMPLIANCE, until_ns=NOW + 1))
OVER = VersionLock(retention=Retention(mode=Mode.COMPLIANCE, until_ns=NOW))
_random = itertools.count(1)


def _draw() -> bytes:
    return next(_random).to_bytes(version_ids.RANDOM_BYTES, "big")


@pytest.fixture
def txn() -> Iterator[index_port.IndexWriter]:
    with memory_index.MemoryIndex().write() as writer:
        buckets.create_bucket(
            writer,
            name="b",
            owner="ada",
            region="r",
            now_ns=1,
            object_lock=locking.BucketLock(),
        )
        yield writer


def _put(
    txn: index_port.IndexWriter, lock: VersionLock = locking.NO_LOCK, *, now_ns: int = 10
) -> objects.ObjectRecord:
    record = objects.ObjectRecord(
        bucket="b", key="k", size_bytes=0, etag="e", modified_ns=now_ns, lock=lock
    )
    return versions.put_version(txn, record, objects.NO_CONDITIONS, (), draw=_draw)


def _delete(
    txn: index_port.IndexWriter, version_id: str | None, *, bypasses: bool = False
) -> objects.Deletion:
    return versions.delete_version(
        txn,
        "b",
        "k",
        objects.NO_CONDITIONS,
        version_id=version_id,
        now_ns=NOW,
        draw=_draw,
        bypasses_governance=bypasses,
    )


def _ids(txn: index_port.IndexWriter) -> list[str]:
    page = version_listing.list_versions(txn, objects.VersionQuery(bucket="b"))
    return [each.version_id for each in page.versions]


def test_a_bucket_that_can_lock_keeps_all_versions_for_good(txn: index_port.IndexWriter) -> None:
    record = buckets.get_bucket(txn, "b")
    assert record.versioning is objects.Versioning.ENABLED
    assert record.object_lock == locking.BucketLock()
    with pytest.raises(errors.InvalidBucketStateError, match="cannot be changed"):
        buckets.set_versioning(txn, "b", objects.Versioning.SUSPENDED)
    buckets.set_versioning(txn, "b", objects.Versioning.ENABLED)
    with pytest.raises(errors.BucketAlreadyExistsError) as failure:
        buckets.create_bucket(txn, name="b", owner="ada", region="r", now_ns=2)
    assert failure.value.context["lock"] == locking.BucketLock()


def test_only_a_bucket_that_keeps_all_versions_can_lock(txn: index_port.IndexWriter) -> None:
    buckets.create_bucket(txn, name="c", owner="ada", region="r", now_ns=1)
    default = locking.DefaultRetention(mode=Mode.GOVERNANCE, years=3)
    lock = locking.BucketLock(default=default)
    for versioning in (None, objects.Versioning.SUSPENDED):
        if versioning is not None:
            buckets.set_versioning(txn, "c", versioning)
        with pytest.raises(errors.InvalidBucketStateError, match="must be 'Enabled'"):
            buckets.set_object_lock(txn, "c", lock)
    buckets.set_versioning(txn, "c", objects.Versioning.ENABLED)
    with pytest.raises(errors.NoSuchBucketError):
        buckets.set_object_lock(txn, "c", lock, owner="eve")
    buckets.set_object_lock(txn, "c", lock)
    assert buckets.get_bucket(txn, "c").object_lock == lock
    buckets.set_object_lock(txn, "c", locking.BucketLock())
    assert buckets.get_bucket(txn, "c").object_lock == locking.BucketLock()


@pytest.mark.parametrize("is_current", [True, False])
@pytest.mark.parametrize(
    ("lock", "goes", "goes_bypassing"),
    [
        (HELD, False, False),
        (GOVERNED, False, True),
        (COMPLIANT, False, False),
        (OVER, True, True),
        (locking.NO_LOCK, True, True),
        (dataclasses.replace(GOVERNED, legal_hold=True), False, False),
        (dataclasses.replace(GOVERNED, legal_hold=False), False, True),
    ],
)
def test_a_version_goes_only_if_its_lock_lets_it(
    txn: index_port.IndexWriter,
    lock: VersionLock,
    is_current: bool,
    goes: bool,
    goes_bypassing: bool,
) -> None:
    version_id = _put(txn, lock).version_id
    if not is_current:
        _put(txn, now_ns=20)
    for bypasses, may in ((False, goes), (True, goes_bypassing)):
        if not may:
            with pytest.raises(errors.VersionLockedError):
                _delete(txn, version_id, bypasses=bypasses)
            assert version_id in _ids(txn)
    if goes_bypassing:
        _delete(txn, version_id, bypasses=True)
        assert version_id not in _ids(txn)


def test_writing_and_deleting_a_key_leave_what_is_locked(txn: index_port.IndexWriter) -> None:
    locked = _put(txn, COMPLIANT).version_id
    newer = _put(txn, now_ns=20).version_id
    marker = _delete(txn, None).version_id
    assert _ids(txn) == [marker, newer, locked]
    _delete(txn, marker)
    _delete(txn, newer)
    with pytest.raises(errors.VersionLockedError):
        _delete(txn, locked)
    assert versions.get_version(txn, "b", "k").version_id == locked


def test_rules_of_the_lifecycle_heed_locks(txn: index_port.IndexWriter) -> None:
    rule = lifecycle.Rule(
        rule_id="r", is_enabled=True, filter=lifecycle.Filter(), noncurrent_days=1, days=1
    )
    bucket_lifecycle.put(txn, "b", lifecycle.Configuration(rules=(rule,)))
    locked = [_put(txn, lock, now_ns=10 + n).version_id for n, lock in enumerate((HELD, GOVERNED))]
    free = _put(txn, OVER, now_ns=20).version_id
    current = _put(txn, COMPLIANT, now_ns=30).version_id
    bucket_id = buckets.find(txn, "b").bucket_id
    judge = expiry.Judge((rule,), NOW, lifecycle.Calendar(100))
    found = expiry_walk.look(txn, bucket_id, judge, expiry_walk.BEGIN, rows_max=100)
    # The current one is only hidden.
    assert {each.version_id for each in found.candidates} == {free, current}
    # One that a client holds meanwhile stays.
    version_attributes.change_lock(txn, "b", "k", free, lambda lock: HELD)
    done = expiry.expire(
        txn,
        "b",
        bucket_id,
        found.candidates,
        now_ns=NOW,
        calendar=judge.calendar,
        draw=_draw,
    )
    assert [(each.candidate.version_id, each.is_hidden) for each in done] == [(current, True)]
    assert _ids(txn)[1:] == [current, free, *reversed(locked)]


def test_locks_are_changed_where_they_are(txn: index_port.IndexWriter) -> None:
    old, new = _put(txn), _put(txn, COMPLIANT, now_ns=20)

    def hold(lock: VersionLock) -> VersionLock:
        return dataclasses.replace(lock, legal_hold=True)

    assert version_attributes.change_lock(txn, "b", "k", None, hold).version_id == new.version_id
    found = versions.get_version(txn, "b", "k")
    assert found.lock == dataclasses.replace(COMPLIANT, legal_hold=True)
    version_attributes.change_lock(txn, "b", "k", old.version_id, hold)
    found = versions.get_version(txn, "b", "k", old.version_id)
    assert (found.lock, found.modified_ns) == (HELD, old.modified_ns)

    def refuse(lock: VersionLock) -> VersionLock:
        raise errors.VersionLockedError("no")

    with pytest.raises(errors.VersionLockedError):
        version_attributes.change_lock(txn, "b", "k", None, refuse)
    with pytest.raises(errors.NoSuchBucketError):
        version_attributes.change_lock(txn, "b", "k", None, hold, bucket_owner="eve")
    assert versions.get_version(txn, "b", "k", old.version_id).lock == HELD


def test_a_bucket_that_cannot_lock_takes_no_lock(txn: index_port.IndexWriter) -> None:
    buckets.create_bucket(txn, name="c", owner="ada", region="r", now_ns=1)
    record = objects.ObjectRecord(
        bucket="c", key="k", size_bytes=0, etag="e", modified_ns=1, lock=HELD
    )
    attempts: tuple[Callable[[], object], ...] = (
        lambda: versions.put_version(txn, record, objects.NO_CONDITIONS, (), draw=_draw),
        lambda: version_attributes.change_lock(txn, "c", "k", None, lambda lock: HELD),
    )
    for attempt in attempts:
        with pytest.raises(errors.InvalidBucketStateError, match="missing Object Lock"):
            attempt()


def test_uploads_become_what_they_were_begun_as(txn: index_port.IndexWriter) -> None:
    default = locking.DefaultRetention(mode=Mode.GOVERNANCE, days=1)
    buckets.set_object_lock(txn, "b", locking.BucketLock(default=default))
    for name, lock, expected in (
        ("own", COMPLIANT, COMPLIANT),
        ("none", locking.NO_LOCK, VersionLock(retention=default.of_version(50))),
        ("held", HELD, VersionLock(retention=default.of_version(50), legal_hold=True)),
    ):
        upload = objects.UploadRecord(
            upload_id=name, bucket="b", key="k", initiated_ns=1, lock=lock
        )
        uploads.create_upload(txn, upload)
        assert uploads.get_upload(txn, "b", "k", name).lock == lock
        part = objects.PartRecord(number=1, size_bytes=0, etag="e" * 32, modified_ns=2)
        uploads.put_part(txn, upload, part, ())
        record = uploads.complete_upload(
            txn,
            upload,
            [objects.CompletedPart(number=1, etag="e" * 32)],
            objects.NO_CONDITIONS,
            now_ns=50,
            draw=_draw,
        )
        assert versions.get_version(txn, "b", "k", record.version_id).lock == expected


RETENTIONS = st.none() | st.builds(
    Retention, mode=st.sampled_from(Mode), until_ns=st.integers(0, 2**63 - 1)
)
LOCKS = st.builds(VersionLock, retention=RETENTIONS, legal_hold=st.none() | st.booleans())


@hypothesis.given(LOCKS)
def test_every_lock_comes_back(lock: VersionLock) -> None:
    assert lock_records.lock_to_domain(lock_records.lock_to_stored(lock)) == lock
    assert (lock_records.lock_to_stored(lock) is None) == (lock == locking.NO_LOCK)


@pytest.mark.parametrize(
    "lock",
    [
        None,
        locking.BucketLock(),
        locking.BucketLock(default=locking.DefaultRetention(mode=Mode.GOVERNANCE, days=7)),
        locking.BucketLock(default=locking.DefaultRetention(mode=Mode.COMPLIANCE, years=1)),
    ],
)
def test_every_lock_of_a_bucket_comes_back(lock: locking.BucketLock | None) -> None:
    assert lock_records.bucket_to_domain(lock_records.bucket_to_stored(lock)) == lock


def test_unknown_codes_are_told() -> None:
    for attempt in (
        lambda: lock_records.lock_to_domain((3, 1, 0)),
        lambda: lock_records.lock_to_domain((0, 0, 3)),
        lambda: lock_records.bucket_to_domain((3, 1, 0)),
    ):
        with pytest.raises(errors.IndexCorruptError, match="object lock"):
            attempt()
