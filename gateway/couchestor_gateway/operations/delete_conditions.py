"""Conditions of deletes: the store judges them with the delete, here only who may set them."""

from __future__ import annotations

from couchestor_domain import errors, objects
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.protocol import operation_needs


async def may_set(
    request: s3_request.S3Request,
    conditions: objects.WriteConditions,
    *,
    key: str,
    version_id: str | None,
) -> bool:
    """Whether the sender may make a delete depend on the ETag of what it deletes.

    Whoever may not read a version learns its ETag from no delete either. Of what is missing there
    is nothing to learn.
    """
    if conditions.if_match in (None, "*") and conditions.if_none_match in (None, "*"):
        return True
    try:
        record = await request.objects.get_object(
            bucket=request.bucket, key=key, version_id=version_id
        )
    except (errors.NoSuchKeyError, errors.NoSuchVersionError, errors.DeleteMarkerError):
        return True
    need = operation_needs.READ_ETAG
    if version_id is not None and need.versioned is not None:
        need = need.versioned
    return request.may(
        need,
        key=key,
        version_id=version_id,
        record=record,
        if_match=conditions.if_match or "",
    )
