"""PUT /bucket."""

from __future__ import annotations

from typing import Final

from couchestor_domain import access, errors, locking
from couchestor_gateway.edge import request as s3_request
from couchestor_gateway.edge import responses
from couchestor_gateway.protocol import (
    access_documents,
    acl_headers,
    bucket_names,
    s3_error,
    xml_reading,
)

_OWNERSHIP: Final = "x-amz-object-ownership"
_OBJECT_LOCK: Final = "x-amz-bucket-object-lock-enabled"


async def run(request: s3_request.S3Request) -> responses.Reply:
    """Create a bucket. Creating one's own again as it is answers 200, as us-east-1 does.

    Created again with another ACL or ownership it is refused: AWS would replace the ACL, and a
    tool that only wants to be sure of a bucket would close or open it.
    """
    bucket_names.validate(request.bucket)
    owner = request.account()
    document = await request.document()
    region = request.region
    if document:
        asked = xml_reading.create_bucket_configuration(document)
        if asked and asked != region:
            raise s3_error.make(
                "IllegalLocationConstraintException",
                f"The {asked} location constraint is incompatible with the region {region}.",
            )
    wanted = _access(request, owner)
    object_lock = _object_lock(request.headers.get(_OBJECT_LOCK, ""))
    try:
        await request.buckets.create_bucket(
            name=request.bucket,
            owner=owner,
            region=region,
            access=wanted,
            object_lock=object_lock,
        )
    except errors.BucketAlreadyExistsError as exc:
        context = exc.context
        if context.get("owner") != owner or not _is_as_wanted(context.get("access"), wanted):
            raise
        if object_lock is not None and context.get("lock") is None:
            raise
    return responses.Reply(200, {"Location": f"/{request.bucket}"})


def _object_lock(text: str) -> locking.BucketLock | None:
    match text.strip().lower():
        case "true":
            return locking.BucketLock()
        case "" | "false":
            return None
    raise s3_error.make(
        "InvalidArgument",
        f"{_OBJECT_LOCK} is true or false.",
        ArgumentName=_OBJECT_LOCK,
        ArgumentValue=text[:64],
    )


def _access(request: s3_request.S3Request, owner: str) -> access.BucketAccess:
    headers = request.headers
    acl = None
    if acl_headers.is_given(headers, request.amz_names):
        acl = acl_headers.parse(headers, owner=owner, bucket_owner=None, users=request.users)
    text = headers.get(_OWNERSHIP, "").strip()
    if not text:
        return access.BucketAccess(acl=acl)
    ownership = access_documents.ownership_of(text)
    if ownership is None:
        raise s3_error.make(
            "InvalidArgument",
            "Invalid x-amz-object-ownership header: " + text[:64],
            ArgumentName=_OWNERSHIP,
            ArgumentValue=text[:64],
        )
    wanted = access.BucketAccess(acl=acl, ownership=ownership)
    if acl is not None and not wanted.has_acls:
        raise s3_error.make("InvalidBucketAclWithObjectOwnership")
    return wanted


def _is_as_wanted(existing: object, wanted: access.BucketAccess) -> bool:
    """Whether a bucket has the ACL that its creation asks for; it may say more of ownership."""
    if not isinstance(existing, access.BucketAccess):
        return True
    return existing.acl == wanted.acl and wanted.ownership in (
        access.Ownership.UNSET,
        existing.ownership,
    )
