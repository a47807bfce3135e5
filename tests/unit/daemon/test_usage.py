"""Counters of what buckets and tenants hold: how they begin, end, and are found wrong."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from couchestor_daemon.adapters import memory_index
from couchestor_daemon.formats import usage_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services import index_audit
from couchestor_daemon.services.catalogue import (
    buckets,
    identities,
    uploads,
    usage,
    versions,
)
from couchestor_domain import errors, objects

TENANT = "111122223333"


@pytest.fixture
def txn() -> Iterator[index_port.IndexWriter]:
    with memory_index.MemoryIndex().write() as writer:
        identities.create_tenant(writer, TENANT, "acme", now_ns=1)
        for name, owner in (("theirs", TENANT), ("roots", "root")):
            buckets.create_bucket(writer, name=name, owner=owner, region="r", now_ns=1)
        yield writer


def _put(txn: index_port.IndexWriter, bucket: str, key: str = "k", *, size_bytes: int = 10) -> None:
    record = objects.ObjectRecord(
        bucket=bucket, key=key, size_bytes=size_bytes, etag="e", modified_ns=5
    )
    versions.put_version(txn, record, objects.NO_CONDITIONS, (), draw=lambda: bytes(12))


def _of(txn: index_port.IndexWriter, bucket: str) -> usage.Usage | None:
    return usage.of_bucket(txn, buckets.find(txn, bucket).bucket_id)


def _forget(txn: index_port.IndexWriter, bucket: str) -> None:
    """As a release without counters left it."""
    assert txn.delete(usage_records.bucket(buckets.find(txn, bucket).bucket_id))


def test_what_is_roots_counts_for_the_bucket_alone(txn: index_port.IndexWriter) -> None:
    _put(txn, "roots")
    _put(txn, "theirs")
    assert _of(txn, "roots") == usage.Usage(10, 1)
    assert _of(txn, "theirs") == usage.Usage(10, 1, is_of_tenant=True)
    assert usage.of_tenant(txn, TENANT) == usage.Usage(10, 1)
    assert usage.of_tenant(txn, "root") is None


def test_an_upload_counts_when_it_is_completed(txn: index_port.IndexWriter) -> None:
    usage.set_bucket_quota(txn, buckets.find(txn, "theirs"), usage.Quota(size_bytes=10))
    upload = objects.UploadRecord(upload_id="u", bucket="theirs", key="k", initiated_ns=1)
    uploads.create_upload(txn, upload)
    for number, size_bytes in ((1, 6), (2, 5), (3, 4)):
        part = objects.PartRecord(
            number=number, size_bytes=size_bytes, etag=f"{number}" * 32, modified_ns=1
        )
        uploads.put_part(txn, upload, part, ())
    assert _of(txn, "theirs") == usage.Usage(0, 0, 10, is_of_tenant=True)

    def complete(*numbers: int) -> None:
        uploads.complete_upload(
            txn,
            upload,
            [objects.CompletedPart(number=number, etag=f"{number}" * 32) for number in numbers],
            objects.NO_CONDITIONS,
            now_ns=2,
            draw=lambda: bytes(12),
            min_part_bytes=1,
        )

    before = list(txn.scan(b"\x00", b"\xff"))
    with pytest.raises(errors.QuotaExceededError, match="holds 0 bytes and may hold 10"):
        complete(1, 2)
    assert list(txn.scan(b"\x00", b"\xff")) == before
    complete(1, 3)
    assert _of(txn, "theirs") == usage.Usage(10, 1, 10, is_of_tenant=True)
    complete(1, 3)  # a retry is the same object
    assert _of(txn, "theirs") == usage.Usage(10, 1, 10, is_of_tenant=True)


def test_a_bucket_from_before_is_counted_when_it_is_limited(txn: index_port.IndexWriter) -> None:
    _forget(txn, "roots")
    buckets.set_versioning(txn, "roots", objects.Versioning.ENABLED)
    for size_bytes in (1, 2, 4):
        _put(txn, "roots", size_bytes=size_bytes)
    versions.delete_version(
        txn, "roots", "k", objects.NO_CONDITIONS, now_ns=9, draw=lambda: bytes(12)
    )
    assert _of(txn, "roots") is None
    assert list(usage.miscounted(txn)) == []
    bucket = buckets.find(txn, "roots")
    assert usage.set_bucket_quota(txn, bucket, usage.Quota(None, 3)) == usage.Usage(
        7, 3, objects_count_max=3
    )
    with pytest.raises(errors.QuotaExceededError, match="holds 3 objects and may hold 3"):
        _put(txn, "roots")


def test_a_tenant_takes_over_what_is_there(txn: index_port.IndexWriter) -> None:
    for name in ("old", "older"):
        buckets.create_bucket(txn, name=name, owner="ada", region="r", now_ns=1)
        _put(txn, name)
    _forget(txn, "older")
    usage.set_bucket_quota(txn, buckets.find(txn, "old"), usage.Quota(50, None))
    identities.create_tenant(txn, "ada", "ada", now_ns=1)
    assert usage.of_tenant(txn, "ada") == usage.Usage(20, 2)
    assert _of(txn, "old") == usage.Usage(10, 1, 50, is_of_tenant=True)
    _put(txn, "older", "l")
    assert usage.of_tenant(txn, "ada") == usage.Usage(30, 3)
    assert list(usage.miscounted(txn)) == []


def test_counters_end_with_what_they_count(txn: index_port.IndexWriter) -> None:
    buckets.delete_bucket(txn, "theirs")
    buckets.delete_bucket(txn, "roots")
    identities.remove_tenant(txn, TENANT)
    assert list(txn.scan(usage_records.TABLE, b"y")) == []


def test_a_wrong_counter_is_found_keeps_nobody_from_deleting_and_is_counted_anew(
    txn: index_port.IndexWriter,
) -> None:
    _put(txn, "theirs")
    key = usage_records.bucket(buckets.find(txn, "theirs").bucket_id)
    txn.put(key, usage_records.pack(usage.Usage(3, 0, is_of_tenant=True)))
    (finding,) = index_audit.usage_findings(txn)
    assert finding.is_damage
    assert finding.text.startswith(
        "bucket theirs is counted as holding 0 objects with 3 bytes, and holds 1 with 10"
    )
    assert "`couchestor quota recount` with --bucket" in finding.text
    versions.delete_version(
        txn, "theirs", "k", objects.NO_CONDITIONS, now_ns=9, draw=lambda: bytes(12)
    )
    assert _of(txn, "theirs") == usage.Usage(0, 0, is_of_tenant=True)
    assert list(index_audit.usage_findings(txn)) == []
    txn.put(usage_records.tenant(TENANT), usage_records.pack(usage.Usage(1, 1)))
    (finding,) = index_audit.usage_findings(txn)
    assert finding.subject == f"usage of tenant {TENANT}"
    usage.recount_tenant(txn, TENANT)
    assert list(index_audit.usage_findings(txn)) == []
