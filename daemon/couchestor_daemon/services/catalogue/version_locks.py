"""Locks of versions, where versions are written and removed."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from couchestor_daemon.formats import index_records, lock_records
from couchestor_domain import errors, locking, objects


def of_new(bucket: index_records.Bucket, record: objects.ObjectRecord) -> objects.ObjectRecord:
    """A new version with the lock it gets from its bucket, if it asks for none itself.

    Raises:
        InvalidBucketStateError: it asks for one, which the bucket cannot give.
    """
    if bucket.object_lock is None:
        if record.lock != locking.NO_LOCK:
            raise cannot_lock(record.bucket)
        return record
    rules = lock_records.bucket_to_domain(bucket.object_lock)
    assert rules is not None, bucket
    lock = rules.of_version(record.lock, record.modified_ns)
    return record if lock is record.lock else dataclasses.replace(record, lock=lock)


class RemovalCheck(NamedTuple):
    """Stops the removal of versions that are locked."""

    bucket: str
    key: str
    now_ns: int
    bypasses_governance: bool

    def __call__(self, stored: index_records.Object) -> None:
        """Raises VersionLockedError."""
        if is_kept(stored, now_ns=self.now_ns, bypasses_governance=self.bypasses_governance):
            raise errors.VersionLockedError(
                f"version {stored.version_id} of key {self.key} in bucket {self.bucket} is locked",
                bucket=self.bucket,
                key=self.key,
                version_id=stored.version_id,
            )


def is_kept(
    stored: index_records.Object, *, now_ns: int, bypasses_governance: bool = False
) -> bool:
    """Whether a version may not be removed now."""
    return stored.lock is not None and locking.is_kept(
        lock_records.lock_to_domain(stored.lock),
        now_ns=now_ns,
        bypasses_governance=bypasses_governance,
    )


def cannot_lock(bucket: str) -> errors.InvalidBucketStateError:
    """The error that tells of a bucket whose versions cannot be locked."""
    return errors.InvalidBucketStateError(
        "Bucket is missing Object Lock Configuration", bucket=bucket
    )
