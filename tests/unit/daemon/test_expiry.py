"""Removal by lifecycle rules: judged again where it is done, so that nothing else goes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from couchestor_daemon.adapters import memory_index
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
from couchestor_domain import lifecycle, objects, version_ids

DAY = 10
ENABLED = objects.Versioning.ENABLED


class Bucket:
    """A bucket with rules, at a moment that tests set."""

    def __init__(self, txn: index_port.IndexWriter) -> None:
        self.txn = txn
        self.now = 100
        self._random = itertools.count(1)
        self.make()

    def make(self) -> None:
        buckets.create_bucket(self.txn, name="b", owner="ada", region="r", now_ns=1)

    def draw(self) -> bytes:
        return next(self._random).to_bytes(version_ids.RANDOM_BYTES, "big")

    def rule(self, **actions: object) -> None:
        """The only rule of the bucket."""
        rule = lifecycle.Rule(
            rule_id="r",
            is_enabled=True,
            filter=lifecycle.Filter(),
            **actions,  # type: ignore[arg-type]
        )
        bucket_lifecycle.put(self.txn, "b", lifecycle.Configuration(rules=(rule,)))

    def put(self, key: str = "k", **more: object) -> objects.ObjectRecord:
        record = objects.ObjectRecord(
            bucket="b",
            key=key,
            size_bytes=0,
            etag="e",
            modified_ns=self.now,
            **more,  # type: ignore[arg-type]
        )
        return versions.put_version(self.txn, record, objects.NO_CONDITIONS, (), draw=self.draw)

    def delete(self, version_id: str | None = None) -> None:
        versions.delete_version(
            self.txn,
            "b",
            "k",
            objects.NO_CONDITIONS,
            version_id=version_id,
            now_ns=self.now,
            draw=self.draw,
        )

    def found(self) -> tuple[int, list[expiry.Candidate]]:
        """The bucket, and what is due in it."""
        stored = buckets.find(self.txn, "b")
        configuration = bucket_lifecycle.of_bucket(self.txn, stored)
        assert configuration is not None
        judge = expiry.Judge(
            lifecycle.enabled(configuration.rules), self.now, lifecycle.Calendar(DAY)
        )
        found = expiry_walk.look(
            self.txn, stored.bucket_id, judge, expiry_walk.BEGIN, rows_max=1000
        )
        return stored.bucket_id, found.candidates

    def expire(self, found: tuple[int, list[expiry.Candidate]]) -> list[expiry.Expired]:
        return expiry.expire(
            self.txn,
            "b",
            found[0],
            found[1],
            now_ns=self.now,
            calendar=lifecycle.Calendar(DAY),
            draw=self.draw,
        )

    def versions(self) -> list[tuple[str, bool]]:
        page = version_listing.list_versions(self.txn, objects.VersionQuery(bucket="b"))
        return [(each.version_id, each.is_delete_marker) for each in page.versions]


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    with memory_index.MemoryIndex().write() as txn:
        yield Bucket(txn)


def test_an_object_that_was_written_again_meanwhile_stays(bucket: Bucket) -> None:
    # By its date the new one is due, too; but nobody has judged it.
    bucket.rule(date_ns=5)
    bucket.put()
    found = bucket.found()
    assert len(found[1]) == 1
    bucket.now += 1
    bucket.put()
    assert bucket.expire(found) == []
    assert bucket.versions() == [("null", False)]
    (done,) = bucket.expire(bucket.found())
    assert (done.rule_id, done.is_hidden, bucket.versions()) == ("r", False, [])


def test_rules_count_as_they_are_when_it_is_done(bucket: Bucket) -> None:
    bucket.rule(days=1)
    bucket.put()
    bucket.now += DAY
    found = bucket.found()
    bucket.rule(days=9)
    assert bucket.expire(found) == []
    bucket_lifecycle.put(bucket.txn, "b", None)
    assert bucket.expire(found) == []
    bucket.rule(days=1)
    assert len(bucket.expire(found)) == 1


def test_tags_count_as_they_are_when_it_is_done(bucket: Bucket) -> None:
    rule = lifecycle.Rule(
        rule_id="r", is_enabled=True, filter=lifecycle.Filter(tags={"t": "1"}), days=1
    )
    bucket_lifecycle.put(bucket.txn, "b", lifecycle.Configuration(rules=(rule,)))
    bucket.put(tags={"t": "1"})
    bucket.now += DAY
    found = bucket.found()
    version_attributes.set_tags(bucket.txn, "b", "k", None, {"t": "2"})
    assert bucket.expire(found) == []
    assert bucket.versions() == [("null", False)]


def test_a_bucket_made_anew_is_another(bucket: Bucket) -> None:
    bucket.rule(days=1)
    bucket.put()
    bucket.now += DAY
    found = bucket.found()
    bucket.delete()
    buckets.delete_bucket(bucket.txn, "b")
    assert bucket.expire(found) == []
    bucket.make()
    bucket.rule(days=1)
    bucket.now -= DAY
    bucket.put()
    bucket.now += DAY
    assert bucket.expire(found) == []
    assert bucket.versions() == [("null", False)]


def test_a_current_version_is_hidden_behind_a_marker_of_the_buckets_owner(bucket: Bucket) -> None:
    buckets.set_versioning(bucket.txn, "b", ENABLED)
    bucket.rule(days=1)
    kept = bucket.put()
    bucket.now += DAY
    (done,) = bucket.expire(bucket.found())
    assert done.is_hidden
    page = version_listing.list_versions(bucket.txn, objects.VersionQuery(bucket="b"))
    assert [(each.is_delete_marker, each.owner) for each in page.versions] == [
        (True, "ada"),
        (False, ""),
    ]
    assert page.versions[1].version_id == kept.version_id
    assert bucket.found()[1] == []


def test_a_version_whose_successor_is_deleted_meanwhile_stays(bucket: Bucket) -> None:
    buckets.set_versioning(bucket.txn, "b", ENABLED)
    bucket.rule(noncurrent_days=2)
    first = bucket.put()
    bucket.now += 1
    second = bucket.put()
    bucket.now += 2 * DAY
    found = bucket.found()
    assert [each.version_id for each in found[1]] == [first.version_id]
    bucket.delete(second.version_id)
    assert bucket.expire(found) == []
    assert bucket.versions() == [(first.version_id, False)]


def test_as_many_newer_versions_as_are_to_be_kept_are_counted_anew(bucket: Bucket) -> None:
    buckets.set_versioning(bucket.txn, "b", ENABLED)
    bucket.rule(noncurrent_days=1, newer_noncurrent_count=2)
    made = []
    for _ in range(4):
        bucket.now += 1
        made.append(bucket.put())
    bucket.now += 2 * DAY
    found = bucket.found()
    assert [each.version_id for each in found[1]] == [made[0].version_id]
    bucket.delete(made[2].version_id)
    assert bucket.expire(found) == []
    bucket.put()
    bucket.delete()
    # Two are newer again; the marker stands for the current version.
    assert [done.candidate.version_id for done in bucket.expire(found)] == [made[0].version_id]


def test_a_marker_before_which_something_was_written_meanwhile_stays(bucket: Bucket) -> None:
    buckets.set_versioning(bucket.txn, "b", ENABLED)
    bucket.rule(removes_lone_markers=True)
    bucket.delete()
    found = bucket.found()
    assert [each.kind for each in found[1]] == [expiry.Kind.MARKER]
    bucket.put()
    assert bucket.expire(found) == []
    assert [is_marker for _, is_marker in bucket.versions()] == [False, True]


def test_a_version_that_expires_gives_back_what_it_owns(bucket: Bucket) -> None:
    buckets.set_versioning(bucket.txn, "b", ENABLED)
    bucket.rule(noncurrent_days=1)
    before = len(list(bucket.txn.scan(b"\x00", b"\xff")))
    parts = [
        objects.PartRecord(number=i, size_bytes=0, etag="e", modified_ns=1) for i in range(1, 40)
    ]
    record = objects.ObjectRecord(
        bucket="b", key="k", size_bytes=0, etag="e", modified_ns=bucket.now, part_count=len(parts)
    )
    versions.put_version(
        bucket.txn, record, objects.NO_CONDITIONS, (), parts, draw=bucket.draw, upload_id="u"
    )
    bucket.now += 1
    current = bucket.put()
    bucket.now += DAY
    (done,) = bucket.expire(bucket.found())
    assert done.candidate.parts_count == len(parts)
    bucket.delete(current.version_id)
    left = [key for key, _ in bucket.txn.scan(b"\x00", b"\xff")]
    assert len(left) - before <= 1, left  # The counter of namespaces, had it not been there.


def test_an_upload_that_ends_meanwhile_is_left_alone(bucket: Bucket) -> None:
    bucket.rule(abort_days=1)
    for name in ("one", "two"):
        upload = objects.UploadRecord(upload_id=name, bucket="b", key="k", initiated_ns=bucket.now)
        uploads.create_upload(bucket.txn, upload)
    bucket.now += DAY
    found = bucket.found()
    uploads.abort_upload(bucket.txn, "b", "k", "one")
    assert [done.candidate.version_id for done in bucket.expire(found)] == ["two"]
    assert not uploads.list_uploads(bucket.txn, objects.UploadQuery(bucket="b")).uploads
