"""What buckets and tenants hold, counted by the commits that change it, and their quotas.

Counted are versions with content and their bytes: current ones and older ones alike. Delete markers
and parts of uploads under way are not, so deleting is always possible, and an upload counts when it
is completed. Counters change with what they count, in one commit: they are right after any crash,
and a quota holds exactly, whichever processes write at once.

A bucket that was created before there were counters has none until it is counted: see ``recount``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from couchestor_daemon.formats import index_keys, index_records, media_records, usage_records
from couchestor_daemon.ports import index as index_port
from couchestor_daemon.services.catalogue import history, key_space
from couchestor_domain import errors

Usage = usage_records.Usage


class Quota(NamedTuple):
    """The most that may be held; None: any."""

    size_bytes: int | None = None
    objects_count: int | None = None


def of_bucket(reader: index_port.IndexReader, bucket_id: int) -> Usage | None:
    """What a bucket holds; None: it has not been counted."""
    return _get(reader, usage_records.bucket(bucket_id))


def of_tenant(reader: index_port.IndexReader, tenant_id: str) -> Usage | None:
    """What a tenant's buckets hold together; None: there is no such tenant."""
    return _get(reader, usage_records.tenant(tenant_id))


def begin_bucket(txn: index_port.IndexWriter, bucket: index_records.Bucket) -> None:
    """Count a bucket that is being created."""
    is_of_tenant = of_tenant(txn, bucket.owner) is not None
    _put(txn, usage_records.bucket(bucket.bucket_id), Usage(is_of_tenant=is_of_tenant))


def end_bucket(txn: index_port.IndexWriter, bucket_id: int) -> None:
    """Forget the counter of an empty bucket."""
    txn.delete(usage_records.bucket(bucket_id))


def begin_tenant(txn: index_port.IndexWriter, tenant_id: str) -> None:
    """Count what the buckets of a new tenant hold: those that somebody of that id has left."""
    recount_tenant(txn, tenant_id)


def end_tenant(txn: index_port.IndexWriter, tenant_id: str) -> None:
    """Forget the counter of a tenant without buckets."""
    txn.delete(usage_records.tenant(tenant_id))


def add(
    txn: index_port.IndexWriter,
    bucket: index_records.Bucket,
    *,
    size_bytes: int,
    objects_count: int,
) -> None:
    """Count what has come (or gone, where negative).

    A counter never falls below nothing: a wrong one, which ``couchestor check`` finds, must not
    keep anybody from deleting.
    """
    key = usage_records.bucket(bucket.bucket_id)
    value = txn.get(key)
    if value is None:
        return
    txn.put(key, usage_records.shifted(value, size_bytes, objects_count))
    if usage_records.is_of_tenant(value):
        key = usage_records.tenant(bucket.owner)
        total = txn.get(key)
        if total is not None:
            txn.put(key, usage_records.shifted(total, size_bytes, objects_count))


def require_room(
    reader: index_port.IndexReader,
    bucket: index_records.Bucket,
    name: str,
    *,
    size_bytes: int,
    replaced: Callable[[], Iterable[index_records.Object]],
) -> None:
    """Stop a new version that a quota has no room for.

    What takes no more than it frees is let through, also where a quota has been lowered below what
    is held.

    Args:
        name: Of the bucket.
        size_bytes: Of the version.
        replaced: The versions that make way for it; asked only where there is a quota.

    Raises:
        QuotaExceededError
    """
    value = reader.get(usage_records.bucket(bucket.bucket_id))
    if value is None or not (usage_records.is_limited(value) or usage_records.is_of_tenant(value)):
        return
    found = usage_records.unpack(value)
    total = of_tenant(reader, bucket.owner) if found.is_of_tenant else None
    if not found.is_limited and (total is None or not total.is_limited):
        return
    freed = [old for old in replaced() if not old.is_delete_marker]
    more_bytes = size_bytes - sum(old.size_bytes for old in freed)
    more_objects = 1 - len(freed)
    for usage, whose in ((found, f"bucket {name}"), (total, f"tenant {bucket.owner}")):
        if usage is None:
            continue
        if more_bytes > 0 and usage.size_bytes + more_bytes > usage.size_bytes_max:
            raise errors.QuotaExceededError(
                f"{whose} holds {usage.size_bytes} bytes and may hold {usage.size_bytes_max}:"
                f" there is no room for {more_bytes} more",
                bucket=name,
            )
        if more_objects > 0 and usage.objects_count + more_objects > usage.objects_count_max:
            raise errors.QuotaExceededError(
                f"{whose} holds {usage.objects_count} objects and may hold"
                f" {usage.objects_count_max}",
                bucket=name,
            )


def set_bucket_quota(
    txn: index_port.IndexWriter, bucket: index_records.Bucket, quota: Quota
) -> Usage:
    """Limit a bucket, which is counted first if it never was."""
    found = of_bucket(txn, bucket.bucket_id) or recount_bucket(txn, bucket)
    return _limited(txn, usage_records.bucket(bucket.bucket_id), found, quota)


def set_tenant_quota(txn: index_port.IndexWriter, tenant_id: str, quota: Quota) -> Usage:
    """Limit what the buckets of a tenant hold together."""
    found = of_tenant(txn, tenant_id) or recount_tenant(txn, tenant_id)
    return _limited(txn, usage_records.tenant(tenant_id), found, quota)


def recount_bucket(txn: index_port.IndexWriter, bucket: index_records.Bucket) -> Usage:
    """Count what a bucket holds, anew or for the first time: its tenant's total follows.

    In one commit, which other writers wait for: some two seconds for a million versions.
    """
    key = usage_records.bucket(bucket.bucket_id)
    before = _get(txn, key) or Usage()
    counted = _counted(txn, bucket.bucket_id)
    total = of_tenant(txn, bucket.owner)
    after = before._replace(
        size_bytes=counted.size_bytes,
        objects_count=counted.objects_count,
        is_of_tenant=total is not None,
    )
    if total is not None:
        was = before if before.is_of_tenant else Usage()
        total = _changed(
            total,
            after.size_bytes - was.size_bytes,
            after.objects_count - was.objects_count,
        )
        _put(txn, usage_records.tenant(bucket.owner), total)
    _put(txn, key, after)
    return after


def recount_tenant(txn: index_port.IndexWriter, tenant_id: str) -> Usage:
    """The same for every bucket of a tenant, and the total from nothing."""
    before = of_tenant(txn, tenant_id) or Usage()
    owned = [bucket for bucket in _buckets(txn) if bucket.owner == tenant_id]
    size_bytes = objects_count = 0
    for bucket in owned:
        key = usage_records.bucket(bucket.bucket_id)
        counted = _counted(txn, bucket.bucket_id)
        quota = _get(txn, key) or Usage()
        _put(
            txn,
            key,
            quota._replace(
                size_bytes=counted.size_bytes,
                objects_count=counted.objects_count,
                is_of_tenant=True,
            ),
        )
        size_bytes += counted.size_bytes
        objects_count += counted.objects_count
    after = before._replace(size_bytes=size_bytes, objects_count=objects_count)
    _put(txn, usage_records.tenant(tenant_id), after)
    return after


def miscounted(reader: index_port.IndexReader) -> Iterator[tuple[str, Usage, Usage]]:
    """What counters say that do not say what there is: whose, the counter, what there is."""
    totals: dict[str, Usage] = {}
    for key, value in reader.scan(*media_records.table_range(index_keys.BUCKETS)):
        bucket = index_records.unpack(index_records.Bucket, value)
        said = of_bucket(reader, bucket.bucket_id)
        if said is None:
            continue
        is_of_tenant = of_tenant(reader, bucket.owner) is not None
        counted = _counted(reader, bucket.bucket_id)
        there = said._replace(
            size_bytes=counted.size_bytes,
            objects_count=counted.objects_count,
            is_of_tenant=is_of_tenant,
        )
        if said != there:
            yield f"bucket {key[1:].decode()}", said, there
        if is_of_tenant:
            totals[bucket.owner] = _changed(
                totals.get(bucket.owner, Usage()), counted.size_bytes, counted.objects_count
            )
    start = usage_records.tenant("")
    for key, value in reader.scan(start, start + b"\xff"):
        tenant_id = key[len(start) :].decode()
        said = usage_records.unpack(value)
        total = totals.get(tenant_id, Usage())
        there = said._replace(size_bytes=total.size_bytes, objects_count=total.objects_count)
        if said != there:
            yield f"tenant {tenant_id}", said, there


def _counted(reader: index_port.IndexReader, bucket_id: int) -> Usage:
    size_bytes = objects_count = 0
    for stored in _versions(reader, bucket_id):
        if not stored.is_delete_marker:
            size_bytes += stored.size_bytes
            objects_count += 1
    return Usage(size_bytes, objects_count)


def _versions(reader: index_port.IndexReader, bucket_id: int) -> Iterator[index_records.Object]:
    for _, value in key_space.scan(reader, index_keys.OBJECTS, bucket_id):
        yield index_records.unpack(index_records.Object, value)
    for _, value in key_space.scan(reader, index_keys.HISTORY_KEYS, bucket_id):
        yield from history.entries(reader, int(index_keys.U64.unpack(value)[0]))


def _buckets(reader: index_port.IndexReader) -> Iterator[index_records.Bucket]:
    for _, value in reader.scan(*media_records.table_range(index_keys.BUCKETS)):
        yield index_records.unpack(index_records.Bucket, value)


def _limited(txn: index_port.IndexWriter, key: bytes, found: Usage, quota: Quota) -> Usage:
    no_limit = usage_records.NO_LIMIT
    for limit in quota:
        if limit is not None and not 0 <= limit < no_limit:
            raise errors.InvalidIdentityError(f"a quota is 0 to {no_limit - 1}, not {limit}")
    changed = found._replace(
        size_bytes_max=no_limit if quota.size_bytes is None else quota.size_bytes,
        objects_count_max=no_limit if quota.objects_count is None else quota.objects_count,
    )
    _put(txn, key, changed)
    return changed


def _changed(usage: Usage, size_bytes: int, objects_count: int) -> Usage:
    return Usage(
        max(usage.size_bytes + size_bytes, 0),
        max(usage.objects_count + objects_count, 0),
        usage.size_bytes_max,
        usage.objects_count_max,
        usage.is_of_tenant,
    )


def _get(reader: index_port.IndexReader, key: bytes) -> Usage | None:
    value = reader.get(key)
    return None if value is None else usage_records.unpack(value)


def _put(txn: index_port.IndexWriter, key: bytes, usage: Usage) -> None:
    txn.put(key, usage_records.pack(usage))
