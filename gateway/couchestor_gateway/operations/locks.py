"""Object locks in requests: what a write asks for, what an answer tells, who may bypass one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from couchestor_domain import locking, objects
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.operations import versions
from couchestor_gateway.protocol import lock_headers, operation_needs, s3_error


def of_write(request: s3_request.S3Request) -> locking.VersionLock:
    """The lock that a write asks for by its headers, if its sender may lock.

    Raises:
        S3Error: InvalidRequest for a bucket that cannot lock, AccessDenied, and as
            ``lock_headers.parse``.
    """
    if lock_headers.NAMES.isdisjoint(request.amz_names):
        return locking.NO_LOCK
    lock = lock_headers.parse(request.headers, now_ns=request.now_ns())
    if lock is locking.NO_LOCK:
        return lock
    require_lockable(request)
    if lock.retention is not None:
        request.require(operation_needs.WRITE_RETENTION)
    if lock.legal_hold is not None:
        request.require(operation_needs.WRITE_LEGAL_HOLD)
    return lock


def require_lockable(request: s3_request.S3Request) -> None:
    """Stop what a bucket without object lock cannot do. Raises S3Error: InvalidRequest."""
    if request.bucket_record.object_lock is None:
        raise s3_error.make("InvalidRequest", "Bucket is missing Object Lock Configuration")


def add(
    answer: dict[str, str], request: s3_request.S3Request, record: objects.ObjectRecord
) -> None:
    """Tell the lock of a version to those who may know it."""
    lock = record.lock
    if lock is locking.NO_LOCK:
        return
    may = functools.partial(request.may, version_id=request.query.get("versionId"), record=record)
    if may(operation_needs.READ_RETENTION):
        answer.update(lock_headers.of_retention(lock.retention))
    if may(operation_needs.READ_LEGAL_HOLD):
        answer.update(lock_headers.of_legal_hold(lock.legal_hold))


def bypasses_governance(
    request: s3_request.S3Request, *, key: str | None = None, version_id: str | None = None
) -> bool:
    """Whether a request asks for governance mode to be bypassed, and its sender may.

    Args:
        key: Of what; the request's own if None.
    """
    if request.headers.get(lock_headers.BYPASS, "").strip().lower() != "true":
        return False
    return request.may(operation_needs.BYPASS_GOVERNANCE, key=key, version_id=version_id)


async def change(
    request: s3_request.S3Request,
    make: Callable[[locking.VersionLock], locking.VersionLock],
    *,
    told: Mapping[str, str],
) -> responses.Reply:
    """Replace the lock of the version that a request names, the current one by default.

    Args:
        told: What the body asks for, as headers of a write would.

    Raises:
        NoSuchKeyError, NoSuchVersionError, DeleteMarkerError
        S3Error: InvalidRequest for a bucket that cannot lock, AccessDenied, and what ``make``
            raises.
    """
    version_id = versions.named(request.query)
    judged = await request.find_object(version_id, lock=told)
    require_lockable(request)
    record = await request.objects.change_lock(
        bucket=request.bucket,
        key=request.key,
        version_id=versions.judged(judged, version_id),
        change=make,
        bucket_owner=request.bucket_record.owner,
    )
    return responses.Reply(200, versions.of_record(record))
