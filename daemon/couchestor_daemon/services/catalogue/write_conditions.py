"""Conditions of writes and deletes, evaluated where the version they speak of is replaced."""

from __future__ import annotations

from couchestor_daemon.formats import index_records
from couchestor_domain import errors, objects


def check_put(
    old: index_records.Object | None,
    record: objects.ObjectRecord,
    conditions: objects.WriteConditions,
) -> None:
    """Evaluate the conditions of a write. Raises NoSuchKeyError, PreconditionFailedError."""
    if old is None and conditions.if_match is not None:
        raise no_such_key(record.bucket, record.key)
    _check(old, conditions, record.bucket, record.key)


def _check(
    old: index_records.Object | None, conditions: objects.WriteConditions, bucket: str, key: str
) -> None:
    if old is None:
        return
    if conditions.if_match is not None and conditions.if_match not in ("*", old.etag):
        raise _failed("If-Match", bucket, key)
    if conditions.if_none_match is not None and conditions.if_none_match in ("*", old.etag):
        raise _failed("If-None-Match", bucket, key)


def check_delete(
    old: index_records.Object | None, conditions: objects.WriteConditions, bucket: str, key: str
) -> None:
    """Evaluate the conditions of a delete, as the S3 conformance suite of Ceph expects them.

    Where there is nothing to delete they hold: it is gone, which is what the client wants, and a
    delete that is sent again because its answer was lost succeeds.

    Args:
        old: The version that is deleted or hidden. A delete marker is something, but has no ETag.

    Raises:
        PreconditionFailedError.
    """
    if old is not None and old.is_delete_marker:
        if conditions.if_match not in (None, "*"):
            raise _failed("If-Match", bucket, key)
        return
    _check(old, conditions, bucket, key)


def no_such_key(
    bucket: str, key: str, marker: index_records.Object | None = None
) -> errors.NoSuchKeyError:
    """The error that tells of a missing key, and of the delete marker in its place."""
    context: dict[str, object] = {} if marker is None else {"delete_marker": marker.version_id}
    return errors.NoSuchKeyError(
        f"there is no key {key} in bucket {bucket}", bucket=bucket, key=key, **context
    )


def _failed(condition: str, bucket: str, key: str) -> errors.PreconditionFailedError:
    return errors.PreconditionFailedError(
        f"{condition} does not hold for key {key} in bucket {bucket}",
        condition=condition,
        bucket=bucket,
        key=key,
    )
