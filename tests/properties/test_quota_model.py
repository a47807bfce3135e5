"""Quotas over drawn writes, deletes and limits: what is let in fits, what is refused does not."""

from __future__ import annotations

from typing import NamedTuple

import hypothesis
import pytest
from hypothesis import strategies as st

from couchestor_daemon.adapters import memory_index
from couchestor_daemon.formats import usage_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services.catalogue import buckets, identities, usage, versions
from couchestor_domain import errors, objects

TENANT = "111122223333"
BUCKETS = ("one", "two")
NULL = objects.NULL_VERSION
EVERYTHING = (b"\x00", b"\xff")


class Put(NamedTuple):
    """A new version."""

    bucket: str
    key: str
    size_bytes: int


class Delete(NamedTuple):
    """Of a key, or of one of its versions."""

    bucket: str
    key: str
    number: int | None


class Switch(NamedTuple):
    """Of versioning."""

    bucket: str
    versioning: objects.Versioning


class Limit(NamedTuple):
    """Of a bucket, or of the tenant."""

    bucket: str | None
    quota: usage.Quota


_BUCKET = st.sampled_from(BUCKETS)
_KEY = st.sampled_from(["k", "l" * 600])
_LIMIT = st.none() | st.integers(0, 40)
STEPS = st.lists(
    st.builds(Put, _BUCKET, _KEY, st.integers(0, 20))
    | st.builds(Put, _BUCKET, _KEY, st.integers(0, 20))
    | st.builds(Delete, _BUCKET, _KEY, st.none() | st.integers(0, 3))
    | st.builds(
        Switch,
        _BUCKET,
        st.sampled_from([objects.Versioning.ENABLED, objects.Versioning.SUSPENDED]),
    )
    | st.builds(
        Limit,
        st.none() | _BUCKET,
        st.builds(usage.Quota, _LIMIT, st.none() | st.integers(0, 4)),
    ),
    max_size=25,
)


def _draw() -> bytes:
    return b"123456789012"


def _put(txn: index_port.IndexWriter, step: Put, now_ns: int) -> None:
    record = objects.ObjectRecord(
        bucket=step.bucket,
        key=step.key,
        size_bytes=step.size_bytes,
        etag="e",
        modified_ns=now_ns,
        owner=TENANT,
    )
    versions.put_version(txn, record, objects.NO_CONDITIONS, (), draw=_draw)


def _usages(txn: index_port.IndexWriter) -> list[usage.Usage]:
    found = [usage.of_bucket(txn, buckets.find(txn, name).bucket_id) for name in BUCKETS]
    kept = [each for each in (*found, usage.of_tenant(txn, TENANT)) if each is not None]
    assert len(kept) == 3
    return kept


def _fits(before: list[usage.Usage], after: list[usage.Usage]) -> bool:
    """Whether a change of usages is one that quotas allow."""
    return all(
        now <= most or now <= was
        for old, new in zip(before, after, strict=True)
        for was, now, most in (
            (old.size_bytes, new.size_bytes, old.size_bytes_max),
            (old.objects_count, new.objects_count, old.objects_count_max),
        )
    )


def _without_quotas(txn: index_port.IndexWriter) -> index_port.IndexWriter:
    copied = memory_index.MemoryIndex().write()
    for key, value in txn.scan(*EVERYTHING):
        copied.put(key, value)
    for name in BUCKETS:
        usage.set_bucket_quota(copied, buckets.find(copied, name), usage.Quota())
    usage.set_tenant_quota(copied, TENANT, usage.Quota())
    return copied


def _take(txn: index_port.IndexWriter, step: Delete | Switch | Limit, now_ns: int) -> None:
    if isinstance(step, Switch):
        buckets.set_versioning(txn, step.bucket, step.versioning)
    elif isinstance(step, Limit):
        if step.bucket is None:
            usage.set_tenant_quota(txn, TENANT, step.quota)
        else:
            usage.set_bucket_quota(txn, buckets.find(txn, step.bucket), step.quota)
    else:
        version_id = None
        if step.number is not None:
            bucket_id = buckets.find(txn, step.bucket).bucket_id
            current = versions.find(txn, bucket_id, step.key.encode())
            version_id = NULL if step.number == 0 or current is None else current.version_id
        versions.delete_version(
            txn,
            step.bucket,
            step.key,
            objects.NO_CONDITIONS,
            version_id=version_id,
            now_ns=now_ns,
            draw=_draw,
        )


@hypothesis.settings(max_examples=300, deadline=None)
@hypothesis.given(STEPS)
def test_quotas_hold_exactly(steps: list[Put | Delete | Switch | Limit]) -> None:
    with memory_index.MemoryIndex().write() as txn:
        identities.create_tenant(txn, TENANT, "t", now_ns=1)
        for name in BUCKETS:
            buckets.create_bucket(txn, name=name, owner=TENANT, region="r", now_ns=1)
        for now_ns, step in enumerate(steps, 2):
            if not isinstance(step, Put):
                _take(txn, step, now_ns)
            else:
                before, contents = _usages(txn), list(txn.scan(*EVERYTHING))
                with _without_quotas(txn) as copied:
                    _put(copied, step, now_ns)
                    may = _fits(before, _usages(copied))
                if may:
                    _put(txn, step, now_ns)
                    assert _fits(before, _usages(txn))
                else:
                    with pytest.raises(errors.QuotaExceededError):
                        _put(txn, step, now_ns)
                    # Before its first write: the other operations of its batch go on.
                    assert list(txn.scan(*EVERYTHING)) == contents
            assert list(usage.miscounted(txn)) == []
        total = _usages(txn)[2]
        assert total.size_bytes == sum(each.size_bytes for each in _usages(txn)[:2])
        assert usage.recount_tenant(txn, TENANT) == total
        for name in BUCKETS:
            usage.recount_bucket(txn, buckets.find(txn, name))
        assert _usages(txn)[2] == total


def test_golden_bytes() -> None:
    usage_of_bucket = usage_records.Usage(1, 2, 3, usage_records.NO_LIMIT, True)
    assert usage_records.bucket(1) == b"xb\0\0\0\0\0\0\0\x01"
    assert usage_records.tenant("t") == b"xtt"
    written = "0101" + "".join(f"{number:016x}" for number in (1, 2, 3, 2**64 - 1))
    assert usage_records.pack(usage_of_bucket).hex() == written
    assert usage_records.unpack(bytes.fromhex(written)) == usage_of_bucket
    for damaged in (written[:-2], "02" + written[2:]):
        with pytest.raises(errors.IndexCorruptError):
            usage_records.unpack(bytes.fromhex(damaged))
