"""PUT /bucket?logging."""

from __future__ import annotations

from couchestor_domain import errors, objects
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.operations import new_object
from couchestor_gateway.protocol import logging_status, s3_error


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Say where the log of a bucket's requests goes; an empty status: nowhere.

    It goes into buckets of the same owner alone, who need not grant anything for it.
    """
    document = await request.document(required=True)
    wanted = logging_status.parse(document, users=request.users)
    if request.caller != request.bucket_record.owner:
        raise s3_error.make("AccessDenied", "Only the owner of a bucket says where its log goes.")
    if wanted is not None:
        await _require_target(request, wanted)
    await request.buckets.put_setting(
        bucket=request.bucket,
        setting=objects.Setting.LOGGING,
        value=None if wanted is None else logging_status.write(wanted, users=request.users),
        bucket_owner=request.bucket_record.owner,
    )
    return responses.Reply(200)


async def _require_target(request: s3_request.S3Request, wanted: logging_status.Logging) -> None:
    if wanted.bucket == request.bucket:
        raise _refused("A bucket's log cannot go into the bucket itself.", wanted.bucket)
    try:
        target = await request.buckets.get_bucket(wanted.bucket)
    except errors.NoSuchBucketError as exc:
        raise s3_error.make(
            "InvalidTargetBucketForLogging", TargetBucket=wanted.bucket[:256]
        ) from exc
    if target.owner != request.bucket_record.owner:
        raise s3_error.make(
            "InvalidTargetBucketForLogging",
            "The owner for the bucket to be logged and the target bucket must be the same.",
            TargetBucket=wanted.bucket,
        )
    if objects.Setting.LOGGING in target.settings:
        raise _refused("The target bucket for logging has a log itself.", wanted.bucket)
    if wanted.grants:
        if not target.access.has_acls:
            raise s3_error.make("AccessControlListNotSupported")
        new_object.require_unblocked(target.access, wanted.grants)


def _refused(message: str, bucket: str) -> s3_error.S3Error:
    return s3_error.make(
        "InvalidArgument", message, ArgumentName="TargetBucket", ArgumentValue=bucket
    )
